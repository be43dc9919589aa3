"""A plugin's place at one runtime: who sits there, who comes next, when they change.

The incumbent answers. A successor is wanted when the guest failed or its release
changed; it is loaded, connects, is configured and synchronised beside the incumbent,
then takes over at a border between two events (edge_agent.host.changeover) and the old
session closes. Everything here runs on the loop's thread and waits for nothing.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from edge_agent.errors import EdgeAgentError, GuestFault, SupersededError
from edge_agent.fleet_protocol.outcome import UPDATE_REFUSED, Outcome
from edge_agent.host.backoff import Backoff
from edge_agent.host.changeover import Changeover
from edge_agent.host.creations import Creations, Finding
from edge_agent.host.eligibility import why_skipped
from edge_agent.host.endpoint import Endpoint
from edge_agent.host.leaving import Leavers
from edge_agent.host.loader import Loader, Prepared
from edge_agent.host.placeholder import PlaceholderSlot
from edge_agent.host.plugin import Plugin, Role
from edge_agent.host.probation import Trial
from edge_agent.host.release import Release
from edge_agent.host.slot_stats import SlotStats
from edge_agent.loop import Loop, Timer
from edge_agent.nri.generation import OLD_EVENTS
from edge_agent.nri.link import SocketFile, find_socket, listener_pid
from edge_agent.nri.session import Call, RuntimeInfo, State, Updated
from edge_agent.wasm.imports import PluginState

log = logging.getLogger(__name__)

HEALTHY_S = 60.0  # a guest that served this long starts over at the shortest wait
GRACE_S = 0.5  # for a plugin to be registered, where nothing is known to stand in its way
MAX_CONTAINERS, MAX_ID_CHARS = 16, 128  # named in one result
START_TIMEOUT_S = 30.0  # from connecting to synchronised: the runtime's own limits are 5 + 2 + 2


class Assignment(NamedTuple):
    """What a slot is told of its plugin."""

    release: Release
    trial: Trial | None = None  # is told what becomes of the release
    held: str = ""  # why it must not run; whoever sits there stays then


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
        self.stats = SlotStats()
        self.known_events: int | None = None
        self.runtime: RuntimeInfo | None = None  # as it described itself to a session here
        self._loop = loop
        self._runtime = runtime
        self._socket = runtime.socket
        self._loader = loader
        self._state = state
        self._creations = creations
        self._report = report
        self._changed = changed
        self._incumbent: Plugin | None = None
        self._successor: Plugin | None = None
        self._leavers = Leavers(loop)
        self._backoff = Backoff(loop, self._next)
        self._ready: Prepared | None = None  # loaded, the runtime is not there
        self._changeover: Changeover | None = None
        self._held = ""  # why the release must not run
        self._skipped = ""  # why it is not registered at this runtime
        self._failing = ""  # why there is no guest, or none that works
        self._late: Timer | None = None  # fires once the plugin should be registered
        self._placeholder = PlaceholderSlot(
            loop, runtime, self._refused, self._configured, self._skip, changed
        )
        self._renewal = False  # a successor of the same release is wanted
        self._loading = False
        self._compiling = False  # for the first time on this board
        self._present = False
        self._known_here = False  # this runtime has been served before
        self._took_over = 0.0
        self._hurry: Timer | None = None

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
        self._backoff.reset()
        self._backoff.cancel()  # it was the other release that failed
        self._drop_successor("another release is wanted")
        self._drop_ready()
        self._failing = release.unusable
        self._settle_place()
        if self._skipped:
            self._leave()
        self._next()
        self._guard()

    def renew(self) -> None:
        """Make the guest anew, beside the one that runs until it takes over."""
        self._renewal = True
        self._backoff.reset()
        self._backoff.cancel()
        self._next()

    def vacate(self) -> None:
        """The plugin is gone: nobody sits here any more."""
        self.stats.rests()
        self.release = None
        self._cancel_timers()
        self._placeholder.drop()
        self._drop_ready()
        self._drop_successor("removed")
        self._leave()
        self._changed()

    def finish(self) -> bool:
        """The agent ends: take no further event, and answer one that has come. Whether one had."""
        return sum(plugin.finish() for plugin in self._sessions) > 0  # both of them

    def close(self) -> None:
        """The agent ends: close every session at once."""
        self.vacate()
        self._placeholder.close("the agent ends")
        self._leavers.close("the agent ends")

    @property
    def vacant(self) -> bool:
        """Nothing is left here, not even a session that waits to close."""
        return not (
            self.release or self._incumbent or self._successor or self._leavers or self._placeholder
        )

    def runtime_present(self) -> None:
        """The runtime listens, or seems to: again, or for the first time. Whatever ended a
        session before was its end, and no fault of the plugin's."""
        self._present = True
        self._forgive()
        self._next()
        self._guard()

    def runtime_absent(self) -> None:
        """The runtime cannot be reached. What is ready to be registered stays so."""
        if not self._present:
            return
        self._present = False
        self._cancel(self._late)
        self._late = None
        if not self._placeholder.refusing:  # while its session lives, the runtime does too
            self._placeholder.drop()
        self._forgive()
        self._next()

    def left_behind(self, found: SocketFile) -> bool:
        """Whether a session belongs to a socket other than this one."""
        files = {each.socket_file for each in self._sessions} | {self._placeholder.socket_file}
        return bool(files - {None, found})

    def leave_behind(self, found: SocketFile) -> None:
        """Close the sessions with a socket other than this one: nothing arrives there."""
        reason = "the runtime has made a new socket"
        self._leavers.close(reason)
        if self._placeholder.socket_file != found:
            self._placeholder.close(reason)
        for plugin in self._sessions:
            if plugin.socket_file == found:
                continue
            if plugin is self._successor:
                self._forget_successor()
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
        return self._ready is not None

    def _forgive(self) -> None:
        self.known_events = None
        self.runtime = None
        self._settle_place()  # another runtime may have come to this socket
        if not self._failing:  # that is the plugin's own
            self._backoff.reset()
            self._backoff.cancel()
        self.stats.runtime_ended()

    @property
    def _sessions(self) -> list[Plugin]:
        return [each for each in (self._incumbent, self._successor) if each is not None]

    # --- what its plugins tell it (edge_agent.host.plugin.Place)

    def role(self, plugin: Plugin, call: Call) -> Role:
        """Exactly one session answers an event; see `handover`."""
        if plugin in self._leavers:
            return self._leavers.role(plugin, call)
        if self._changeover is not None:
            self._changeover.seen(plugin, call)
        if self._placeholder.relieving and plugin is self._incumbent:
            self._placeholder.seen()
        return Role.ANSWER if plugin is self._incumbent else Role.WATCH

    def answered(self, plugin: Plugin, call: Call) -> None:
        """The event is over for this session: the moment to switch, if one is due."""
        del call
        if self._changeover is not None:
            self._changeover.answered(plugin)

    def skipped(self, plugin: Plugin) -> str:
        """Asked by a session that the runtime configures."""
        runtime = self.runtime = plugin.session.runtime
        reason = why_skipped(plugin.release.settings, self._socket, runtime)
        if reason and plugin is self._successor:
            self._skip(reason)
        return reason

    def replied(self, plugin: Plugin, call: Call, reply: bytes) -> None:
        """The runtime has this reply, which asks for something."""
        runtime = plugin.session.runtime
        assert runtime is not None
        self._creations.replied(self, plugin.identity, runtime, call, reply)

    def created(self, plugin: Plugin, call: Call) -> None:
        """The runtime shows a container as it was made."""
        runtime = plugin.session.runtime
        assert runtime is not None
        self._creations.created(runtime, call)

    def rejected(self, plugin: Plugin, call: Call, reason: str) -> tuple[str, ...]:
        """A validator refuses what these plugins adjusted."""
        return tuple(self._creations.rejected(plugin.identity, call, reason))

    def not_updated(self, plugin: Plugin, updated: Updated) -> None:
        """The runtime did not do what the guest asked for by itself."""
        containers = tuple(each[:MAX_ID_CHARS] for each in updated.failed[:MAX_CONTAINERS])
        text = f"the runtime did not update {', '.join(containers) or 'the containers'}"
        text += f": {updated.error}" if updated.error else ""
        finding = Finding(UPDATE_REFUSED, text, containers=containers)
        self.found(plugin.identity, finding)

    def found(self, identity: str, finding: Finding) -> None:
        """What a reply asked for did not come about (edge_agent.host.creations)."""
        if self.stats.noticed(finding.kind, finding.text, identity):
            self._changed()
        if self._incumbent is not None:
            self._report(self._incumbent.aftermath(finding))

    def synchronised(self, plugin: Plugin) -> None:
        """A session is ready for events."""
        if plugin is self._incumbent:
            return  # the runtime synchronises again
        if plugin is not self._successor:
            plugin.close("not wanted any more")
            return
        self._cancel(self._hurry)
        self.stats.accepted()
        if self._incumbent is None:
            self._take_over()
        else:
            self._changeover = Changeover(self._loop, self._incumbent, plugin, self._take_over)

    def failed(self, plugin: Plugin, fault: GuestFault) -> None:
        """A guest is finished. Its session answers by policy; a successor is prepared."""
        if plugin in self._leavers:
            return  # its guest was closed
        self.stats.failed(plugin, fault)
        if plugin is self._successor:
            self._drop_successor("its guest failed")
            self._failing = str(fault)
            self._again(str(fault))
        elif plugin is self._incumbent:
            self._failing = str(fault)
            self._again(str(fault), served=True)

    def closed(self, plugin: Plugin, reason: str) -> None:
        """A session is over, for whatever reason."""
        if plugin in self._leavers:
            self._leavers.gone(plugin)
            self._changed()
            return
        if plugin is self._successor:
            self._forget_successor()
            self._not_accepted(plugin, reason)
        elif plugin is self._incumbent:
            self.stats.rests()
            self.stats.runtime_ended()
            self._incumbent = None
            log.info("%s: session over: %s", plugin.identity, reason)
            if self._changeover is not None:
                self._take_over()
            elif plugin.fault is None:
                self._lost(reason, served=True)
                self._runtime.lost()
            else:  # `failed` has seen to a successor
                self._guard()
        self._changed()

    # --- a successor, step by step

    def _next(self) -> None:
        """Bring the slot one step closer to running its release."""
        if self._backoff.waiting:
            return
        if self._ready is None:
            self._prepare()
        elif self._present and self._wants_successor:
            self._connect()

    def _prepare(self) -> None:
        """Have a guest made. For a runtime that was served before also while it is away, so that
        connecting is all that is left to do; for one that never was here it would be a waste."""
        if self.release is None or self._loading or not self._wants_successor:
            return
        if self._ready is None and (self._present or self._known_here):
            self._loading = True
            self._loader.load(
                self.release,
                self._state,
                partial(self._loaded, self.release),
                partial(self._compiles, self.release),
            )

    @property
    def _wants_successor(self) -> bool:
        if self.release is None or self._held or self.release.unusable or self._skipped:
            return False
        if self._successor is not None:
            return False
        return self._renewal or not self._serves_as_wanted

    @property
    def _serves_as_wanted(self) -> bool:
        incumbent = self._incumbent
        return incumbent is not None and incumbent.release == self.release and not incumbent.fault

    def _compiles(self, release: Release) -> None:
        self._compiling = self._loading and release == self.release
        self._guard()  # to tell the reason

    def _loaded(self, release: Release, result: Prepared | EdgeAgentError) -> None:
        self._loading = self._compiling = False
        if release != self.release or self._skipped or self._held:
            # Another is wanted by now, or none.
            if isinstance(result, Prepared):
                result.close()
            self._next()
        elif isinstance(result, EdgeAgentError):
            self.stats.not_loaded(release, result)
            superseded = isinstance(result, SupersededError)
            self._failing = "" if superseded else str(result)
            self._again("" if superseded else str(result))
        else:
            self._failing = ""
            self._ready = result
            self._next()

    def _connect(self) -> None:
        prepared, self._ready = self._ready, None
        assert prepared is not None
        try:
            plugin = Plugin(
                self._loop, self._socket, prepared, self, self._outcome, self.known_events
            )
        except OSError as error:
            self._ready = prepared  # it has not begun: the next attempt takes it
            self._runtime.unreachable(f"cannot connect: {error.strerror}")
            return
        self._successor = plugin
        self._runtime.reached()
        self._hurry = self._loop.call_later(START_TIMEOUT_S, self._too_slow)

    def _too_slow(self) -> None:
        successor = self._successor
        assert successor is not None  # or the timer would have been cancelled
        self._forget_successor()
        if self._skipped:
            successor.close(self._skipped)
            return
        successor.close("the runtime does not synchronise it")
        log.warning("%s: the runtime does not synchronise it", successor.identity)
        self._again("not accepted: the runtime does not synchronise it")

    def _not_accepted(self, plugin: Plugin, reason: str) -> None:
        """The runtime closed a session before it was synchronised."""
        if plugin.fault is not None or self.release is None or self._skipped:
            return  # `failed` or `_skip` has seen to it
        if not self._listens(plugin):
            self.stats.runtime_ended()
            self._lost(reason)
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
        self._again(f"not accepted: {reason}")

    def _listens(self, plugin: Plugin) -> bool:
        """Whether the runtime that this session was with is still there."""
        try:
            listener = listener_pid(self._runtime.socket)
        except OSError:
            return False
        found = find_socket(self._runtime.socket)
        return listener == plugin.peer_pid and plugin.socket_file in (None, found)

    def _lost(self, reason: str, served: bool = False) -> None:
        """A session ended through no failure of the guest's: the runtime's end, as a rule, which
        the next attempt shows. A runtime that closes the session time after time is asked later
        and later."""
        if served and time.monotonic() - self._took_over <= HEALTHY_S:
            self._again(reason)
            self._prepare()  # what is to be waited for is the runtime alone
        else:
            self.stats.error = reason
            self._backoff.reset()
            self._next()
            self._guard()
            self._changed()

    def _again(self, error: str, served: bool = False) -> None:
        """Try once more after a while that doubles each time, with jitter."""
        self.stats.error = error
        if served and time.monotonic() - self._took_over > HEALTHY_S:
            self._backoff.reset()
        self._backoff.again()
        self._guard()
        self._changed()

    # --- while it does not run

    def _settle_place(self) -> None:
        """Whether it is meant for this runtime, as far as that is known without a session."""
        self._skipped = ""
        if self.release is not None:
            runtime = self._incumbent.session.runtime if self._incumbent is not None else None
            self._skipped = why_skipped(self.release.settings, self._socket, runtime)

    def _configured(self, runtime: RuntimeInfo) -> None:
        self.runtime = runtime

    def _skip(self, reason: str) -> None:
        """The runtime has said its name, and the plugin is not meant for it."""
        if self._skipped or self.release is None:
            return
        identity = self.release.identity
        log.warning("%s: not registered: %s", identity, reason, extra={"plugin": identity})
        self._skipped = reason
        self.stats.error = ""
        self._backoff.reset()
        self._backoff.cancel()
        self._drop_ready()
        self._leave()
        self._guard()
        self._changed()

    def _leave(self) -> None:
        """End the session that answers, if one does."""
        incumbent, self._incumbent = self._incumbent, None
        if incumbent is not None:
            self.stats.rests()
            self._leavers.dismiss(incumbent)

    def _guard(self) -> None:
        """Refuse creations while a plugin that must not be missed is missing."""
        release = self.release
        if (
            release is None
            or release.settings.failure_policy != "Fail"
            or self._skipped
            or not (self._present or self._placeholder.refusing)
            or self._incumbent is not None
        ):
            if not self._placeholder.relieving:
                self._placeholder.drop()
            return
        reason = self._held or self._failing
        if not reason and not self._placeholder.wanted:
            if self._late is None:
                self._late = self._loop.call_later(GRACE_S, self._guard)
                return
            if self._late.pending or self._successor is not None:
                return  # the runtime is about to take it
        started = "it is being compiled" if self._compiling else "it is being started"
        self._placeholder.want(release, reason or self.stats.error or started)

    def _refused(self, outcome: Outcome) -> None:
        self.stats.counters.failed("refused")
        self._report(outcome)
        self._changed()

    # --- the change

    def _take_over(self) -> None:
        old, new = self._incumbent, self._successor
        assert new is not None
        self._renewal = False
        self._forget_successor()
        self._incumbent = new
        if old is None:
            told = new.session.runtime
            served = f"{told.name} {told.version}" if told is not None else "a runtime"
            log.info("serving %s with %s", served, new.identity, extra={"plugin": new.identity})
        else:
            self.stats.counters.restarts += 1
            log.info("%s: replaced", new.identity, extra={"plugin": new.identity})
            self._leavers.dismiss(old)
        self._took_over = time.monotonic()
        self._known_here = True
        self._failing = ""
        self._cancel(self._late)
        self._late = None
        self._placeholder.relieve()
        self.stats.serves(new)
        self._next()  # the release may have changed meanwhile
        self._changed()

    def _drop_successor(self, reason: str) -> None:
        successor = self._successor
        self._forget_successor()
        if successor is None:
            return
        if successor.session.state is State.SYNCHRONISED:
            self._leavers.dismiss(successor)  # the runtime counts on it by now
        else:
            successor.close(reason)

    def _forget_successor(self) -> None:
        self._successor = None
        if self._changeover is not None:
            self._changeover.cancel()
            self._changeover = None
        self._cancel(self._hurry)

    def _drop_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()

    def _cancel_timers(self) -> None:
        self._backoff.cancel()
        self._cancel(self._late)
        self._late = None
        self._cancel(self._hurry)

    @staticmethod
    def _cancel(timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    def _outcome(self, outcome: Outcome) -> None:
        self.stats.answered(self._incumbent, outcome)
        self._report(outcome)

    # --- for people

    @property
    def plugin(self) -> Plugin | None:
        """Who answers now."""
        return self._incumbent

    @property
    def serving(self) -> bool:
        """Somebody answers here, and is well."""
        return self._incumbent is not None and self._incumbent.serving

    @property
    def refusing(self) -> bool:
        """No container is created at this runtime, since the plugin does not run."""
        return self._placeholder.refusing

    @property
    def skipped_for(self) -> str:
        """Why the plugin is not registered at this runtime; empty: it is, or is to be."""
        return self._skipped

    @property
    def settled(self) -> bool:
        """Whether what is to come of it has come: it is registered, its absence is refused, or
        told and of no consequence. Nothing is to be waited for where no runtime is."""
        if self.release is None or self._skipped or not self._present:
            return True
        if self._incumbent is not None or self._placeholder.refusing:
            return True
        ignored = self.release.settings.failure_policy == "Ignore"
        return ignored and bool(self._held or self.release.unusable or self._backoff.waiting)

    @property
    def status(self) -> str:
        """skipped (not meant for this runtime), failed (nothing to load), starting, probation,
        running, backoff, quarantined or waiting (for the runtime)."""
        if self._skipped and self._incumbent is None:
            return "skipped"
        if self._held:
            return "quarantined"
        if self.release is not None and self.release.unusable:
            return "failed"
        if self._incumbent is not None:
            trial = self.stats.trial_of(self._incumbent)
            # Until one that failed is replaced, it is not through its probation either.
            well = "running" if trial is None or trial.kept else "probation"
            return well if self.serving else "backoff"
        if not self._present:
            return "waiting"
        return "backoff" if self._backoff.waiting else "starting"
