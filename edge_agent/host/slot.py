"""A plugin's slot at one runtime: executes what its state machine decides.

The incumbent answers. A successor is wanted when the guest failed or its release
changed; it is loaded, connects, is configured and synchronised beside the incumbent,
then takes over at a border between two events (edge_agent.host.handover) and the old
session is drained. edge_agent.host.slot_state has the states and decides; here are the
sessions, guests and timers. Everything runs on the loop's thread and waits for nothing.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from edge_agent.errors import EdgeAgentError, GuestFault, SupersededError
from edge_agent.fleet_protocol.outcome import Outcome
from edge_agent.host.backoff import Backoff
from edge_agent.host.creations import Creations, Finding
from edge_agent.host.draining import Draining
from edge_agent.host.eligibility import why_skipped
from edge_agent.host.endpoint import Endpoint
from edge_agent.host.handover import Handover
from edge_agent.host.loader import Loader, Prepared
from edge_agent.host.placeholder import PlaceholderSlot
from edge_agent.host.plugin import Owner, Plugin, Role
from edge_agent.host.probation import Trial
from edge_agent.host.slot_state import (
    Absence,
    Admission,
    Effect,
    Event,
    Grace,
    Incumbent,
    SlotState,
    Successor,
    absence,
    settled,
    status,
    step,
)
from edge_agent.host.slot_stats import SlotStats
from edge_agent.loop import Loop, Timer
from edge_agent.nri.generation import OLD_EVENTS
from edge_agent.nri.link import SocketFile, find_socket, listener_pid
from edge_agent.nri.session import RuntimeInfo
from edge_agent.store.release import Release
from edge_agent.wasm.imports import PluginState

log = logging.getLogger(__name__)

HEALTHY_S = 60.0  # a guest that served this long starts over at the shortest wait
GRACE_S = 0.5  # for a plugin to be registered, where nothing is known to stand in its way
START_TIMEOUT_S = 30.0  # from connecting to synchronised: the runtime's own limits are 5 + 2 + 2
NOT_SYNCHRONISED = "the runtime does not synchronise it"


class Assignment(NamedTuple):
    """What a slot is told of its plugin."""

    release: Release
    trial: Trial | None = None  # is told what becomes of the release
    held: str = ""  # why it must not run; the incumbent stays then


class PluginSlot:
    """`changed` is called on any news."""

    def __init__(
        self,
        loop: Loop,
        runtime: Endpoint,
        loader: Loader,
        state: PluginState,
        creations: Creations,
        report: Callable[[Outcome], None],
        changed: Callable[[], None],
    ) -> None:
        self.release: Release | None = None
        self.state = SlotState()
        self.stats = SlotStats()
        self.skipped_for = ""  # why the plugin is not registered at this runtime
        self.known_events: int | None = None
        self.runtime: RuntimeInfo | None = None  # as it described itself to a session here
        self._loop = loop
        self._runtime = runtime
        self._socket = runtime.socket
        self._loader = loader
        self._plugin_state = state
        self._creations = creations
        self._report = report
        self._changed = changed
        self._incumbent: Plugin | None = None
        self._successor: Plugin | None = None
        self._ready: Prepared | None = None
        self._handover: Handover | None = None
        self._draining = Draining(loop)
        self._backoff = Backoff(loop, partial(self._on, Event.RETRY))
        self._placeholder = PlaceholderSlot(
            loop, runtime, self._refused, self._configured, self._skip, changed
        )
        self._held = ""  # why the release must not run
        self._failure = ""  # why there is no guest, or none that works
        self._grace: Timer | None = None  # fires once the plugin should be registered
        self._start_timeout: Timer | None = None
        self._took_over = 0.0
        self._owner = Owner(
            report=self._answered,
            found=self._found,
            configured=self._configured,
            left_out=self._left_out,
            synchronised=self._synchronised,
            failed=self._failed,
            closed=self._closed,
        )
        self._effects: dict[Effect, Callable[[str], None]] = {
            Effect.FORGET_FAILURES: lambda _: self._backoff.reset(),
            Effect.CANCEL_RETRY: lambda _: self._backoff.cancel(),
            Effect.RETRY_LATER: lambda _: self._backoff.again(),
            Effect.FORGET_SUCCESSOR: lambda _: self._forget_successor(),
            Effect.CLOSE_SUCCESSOR: lambda reason: self._take_successor().close(reason),
            Effect.DRAIN_SUCCESSOR: lambda _: self._draining.drain(self._take_successor()),
            Effect.DROP_READY: lambda _: self._take_ready().close(),
            Effect.DRAIN_INCUMBENT: lambda _: self._drain_incumbent(),
            Effect.BEGIN_HANDOVER: lambda _: self._begin_handover(),
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
        matches: bool = False,
    ) -> None:
        """Let the state machine decide and do what it says. `reason` goes into logs and errors."""
        self.state, effects = step(self.state, event, admission, matches=matches)
        for effect in effects:
            self._effects[effect](reason)
        self._guard()
        self._changed()

    # --- what the supervisor and the runtime tell it

    def assign(self, assignment: Assignment) -> None:
        """Run this release from now on; an equal one changes nothing."""
        release, trial, held = assignment
        same = release == self.release and held == self._held
        self.release, self._held = release, held
        if same:
            self.stats.judge(trial, self._incumbent)
            return
        self.stats.begin(release, trial, held)
        self._failure = release.unusable
        incumbent = self._incumbent
        matches = incumbent is not None and incumbent.release == release
        self._on(Event.ASSIGNED, "another release is wanted", self._admit(), matches=matches)

    def renew(self) -> None:
        """Make the guest anew, beside the one that runs until it takes over."""
        self._on(Event.RENEWED)

    def remove(self) -> None:
        """The plugin is removed: drain its session, and begin no other."""
        self.stats.rests()
        self.release = None
        self._end_grace()
        self._placeholder.drop()
        self._on(Event.REMOVED, "removed")

    def finish(self) -> bool:
        """The agent ends: take no further event, and answer one that has come. Whether one had."""
        return sum(plugin.finish() for plugin in self._sessions) > 0  # both of them

    def close(self) -> None:
        """The agent ends: close every session at once."""
        self.remove()
        self._placeholder.close("the agent ends")
        self._draining.close("the agent ends")

    @property
    def vacant(self) -> bool:
        """Nothing is left here, not even a session that waits to close."""
        return not (
            self.release
            or self._incumbent
            or self._successor
            or self._draining
            or self._placeholder
        )

    def runtime_present(self) -> None:
        """The runtime listens, or seems to: again, or for the first time. Whatever ended a
        session before was its end, and no fault of the plugin's."""
        self._forgive(Event.RUNTIME_PRESENT)

    def runtime_absent(self) -> None:
        """The runtime cannot be reached. What is ready to be registered stays so."""
        if self.state.present:
            self._gone(Event.RUNTIME_ABSENT)

    def left_behind(self, found: SocketFile) -> bool:
        """Whether a session belongs to a socket other than this one."""
        files = {each.socket_file for each in self._sessions} | {self._placeholder.socket_file}
        return bool(files - {None, found})

    def leave_behind(self, found: SocketFile) -> None:
        """Close the sessions with a socket other than this one: nothing arrives there."""
        reason = "the runtime has made a new socket"
        self._draining.close(reason)
        if self._placeholder.socket_file != found:
            self._placeholder.close(reason)
        for plugin in self._sessions:
            if plugin.socket_file == found:
                continue
            if plugin is self._successor:
                self._on(Event.SUCCESSOR_LOST, reason)
            plugin.close(reason)

    @property
    def peer_pids(self) -> set[int]:
        """The processes that its sessions are connected to."""
        pids = {plugin.peer_pid for plugin in self._sessions} | {self._placeholder.peer_pid}
        return {pid for pid in pids if pid is not None}

    @property
    def precedence(self) -> tuple[bool, bool, str]:
        """Which slot connects first: who is ready to, who must not be missed, who is called
        first. A runtime takes one plugin after the other, and creates containers in between."""
        settings = self.release.settings if self.release is not None else None
        optional = settings is None or settings.failure_policy == "Ignore"
        return not self.ready, optional, self.release.identity if self.release else ""

    @property
    def ready(self) -> bool:
        """A guest waits here to be registered."""
        return self.state.successor is Successor.READY

    @property
    def _sessions(self) -> list[Plugin]:
        return [each for each in (self._incumbent, self._successor) if each is not None]

    # --- the runtime comes and goes

    def _forgive(self, event: Event) -> None:
        """Another runtime may have come to this socket."""
        self.known_events = None
        self.runtime = None
        self.stats.runtime_ended()
        self._on(event, admission=self._admit())

    def _gone(self, event: Event) -> None:
        self._end_grace()
        if not self._placeholder.refusing:  # while its session lives, the runtime does too
            self._placeholder.drop()
        self._forgive(event)

    # --- whether the plugin may run here

    def _admit(self) -> Admission:
        """As far as that is known without a session."""
        self.skipped_for = ""
        if self.release is None:
            return Admission.VACANT
        runtime = self._incumbent.session.runtime if self._incumbent is not None else None
        self.skipped_for = why_skipped(self.release.settings, self._socket, runtime)
        if self.skipped_for:
            return Admission.SKIPPED
        if self._held:
            return Admission.QUARANTINED
        return Admission.UNUSABLE if self.release.unusable else Admission.ADMITTED

    def _configured(self, runtime: RuntimeInfo) -> None:
        self.runtime = runtime

    def _left_out(self, plugin: Plugin, reason: str) -> None:
        if plugin is self._successor:
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
        if release == self.release:
            self._on(Event.COMPILING)

    def _loaded(self, release: Release, result: Prepared | EdgeAgentError) -> None:
        if release != self.release or not self.state.wants_guest:
            if isinstance(result, Prepared):
                result.close()
            self._on(Event.LOADED_IN_VAIN)
        elif isinstance(result, EdgeAgentError):
            self.stats.not_loaded(release, result)
            superseded = isinstance(result, SupersededError)
            self._failure = self.stats.error = "" if superseded else str(result)
            self._on(Event.SUPERSEDED if superseded else Event.LOAD_FAILED)
        else:
            self._failure = ""
            self._ready = result
            self._on(Event.LOADED)

    def _connect(self) -> None:
        prepared = self._take_ready()
        try:
            plugin = Plugin(
                self._loop, self._socket, prepared, self._owner, self._creations, self.known_events
            )
        except OSError as error:
            self._ready = prepared  # it has not begun: the next attempt takes it
            self._gone(Event.CONNECT_FAILED)
            self._runtime.unreachable(f"cannot connect: {error.strerror}")
            return
        self._successor = plugin
        self._runtime.reached()
        self._start_timeout = self._loop.call_later(START_TIMEOUT_S, self._too_slow)

    def _too_slow(self) -> None:
        successor = self._successor
        assert successor is not None  # or the timer would have been cancelled
        if self.skipped_for:
            self._on(Event.SUCCESSOR_SLOW, self.skipped_for)
            return
        log.warning("%s: %s", successor.identity, NOT_SYNCHRONISED)
        self.stats.error = f"not accepted: {NOT_SYNCHRONISED}"
        self._on(Event.SUCCESSOR_SLOW, NOT_SYNCHRONISED)

    def _synchronised(self, plugin: Plugin) -> None:
        if plugin is self._incumbent:
            return  # the runtime synchronises again
        if plugin is not self._successor:
            plugin.close("not wanted any more")
            return
        self._cancel(self._start_timeout)
        self.stats.accepted()
        self._on(Event.SYNCHRONISED)

    def _begin_handover(self) -> None:
        old, new = self._incumbent, self._successor
        assert old is not None
        assert new is not None
        switch = partial(self._on, Event.SWITCH_DUE)
        self._handover = Handover(self._loop, old, new, switch)

    def _take_over(self) -> None:
        old, new = self._incumbent, self._take_successor()
        self._incumbent = new
        new.role = Role.ANSWER
        if old is None:
            told = new.session.runtime
            served = f"{told.name} {told.version}" if told is not None else "a runtime"
            log.info("serving %s with %s", served, new.identity, extra={"plugin": new.identity})
        else:
            self.stats.counters.restarts += 1
            log.info("%s: replaced", new.identity, extra={"plugin": new.identity})
            self._draining.drain(old)
        self._took_over = time.monotonic()
        self._failure = ""
        self._end_grace()
        self._placeholder.relieve(new)
        self.stats.serves(new)

    # --- the end of a guest or a session

    def _failed(self, plugin: Plugin, fault: GuestFault) -> None:
        """A guest is finished. Its session answers by policy; a successor is prepared."""
        if plugin in self._draining:
            return  # its guest was closed
        self.stats.failed(plugin, fault)
        if plugin is self._successor:
            self._failure = self.stats.error = str(fault)
            self._on(Event.SUCCESSOR_FAILED, "its guest failed")
        elif plugin is self._incumbent:
            self._failure = self.stats.error = str(fault)
            if not self._early:
                self._backoff.reset()
            self._on(Event.INCUMBENT_FAILED)

    def _closed(self, plugin: Plugin, reason: str) -> None:
        """A session is over, for whatever reason."""
        if plugin in self._draining:
            self._draining.remove(plugin)
            self._changed()
        elif plugin is self._successor:
            self._successor_closed(plugin, reason)
        elif plugin is self._incumbent:
            self._incumbent_closed(plugin, reason)
        else:
            self._changed()

    def _successor_closed(self, plugin: Plugin, reason: str) -> None:
        """The runtime closed a session before it took over."""
        if self.state.admission is Admission.SKIPPED:
            self._on(Event.SUCCESSOR_REFUSED)  # it had to
            return
        if not self._listens(plugin):
            self.stats.runtime_ended()
            self.stats.error = reason
            self._on(Event.SUCCESSOR_LOST)
            self._runtime.lost()
            return
        log.warning("%s: not accepted: %s", plugin.identity, reason)
        runtime = plugin.session.runtime
        if runtime and not runtime.nri_version and plugin.session.subscribed & ~OLD_EVENTS:
            # Closed right after it was configured: a runtime that knows fewer events than
            # was inferred. The next attempt asks for the oldest set only. A runtime that
            # says its generation knows it; one that merely ends must not cost a validator
            # its validations.
            self.known_events = OLD_EVENTS
        self.stats.turned_away(reason)
        self.stats.error = f"not accepted: {reason}"
        self._on(Event.SUCCESSOR_REFUSED)

    def _incumbent_closed(self, plugin: Plugin, reason: str) -> None:
        """Unless its guest had failed, the runtime's end, as a rule, which the next attempt
        shows. A runtime that closes the session time after time is asked later and later."""
        self.stats.rests()
        self.stats.runtime_ended()
        self._incumbent = None
        log.info("%s: session over: %s", plugin.identity, reason)
        lost = plugin.fault is None and self._handover is None
        if lost:
            self.stats.error = reason
        self._on(Event.INCUMBENT_CLOSED_EARLY if self._early else Event.INCUMBENT_CLOSED)
        if lost:
            self._runtime.lost()

    @property
    def _early(self) -> bool:
        return time.monotonic() - self._took_over <= HEALTHY_S

    def _listens(self, plugin: Plugin) -> bool:
        """Whether the runtime that this session was with is still there."""
        try:
            listener = listener_pid(self._runtime.socket)
        except OSError:
            return False
        found = find_socket(self._runtime.socket)
        return listener == plugin.peer_pid and plugin.socket_file in (None, found)

    def _drain_incumbent(self) -> None:
        incumbent, self._incumbent = self._incumbent, None
        assert incumbent is not None
        self.stats.rests()
        self._draining.drain(incumbent)

    def _take_successor(self) -> Plugin:
        """The successor has no place of its own any more."""
        successor, self._successor = self._successor, None
        assert successor is not None
        if self._handover is not None:
            self._handover.cancel()
            self._handover = None
        self._cancel(self._start_timeout)
        return successor

    def _forget_successor(self) -> None:
        self._take_successor()

    def _take_ready(self) -> Prepared:
        ready, self._ready = self._ready, None
        assert ready is not None
        return ready

    # --- while it does not run

    def _guard(self) -> None:
        """Refuse creations while a plugin that must not be missed is missing."""
        release, todo = self.release, Absence.NONE
        if release is not None and release.settings.failure_policy == "Fail":
            refusing, refused = self._placeholder.refusing, self._placeholder.wanted
            todo = absence(self.state, self._grace_now, refusing=refusing, refused=refused)
        if todo is Absence.NONE:
            if not self._placeholder.relieving:
                self._placeholder.drop()
        elif todo is Absence.BEGIN_GRACE:
            self._grace = self._loop.call_later(GRACE_S, self._guard)
        elif todo is Absence.REFUSED:
            assert release is not None
            compiling = self.state.successor is Successor.COMPILING
            started = "it is being compiled" if compiling else "it is being started"
            reason = self._held or self._failure or self.stats.error or started
            self._placeholder.want(release, reason)

    @property
    def _grace_now(self) -> Grace:
        if self._grace is None:
            return Grace.NOT_BEGUN
        return Grace.RUNNING if self._grace.pending else Grace.OVER

    def _end_grace(self) -> None:
        self._cancel(self._grace)
        self._grace = None

    def _refused(self, outcome: Outcome) -> None:
        self.stats.counters.failed("refused")
        self._report(outcome)
        self._changed()

    @staticmethod
    def _cancel(timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    # --- what its plugins report

    def _answered(self, outcome: Outcome) -> None:
        self.stats.answered(self._incumbent, outcome)
        self._report(outcome)

    def _found(self, identity: str, finding: Finding) -> None:
        """What a reply asked for did not come about (edge_agent.host.creations)."""
        if self.stats.noticed(finding.kind, finding.text, identity):
            self._changed()
        if self._incumbent is not None:
            self._report(self._incumbent.aftermath(finding))

    # --- for people

    @property
    def plugin(self) -> Plugin | None:
        """The plugin that answers now."""
        return self._incumbent

    @property
    def serving(self) -> bool:
        """A guest answers here, and is well."""
        return self.state.incumbent not in (Incumbent.NONE, Incumbent.FAILED)

    @property
    def refusing(self) -> bool:
        """No container is created at this runtime, since the plugin does not run."""
        return self._placeholder.refusing

    @property
    def settled(self) -> bool:
        """See edge_agent.host.slot_state."""
        release = self.release
        optional = release is not None and release.settings.failure_policy == "Ignore"
        return settled(self.state, refusing=self.refusing, optional=optional)

    @property
    def status(self) -> str:
        """See edge_agent.host.slot_state."""
        trial = self.stats.trial_of(self._incumbent)
        # Until one that failed is replaced, it is not through its probation either.
        return status(self.state, on_trial=trial is not None and not trial.kept)
