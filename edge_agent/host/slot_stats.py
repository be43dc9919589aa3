"""Statistics of a plugin at one runtime: counters, the latest error, evidence for its trial."""

import logging
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from edge_agent.errors import EdgeAgentError, GuestFault, ModuleError, StoreError, SupersededError
from edge_agent.fleet_protocol.event_result import (
    ANSWERED,
    DENIED,
    WOULD_ADJUST,
    WOULD_REJECT,
    EventResult,
)
from edge_agent.host.plugin import Plugin
from edge_agent.host.probation import Trial
from edge_agent.nri import events
from edge_agent.store.release import PluginId, Release

log = logging.getLogger(__name__)

HEALTHY_S = 60.0  # a guest that served this long starts over at the shortest wait
SAMPLES = 256  # latencies kept, the latest; 8 bytes each
FRESH = 1 / 8  # of the samples: so many newer ones are worth sorting them again
MAX_KINDS = 32  # of failure; the agent has ten


@dataclass
class Counters:
    """Events, failures, restarts, latencies."""

    events: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    would_adjust: int = 0  # these three in monitor mode
    would_reject: int = 0
    updates_withheld: int = 0
    _latencies_ns: deque[int] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _latency: dict[str, float] | None = None
    _latency_of: int = 0  # events

    def answered(self, duration_ns: int) -> None:
        self.events += 1
        self._latencies_ns.append(duration_ns)

    def withheld(self, result: EventResult) -> None:
        """Nothing of this answer was done."""
        self.would_adjust += result.kind == WOULD_ADJUST
        self.would_reject += result.kind == WOULD_REJECT
        self.updates_withheld += result.withheld

    def failed(self, kind: str) -> None:
        if kind in self.failures or len(self.failures) < MAX_KINDS:
            self.failures[kind] += 1

    def latency_ms(self) -> dict[str, float] | None:
        """p50 and p99 of the latest calls, or None before the first."""
        if self.events - self._latency_of > len(self._latencies_ns) * FRESH:
            ordered = sorted(self._latencies_ns)
            last = len(ordered) - 1
            self._latency_of = self.events
            self._latency = {
                "p50": round(ordered[last // 2] / 1e6, 3),
                "p99": round(ordered[last * 99 // 100] / 1e6, 3),
            }
        return self._latency


class SlotStats:
    """Counters and errors of one slot; they survive the replacement of a guest."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.error = ""  # the latest, for people
        self.held = ""  # why the release must not run
        self._failure = ""  # why there is no guest, or none that works
        self._took_over = 0.0  # monotonic
        self.finding = ""  # what became of its replies, where that was not what it asked for
        self.since = time.time()  # when the incumbent took over, or the slot was made
        self._release: Release | None = None
        self._trial: Trial | None = None
        self._turned_away = 0  # successors, in a row

    def begin(self, release: Release, trial: Trial | None, held: str) -> None:
        """Another release is wanted: what the last one did is not held against it."""
        self._release, self._trial = release, trial
        self._turned_away = 0
        self._failure = release.unusable
        self.error = self.held = held
        self.finding = ""

    def judge(self, trial: Trial | None, plugin: Plugin | None) -> None:
        """The same release, which is on probation from now on, or not any more."""
        if trial is not self._trial:
            self._trial = trial
            if plugin is not None and plugin.serving:
                self._serves(plugin)

    def trial_of(self, plugin: Plugin | None) -> Trial | None:
        """The trial that counts what this plugin does, if one does."""
        trial = self._trial
        if trial is None or plugin is None:  # usually: comparing releases would cost each event
            return None
        return trial if plugin.release.same_guest(self._release) else None

    def why_absent(self, compiling: bool) -> str:
        """Why no guest answers, for people; `compiling`: its module is being compiled."""
        started = "it is being compiled" if compiling else "it is being started"
        return self.held or self._failure or self.error or started

    @property
    def served_long(self) -> bool:
        """Whether the incumbent took over more than HEALTHY_S ago."""
        return time.monotonic() - self._took_over > HEALTHY_S

    # --- successes

    def loaded(self) -> None:
        """A guest was made."""
        self._failure = ""

    def accepted(self) -> None:
        """A runtime synchronised a successor."""
        self.error = ""
        self._turned_away = 0

    def serves(self, plugin: Plugin) -> None:
        """The plugin answers from now on."""
        self.error = self._failure = ""
        self._took_over = time.monotonic()
        self.since = time.time()
        self._serves(plugin)

    def _serves(self, plugin: Plugin) -> None:
        trial = self.trial_of(plugin)
        if trial is not None:
            trial.serves(self, time.monotonic())

    def answered(self, plugin: Plugin | None, result: EventResult) -> None:
        """An event, or a step of its start, is over."""
        trial = self.trial_of(plugin)
        if result.event in events.BY_METHOD:
            self.counters.answered(result.duration_ns)
            if trial is not None and result.kind in ANSWERED:
                trial.answered()
        if result.monitored:
            self.counters.withheld(result)
        if result.kind == DENIED:
            self.counters.failed(DENIED)
            if trial is not None:
                trial.failed(f"{DENIED}: {result.error}")

    # --- failures

    def rests(self) -> None:
        """Pause the probation: this release is not answering."""
        if self._trial is not None:
            self._trial.rests(self, time.monotonic())

    def noticed(self, kind: str, text: str, identity: PluginId) -> bool:
        """A reply did not come to what it asked for. True: that is news."""
        self.counters.failed(kind)
        if text == self.finding:
            return False
        self.finding = text
        log.warning("%s: %s", identity, text, extra={"plugin": identity})
        return True

    def failed(self, plugin: Plugin, fault: GuestFault) -> None:
        """Its guest is finished."""
        self._failure = self.error = str(fault)
        self.counters.failed(fault.kind)
        log.error("%s: %s", plugin.identity, fault, extra={"plugin": plugin.identity})
        trial = self.trial_of(plugin)
        if trial is not None:
            self.rests()
            trial.failed(f"{fault.kind}: {fault}")

    def not_loaded(self, release: Release, error: EdgeAgentError) -> None:
        """A guest of the release could not be made."""
        if isinstance(error, SupersededError):  # the folder brings another in a moment
            log.info("%s", error, extra={"plugin": release.identity})
            self._failure = self.error = ""
            return
        self.counters.failed("load")
        if str(error) != self.error:
            log.error("%s", error, extra={"plugin": release.identity})
        self._failure = self.error = str(error)
        # What is wrong with this node's disk says nothing of the release; what is no module
        # today is none tomorrow.
        if self._trial is not None and not isinstance(error, StoreError):
            self._trial.failed(str(error), final=isinstance(error, ModuleError))

    def turned_away(self, reason: str) -> None:
        """The runtime ended its session before it was synchronised."""
        self.error = f"not accepted: {reason}"
        self._turned_away += 1
        # Once, it may be the runtime's own end, or for events that this runtime does not know.
        if self._trial is not None and self._turned_away > 1:
            self._trial.failed(f"not accepted: {reason}")

    def not_synchronised(self, plugin: Plugin) -> str:
        """The runtime did not synchronise a successor in time; the reason, for people."""
        reason = "the runtime does not synchronise it"
        log.warning("%s: %s", plugin.identity, reason)
        self.error = f"not accepted: {reason}"
        return reason

    def runtime_ended(self, reason: str = "") -> None:
        """The runtime that turned a successor away has ended, or may have; `reason`: its session
        was lost for this."""
        self._turned_away = 0
        self.error = reason or self.error
