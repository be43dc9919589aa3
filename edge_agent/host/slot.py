"""A plugin's slot at one runtime: reports events to the slot's state machine.

The incumbent answers. A successor is wanted when the guest failed or its release changed; it is
loaded, connects, is configured and synchronised beside the incumbent, then takes over at a border
between two events and the old session is drained:

    slot_state       decides: the states, their transitions, the effects of each
    slot             reports events to it and has the effects carried out
    slot_sessions    incumbent, successor, draining sessions: the steps
    absence_guard    refuses creations while a plugin that must not be missed is missing
    slot_stats       counts, and reports to the probation

Everything runs on the loop's thread and waits for nothing.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import EdgeAgentError, GuestFault, SupersededError
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.creations import Creations, Finding
from edge_agent.host.loader import Loader, Prepared
from edge_agent.host.placeholder import AbsenceGuard, PlaceholderSlot
from edge_agent.host.plugin import Owner, Plugin
from edge_agent.host.probation import Trial
from edge_agent.host.slot_sessions import SlotSessions
from edge_agent.host.slot_state import (
    Admission,
    Effect,
    Event,
    SlotState,
    Successor,
    step,
)
from edge_agent.host.slot_stats import SlotStats
from edge_agent.loop import Loop
from edge_agent.nri.capabilities import why_skipped
from edge_agent.nri.link import SocketFile
from edge_agent.nri.session import RuntimeInfo
from edge_agent.pacing import Backoff
from edge_agent.store.release import PluginId, Release
from edge_agent.wasm.imports import PluginState

if TYPE_CHECKING:
    from edge_agent.host.runtime_endpoint import RuntimeEndpoint

log = logging.getLogger(__name__)


class Assignment(NamedTuple):
    """The release that a slot is to run."""

    release: Release
    trial: Trial | None = None  # counts what becomes of the release
    held: str = ""  # why it must not run; the incumbent stays then


class PluginSlot:
    """`report` gets each result; `changed` is called when a status may differ."""

    def __init__(
        self,
        loop: Loop,
        runtime: "RuntimeEndpoint",
        loader: Loader,
        state: PluginState,
        creations: Creations,
        report: Callable[[EventResult], None],
        changed: Callable[[], None],
    ) -> None:
        self.release: Release | None = None
        self.state = SlotState()
        self.stats = SlotStats()
        self.skipped_for = ""  # why the plugin is not registered at this runtime
        self.runtime: RuntimeInfo | None = None  # as it described itself to a session here
        self.socket = runtime.socket
        self._runtime = runtime
        self._loader = loader
        self._plugin_state = state
        self._report = report
        self._changed = changed
        self._backoff = Backoff(loop, partial(self._on, Event.RETRY))
        placeholder = PlaceholderSlot(
            loop, runtime, self._refused, self._configured, self._skip, changed
        )
        owner = Owner(
            report=self._answered,
            found=self._found,
            configured=self._configured,
            left_out=self._left_out,
            synchronised=self._synchronised,
            failed=self._failed,
            closed=self._closed,
        )
        self.sessions = SlotSessions(loop, runtime.socket, creations, owner, placeholder)
        self._absence = AbsenceGuard(loop, placeholder, self._guard)
        switch = partial(self._on, Event.SWITCH_DUE)
        self._effects: dict[Effect, Callable[[str], object]] = {
            Effect.FORGET_FAILURES: lambda _: self._backoff.reset(),
            Effect.CANCEL_RETRY: lambda _: self._backoff.cancel(),
            Effect.RETRY_LATER: lambda _: self._backoff.again(),
            Effect.FORGET_SUCCESSOR: lambda _: self.sessions.take_successor(),
            Effect.CLOSE_SUCCESSOR: lambda reason: self.sessions.take_successor().close(reason),
            Effect.DRAIN_SUCCESSOR: lambda _: self.sessions.drain_successor(),
            Effect.DROP_READY: lambda _: self.sessions.drop_ready(),
            Effect.DRAIN_INCUMBENT: lambda _: self._drain_incumbent(),
            Effect.BEGIN_HANDOVER: lambda _: self.sessions.begin_handover(switch),
            Effect.TAKE_OVER: lambda _: self._take_over(),
            Effect.LOAD: lambda _: self._load(),
            Effect.CONNECT: lambda _: self._connect(),
        }

    def _on(
        self,
        event: Event,
        reason: str = "",
        admission: Admission | None = None,
        *,
        fits: bool = False,
    ) -> None:
        """Let the state machine decide and do what it says. `reason` goes into logs and errors."""
        self.state, effects = step(self.state, event, admission, matches=fits)
        for effect in effects:
            self._effects[effect](reason)
        self._guard()
        self._changed()

    # --- from the supervisor and the runtime

    def assign(self, assignment: Assignment) -> None:
        """Run this release from now on; an equal one changes nothing."""
        release, trial, held = assignment
        same = release.same_guest(self.release) and held == self.stats.held
        self.release = release
        if same:
            self.stats.judge(trial, self.sessions.incumbent)
            return
        self.stats.begin(release, trial, held)
        incumbent = self.sessions.incumbent
        fits = incumbent is not None and incumbent.release.same_guest(release)
        self._on(Event.ASSIGNED, "another release is wanted", self._admit(), fits=fits)

    def renew(self) -> None:
        """Make the guest anew, beside the one that runs until it takes over."""
        self._on(Event.RENEWED)

    def remove(self) -> None:
        """The plugin is removed: drain its session, and begin no other."""
        self.stats.rests()
        self.release = None
        self._absence.end_grace()
        self.sessions.placeholder.drop()
        self._on(Event.REMOVED, "removed")

    def close(self) -> None:
        """The agent ends: close every session at once."""
        self.remove()
        self.sessions.close_waiting("the agent ends")

    @property
    def vacant(self) -> bool:
        """Whether nothing is left here, not even a session that waits to close."""
        return not (self.release or self.sessions)

    def runtime_present(self) -> None:
        """The runtime listens, or seems to: again, or for the first time. Whatever ended a
        session before was its end, and no fault of the plugin's."""
        self._forgive(Event.RUNTIME_PRESENT)

    def runtime_absent(self) -> None:
        """The runtime cannot be reached. What is ready to be registered stays so."""
        if self.state.present:
            self._gone(Event.RUNTIME_ABSENT)

    def leave_behind(self, found: SocketFile) -> None:
        """Close the sessions with a socket other than this one: nothing arrives there."""
        reason = "the runtime has made a new socket"
        self.sessions.draining.close(reason)
        if self.sessions.placeholder.socket_file != found:
            self.sessions.placeholder.close(reason)
        for plugin in self.sessions.plugins:
            if plugin.socket_file == found:
                continue
            if plugin is self.sessions.successor:
                self._on(Event.SUCCESSOR_LOST, reason)
            plugin.close(reason)

    # --- the runtime comes and goes

    def _forgive(self, event: Event) -> None:
        """Another runtime may have come to this socket."""
        self.sessions.forget_runtime()
        self.runtime = None
        self.stats.runtime_ended()
        self._on(event, admission=self._admit())

    def _gone(self, event: Event) -> None:
        self._absence.runtime_gone()
        self._forgive(event)

    # --- whether the plugin may run here

    def _admit(self) -> Admission:
        """Whether the release may run here, as far as that is known without a session."""
        self.skipped_for = ""
        if self.release is None:
            return Admission.VACANT
        incumbent = self.sessions.incumbent
        runtime = incumbent.session.runtime if incumbent is not None else None
        self.skipped_for = why_skipped(self.release.settings, self.socket, runtime)
        if self.skipped_for:
            return Admission.SKIPPED
        if self.stats.held:
            return Admission.QUARANTINED
        return Admission.UNUSABLE if self.release.unusable else Admission.ADMITTED

    def _configured(self, runtime: RuntimeInfo) -> None:
        """The runtime has told a session its name and version."""
        self.runtime = runtime

    def _left_out(self, plugin: Plugin, reason: str) -> None:
        """The runtime of this session is not one that the plugin is meant for."""
        if plugin is self.sessions.successor:
            self._skip(reason)

    def _skip(self, reason: str) -> None:
        """The runtime has said its name, and the plugin is not meant for it."""
        if self.release is None or self.state.admission is Admission.SKIPPED:
            return
        identity = self.release.identity
        log.warning("%s: not registered: %s", identity, reason, extra={"plugin": identity})
        self.skipped_for = reason
        self.stats.error = ""
        self._on(Event.LEFT_OUT, reason)

    # --- a successor, step by step

    def _load(self) -> None:
        release = self.release
        assert release is not None  # it is admitted
        loaded, compiling = partial(self._loaded, release), partial(self._compiling, release)
        self._loader.load(release, self._plugin_state, loaded, compiling)

    def _compiling(self, release: Release) -> None:
        if release.same_guest(self.release):
            self._on(Event.COMPILING)

    def _loaded(self, release: Release, result: Prepared | EdgeAgentError) -> None:
        if not (release.same_guest(self.release) and self.state.wants_guest):
            if isinstance(result, Prepared):
                result.close()
            self._on(Event.LOADED_IN_VAIN)
        elif isinstance(result, EdgeAgentError):
            self.stats.not_loaded(release, result)
            superseded = isinstance(result, SupersededError)
            self._on(Event.SUPERSEDED if superseded else Event.LOAD_FAILED)
        else:
            self.stats.loaded()
            self.sessions.ready = result
            self._on(Event.LOADED)

    def _connect(self) -> None:
        try:
            self.sessions.connect(self._too_slow)
        except OSError as error:
            self._gone(Event.CONNECT_FAILED)
            self._runtime.unreachable(f"cannot connect: {error.strerror}")
            return
        self._runtime.reached()

    def _too_slow(self) -> None:
        successor = self.sessions.successor
        assert successor is not None  # or the timer would have been cancelled
        reason = self.skipped_for or self.stats.not_synchronised(successor)
        self._on(Event.SUCCESSOR_SLOW, reason)

    def _synchronised(self, plugin: Plugin) -> None:
        if plugin is self.sessions.incumbent:
            return  # the runtime synchronises again
        if plugin is not self.sessions.successor:
            plugin.close("not wanted any more")
            return
        self.sessions.started()
        self.stats.accepted()
        self._on(Event.SYNCHRONISED)

    def _take_over(self) -> None:
        old, new = self.sessions.take_over()
        if old is None:
            told = new.session.runtime
            served = f"{told.name} {told.version}" if told is not None else "a runtime"
            log.info("serving %s with %s", served, new.identity, extra={"plugin": new.identity})
        else:
            self.stats.counters.restarts += 1
            log.info("%s: replaced", new.identity, extra={"plugin": new.identity})
        self._absence.end_grace()
        self.stats.serves(new)

    # --- the end of a guest or a session

    def _failed(self, plugin: Plugin, fault: GuestFault) -> None:
        """A guest is finished. Its session answers by policy; a successor is prepared."""
        if plugin in self.sessions.draining:
            return  # its guest was closed
        self.stats.failed(plugin, fault)
        if plugin is self.sessions.successor:
            self._on(Event.SUCCESSOR_FAILED, "its guest failed")
        elif plugin is self.sessions.incumbent:
            if self.stats.served_long:
                self._backoff.reset()
            self._on(Event.INCUMBENT_FAILED)

    def _closed(self, plugin: Plugin, reason: str) -> None:
        """A session is over, for whatever reason."""
        if plugin in self.sessions.draining:
            self.sessions.draining.remove(plugin)
            self._changed()
        elif plugin is self.sessions.successor:
            self._successor_closed(plugin, reason)
        elif plugin is self.sessions.incumbent:
            self._incumbent_closed(plugin, reason)
        else:
            self._changed()

    def _successor_closed(self, plugin: Plugin, reason: str) -> None:
        """The runtime closed a session before it took over."""
        if self.state.admission is Admission.SKIPPED:
            self._on(Event.SUCCESSOR_REFUSED)  # it had to
            return
        if not self.sessions.runtime_listens(plugin):
            self.stats.runtime_ended(reason)
            self._on(Event.SUCCESSOR_LOST)
            self._runtime.lost()
            return
        log.warning("%s: not accepted: %s", plugin.identity, reason)
        self.sessions.turned_away(plugin)
        self.stats.turned_away(reason)
        self._on(Event.SUCCESSOR_REFUSED)

    def _incumbent_closed(self, plugin: Plugin, reason: str) -> None:
        """Unless its guest had failed, the runtime's end, as a rule, which the next attempt
        shows. A runtime that closes the session time after time is asked later and later."""
        self.stats.rests()
        self.sessions.incumbent = None
        log.info("%s: session over: %s", plugin.identity, reason)
        lost = plugin.fault is None and not self.sessions.handing_over
        self.stats.runtime_ended(reason if lost else "")
        long = self.stats.served_long
        self._on(Event.INCUMBENT_CLOSED if long else Event.INCUMBENT_CLOSED_EARLY)
        if lost:
            self._runtime.lost()

    def _drain_incumbent(self) -> None:
        self.stats.rests()
        self.sessions.drain_incumbent()

    # --- while it does not run

    def _guard(self) -> None:
        """Refuse creations while a plugin that must not be missed is missing."""
        compiling = self.state.successor is Successor.COMPILING
        reason = partial(self.stats.why_absent, compiling)
        self._absence.update(self.release, self.state, reason)

    def _refused(self, result: EventResult) -> None:
        self.stats.counters.failed("refused")
        self._report(result)
        self._changed()

    # --- results

    def _answered(self, result: EventResult) -> None:
        self.stats.answered(self.sessions.incumbent, result)
        self._report(result)

    def _found(self, identity: PluginId, finding: Finding) -> None:
        """What a reply asked for did not come about (edge_agent.host.creations)."""
        if self.stats.noticed(finding.kind, finding.text, identity):
            self._changed()
        if self.sessions.incumbent is not None:
            self._report(self.sessions.incumbent.aftermath(finding))

    # --- for people

    @property
    def plugin(self) -> Plugin | None:
        """The plugin that answers now."""
        return self.sessions.incumbent

    @property
    def refusing(self) -> bool:
        """No container is created at this runtime, since the plugin does not run."""
        return self.sessions.placeholder.refusing
