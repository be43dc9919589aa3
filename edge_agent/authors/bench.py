"""Time and fuel of a plugin's events on an engine, alone or beside another version of it.

Of two plugins short blocks of calls take turns, so that both have the same machine.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from edge_agent.authors.trial import Outcome, Trial
from edge_agent.authors.tryout import PluginFile, Runtime, message
from edge_agent.errors import ConfigError
from edge_agent.nri import events

BLOCKS = 10
WARM = 20  # calls before anything is measured
_BAR_CHARS = 40


@dataclass(frozen=True)
class Measured:
    """One plugin's calls of one event on one engine. Times in nanoseconds, sorted."""

    plugin: str
    engine: str
    method: str
    times: tuple[int, ...]
    fuel: int
    memory_bytes: int

    def at(self, part: float) -> int:
        """The time that this part of the calls kept within: 0.5 is the median."""
        return self.times[min(len(self.times) - 1, int(part * len(self.times)))]

    def as_json(self) -> dict[str, object]:
        """For tools; times in microseconds."""
        return {
            "plugin": self.plugin,
            "engine": self.engine,
            "event": self.method,
            "calls": len(self.times),
            "median_us": self.at(0.5) / 1000,
            "p90_us": self.at(0.9) / 1000,
            "p99_us": self.at(0.99) / 1000,
            "max_us": self.times[-1] / 1000,
            "fuel": self.fuel,
            "memory_bytes": self.memory_bytes,
        }

    def histogram(self) -> Iterator[str]:
        """A line for each doubling of the time that calls took."""
        buckets: dict[int, int] = {}
        for taken in self.times:
            size = max(0, (taken // 1000).bit_length() - 1)
            buckets[size] = buckets.get(size, 0) + 1
        for size in range(min(buckets), max(buckets) + 1):
            count = buckets.get(size, 0)
            bar = "#" * -(-count * _BAR_CHARS // max(buckets.values()))
            low = 0 if size == 0 else 1 << size
            yield f"{low:>8} - {(2 << size) - 1:<8} us {count:>7} {bar}"


def measure(
    plugins: Sequence[PluginFile],
    runtime: Runtime,
    engine: str,
    method: str,
    request: Message,
    calls: int,
) -> list[Measured]:
    """Of each plugin, its calls of one event.

    ConfigError: a plugin does not take the event, or fails at it. ModuleError, EngineError,
    StoreError: it could not be started. GuestFault: it ended in one of the calls.
    """
    fuel, memory = [], []
    for plugin in plugins:
        with Trial(plugin, runtime, engine=engine, count_fuel=True) as trial:
            outcome = _begin(trial, plugin, method, request)
            fuel.append(outcome.fuel.get(outcome.export, 0))
    with contextlib.ExitStack() as stack:
        trials = [stack.enter_context(Trial(each, runtime, engine=engine)) for each in plugins]
        for plugin, trial in zip(plugins, trials, strict=True):
            memory.append(_begin(trial, plugin, method, request).memory_bytes)
            trial.timed(method, request, WARM)
        times: list[list[int]] = [[] for _ in trials]
        for block in range(BLOCKS):
            size = calls * (block + 1) // BLOCKS - calls * block // BLOCKS
            for trial, taken in zip(trials, times, strict=True):
                taken += trial.timed(method, request, size)
    return [
        Measured(str(plugin.path), engine, method, tuple(sorted(taken)), used, held)
        for plugin, taken, used, held in zip(plugins, times, fuel, memory, strict=True)
    ]


def _begin(trial: Trial, plugin: PluginFile, method: str, request: Message) -> Outcome:
    trial.check(method, request)
    trial.begin(message(events.SYNCHRONIZE))
    outcome = trial.event(method, request)
    if outcome.step != method or outcome.kind not in ("ok", "error", "rejected"):
        raise ConfigError(
            f"{plugin.path}: {outcome.step}: {outcome.kind}: {outcome.error}; nothing is measured"
        )
    return outcome
