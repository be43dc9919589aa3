"""How much memory: the agent with more and more plugins, the native daemon, wazero."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scripts.benchmarks import guests
from scripts.benchmarks.contestants import (
    NATIVE,
    WAZERO,
    Agent,
    Bare,
    Contestant,
    NativeDaemon,
    WazeroHost,
)
from scripts.benchmarks.figures import Aim
from scripts.benchmarks.process import memory
from tests.support.mosquitto import MOSQUITTO, OPENSSL, Certificates, Mosquitto

RUNTIME = "the runtime without a plugin"
SETTLE_S = 1.5  # what comes after the last event is done, and freed memory given back
# Go collects at the latest two minutes after the last time, then returns pages slowly.
GO_RETURNS_S = 240.0
AT_ONCE = ", right after"
MB = 1e6


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Each contestant alone: the figures of its process after its events."""
    events = 1000 if quick else 10_000
    request = guests.request()
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        # Go gives what it has freed back to the kernel within minutes: those that live as
        # long as the rest of this takes are looked at twice.
        stay = {name: stack.enter_context(each) for name, each in _in_go(folder)}
        for name, contestant in stay.items():
            say(f"memory: {name}, {events} events")
            contestant.runtime.bench(events, request)
            time.sleep(SETTLE_S)
            found[name + AT_ONCE] = memory(contestant.pid)
        began = time.monotonic()
        for name, contestant in _contestants(folder, stack):
            say(f"memory: {name}, {events} events")
            with contestant:
                result = contestant.runtime.bench(events, request)
                if result.errors:
                    raise RuntimeError(f"{name}: {result.errors[0]}")
                time.sleep(SETTLE_S)
                found[name] = memory(contestant.pid)
        pause = 0 if quick else max(0.0, GO_RETURNS_S - (time.monotonic() - began))
        say(f"waiting {pause:.0f} s for Go's garbage collector")
        time.sleep(pause)
        for name, contestant in stay.items():
            found[name] = memory(contestant.pid)
    return {"events": events, "contestants": found, "increments": increments(found)}


def increments(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What each further plugin takes, in bytes."""
    made = {}
    for name, more, few, plugins in (
        ("each further C plugin (1 to 5)", "5 C plugins", "1 C plugin", 4),
        ("each further C plugin (5 to 20)", "20 C plugins", "5 C plugins", 15),
        ("each further Go plugin (1 to 5)", "5 Go plugins", "1 Go plugin", 4),
        ("the first Go plugin", "1 Go plugin", "no plugin", 1),
        ("the first C plugin", "1 C plugin", "no plugin", 1),
        ("MQTT", "1 C plugin, MQTT", "1 C plugin", 1),
        ("MQTT over TLS", "1 C plugin, MQTT over TLS", "1 C plugin", 1),
        ("the plugin in wazero", WAZERO, RUNTIME, 1),
    ):
        after, before = (found.get(_agent(each), found.get(each)) for each in (more, few))
        if after and before:
            made[name] = {key: (after[key] - before[key]) / plugins for key in after}
    return made


def aims(result: dict[str, Any]) -> list[Aim]:
    """The totals of one, and what each further one takes."""
    found, more = result["contestants"], result["increments"]
    c, go = more["each further C plugin (5 to 20)"], more["each further Go plugin (1 to 5)"]
    return [
        Aim("one C plugin, RSS", found[_agent("1 C plugin")]["rss"] / MB, 40, "MB"),
        Aim("each further C plugin, RSS", c["rss"] / MB, 0.6, "MB"),
        Aim("each further Go plugin, private dirty", go["private_dirty"] / MB, 11, "MB"),
    ]


def _agent(what: str) -> str:
    return f"edge-agent, {what}"


def _contestants(folder: Path, stack: ExitStack) -> Iterator[tuple[str, Contestant]]:
    yield _agent("no plugin"), Agent(folder / "none", {})
    for count in (1, 5, 20):
        plural = "s" * (count > 1)
        yield (
            _agent(f"{count} C plugin{plural}"),
            Agent(folder / f"c{count}", guests.c_plugins(count)),
        )
    for count in (1, 5):
        plural = "s" * (count > 1)
        yield (
            _agent(f"{count} Go plugin{plural}"),
            Agent(folder / f"go{count}", guests.go_plugins(count)),
        )
    if MOSQUITTO is not None:
        yield _agent("1 C plugin, MQTT"), _with_broker(folder / "mqtt", stack, tls=False)
        if OPENSSL is not None:
            yield _agent("1 C plugin, MQTT over TLS"), _with_broker(folder / "tls", stack, tls=True)


def _in_go(folder: Path) -> Iterator[tuple[str, Contestant]]:
    yield NATIVE, NativeDaemon(folder / "native")
    yield WAZERO, WazeroHost(folder / "wazero", "10-annotator", guests.go_plugin())
    yield RUNTIME, Bare(folder / "bare")


def _with_broker(folder: Path, stack: ExitStack, *, tls: bool) -> Agent:
    folder.mkdir(parents=True)
    certificates = Certificates(folder) if tls else None
    broker = Mosquitto(folder, *(certificates.settings() if certificates else ()))
    stack.enter_context(broker)
    section = f'[mqtt]\nurl = "mqtt://localhost:{broker.port}"\n'
    if certificates:
        section = f'[mqtt]\nurl = "mqtts://localhost:{broker.port}"\nca_file = "{certificates.ca}"'
    return Agent(folder / "agent", guests.c_plugins(1), more=section)
