"""A plugin's place at one runtime: who sits there, who comes next, when they change.

The incumbent answers. A successor is wanted when the guest failed or its release
changed; it is loaded, connects, is configured and synchronised beside the incumbent,
then takes over at a border between two events (edge_agent.host.handover) and the old
session closes. Everything here runs on the loop's thread and waits for nothing.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_agent.errors import EdgeAgentError, GuestFault
from edge_agent.host.backoff import Backoff
from edge_agent.host.handover import SETTLE_S, Handover
from edge_agent.host.leaving import Leavers
from edge_agent.host.loader import Loader, Prepared
from edge_agent.host.outcome import Outcome
from edge_agent.host.plugin import Plugin, Role
from edge_agent.host.release import Release
from edge_agent.host.stats import Stats
from edge_agent.host.subject import subject
from edge_agent.loop import Loop, Timer
from edge_agent.nri import events
from edge_agent.nri.generation import OLD_EVENTS
from edge_agent.nri.session import Call, State
from edge_agent.wasm.imports import PluginState

log = logging.getLogger(__name__)

HEALTHY_S = 60.0  # a guest that served this long starts over at the shortest wait
RECHECK_S = 0.25  # while a handover waits for a quiet moment
START_TIMEOUT_S = 30.0  # from connecting to synchronised: the runtime's own limits are 5 + 2 + 2


class Seat:
    """`absent` is called when the runtime cannot be reached; `changed` on any news."""

    def __init__(
        self,
        loop: Loop,
        socket: Path,
        loader: Loader,
        state: PluginState,
        report: Callable[[Outcome], None],
        absent: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.release: Release | None = None
        self.stats = Stats()
        self.error = ""
        self.since = time.time()
        self.known_events: int | None = None
        self._loop = loop
        self._socket = socket
        self._loader = loader
        self._state = state
        self._report = report
        self._absent = absent
        self._changed = changed
        self._incumbent: Plugin | None = None
        self._successor: Plugin | None = None
        self._leavers = Leavers(loop)
        self._backoff = Backoff(loop, self._next)
        self._ready: Prepared | None = None  # loaded, the runtime is not there
        self._handover: Handover | None = None
        self._switch = False  # at the end of the present event
        self._loading = False
        self._present = False
        self._took_over = 0.0
        self._settle: Timer | None = None
        self._hurry: Timer | None = None

    # --- what the roster and the runtime tell it

    def assign(self, release: Release) -> None:
        """Run this release from now on; an equal one changes nothing."""
        if release == self.release:
            return
        self.release = release
        self.error = ""
        self._backoff.reset()
        self._backoff.cancel()  # it was the other release that failed
        self._drop_successor("another release is wanted")
        self._drop_ready()
        self._next()

    def vacate(self) -> None:
        """The plugin is gone: nobody sits here any more."""
        self.release = None
        self._cancel_timers()
        self._drop_ready()
        self._drop_successor("removed")
        incumbent, self._incumbent = self._incumbent, None
        if incumbent is not None:
            self._leavers.dismiss(incumbent)
        self._changed()

    def close(self) -> None:
        """The agent ends: close every session at once."""
        self.vacate()
        self._leavers.close("the agent ends")

    @property
    def vacant(self) -> bool:
        """Nothing is left here, not even a session that waits to close."""
        return not (self.release or self._incumbent or self._successor or self._leavers)

    def runtime_present(self) -> None:
        """The runtime's socket is there (again)."""
        self._present = True
        self._next()

    def runtime_absent(self) -> None:
        """The runtime's socket is gone."""
        self._present = False
        self.known_events = None

    # --- what its plugins tell it (edge_agent.host.plugin.Place)

    def role(self, plugin: Plugin, call: Call) -> Role:
        """Exactly one session answers an event; see `handover`."""
        if plugin in self._leavers:
            return self._leavers.role(plugin, call)
        handover = self._handover
        if handover is not None:
            bit = events.BY_METHOD[call.event].bit
            old = plugin is self._incumbent
            if handover.seen(old, bit, subject(call), time.monotonic()):
                self._switch = True
        return Role.ANSWER if plugin is self._incumbent else Role.WATCH

    def answered(self, plugin: Plugin, call: Call) -> None:
        """The event is over for this session: the moment to switch, if one is due."""
        del call
        handover = self._handover
        if handover is None:
            return
        incumbent = self._incumbent
        failed = incumbent is not None and incumbent.fault is not None
        if self._switch or (
            failed and plugin is incumbent and handover.may_switch(time.monotonic(), True)
        ):
            self._take_over()

    def synchronised(self, plugin: Plugin) -> None:
        """A session is ready for events."""
        if plugin is self._incumbent:
            return  # the runtime synchronises again
        if plugin is not self._successor:
            plugin.close("not wanted any more")
            return
        self._cancel(self._hurry)
        self.error = ""
        incumbent = self._incumbent
        if incumbent is None:
            self._take_over()
            return
        self._handover = Handover(
            time.monotonic(), incumbent.session.subscribed, plugin.session.subscribed
        )
        self._switch = False
        self._settle = self._loop.call_later(SETTLE_S, self._settled)

    def failed(self, plugin: Plugin, fault: GuestFault) -> None:
        """A guest is finished. Its session answers by policy; a successor is prepared."""
        if plugin in self._leavers:
            return  # its guest was closed
        self.stats.failed(fault.kind)
        log.error("%s: %s", plugin.identity, fault, extra={"plugin": plugin.identity})
        if plugin is self._successor:
            self._drop_successor("its guest failed")
            self._again(str(fault))
        elif plugin is self._incumbent:
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
            self._incumbent = None
            log.info("%s: session over: %s", plugin.identity, reason)
            if self._successor is not None and self._handover is not None:
                self._take_over()
            else:
                self._again(reason, served=True)
                self._absent(reason)
        self._changed()

    # --- a successor, step by step

    def _next(self) -> None:
        """Bring the seat one step closer to running its release."""
        if self.release is None or not self._present:
            return
        if self._loading or self._successor is not None or self._backoff.waiting:
            return
        incumbent = self._incumbent
        if incumbent is not None and incumbent.release == self.release and not incumbent.fault:
            return
        if self._ready is not None:
            self._connect()
            return
        self._loading = True
        self._loader.load(self.release, self._state, partial(self._loaded, self.release))

    def _loaded(self, release: Release, result: Prepared | EdgeAgentError) -> None:
        self._loading = False
        if release != self.release:  # another is wanted by now, or none
            if isinstance(result, Prepared):
                result.close()
            self._next()
        elif isinstance(result, EdgeAgentError):
            self.stats.failed("load")
            if str(result) != self.error:
                log.error("%s", result, extra={"plugin": release.identity})
            self._again(str(result))
        else:
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
            self._backoff.reset()  # the runtime has ended: no fault of the plugin's
            self._present = False
            self._absent(f"cannot connect: {error.strerror}")
            return
        self._successor = plugin
        self._hurry = self._loop.call_later(START_TIMEOUT_S, self._too_slow)

    def _too_slow(self) -> None:
        successor = self._successor
        assert successor is not None  # or the timer would have been cancelled
        self._forget_successor()
        successor.close("the runtime does not synchronise it")
        log.warning("%s: the runtime does not synchronise it", successor.identity)
        self._again("not accepted: the runtime does not synchronise it")

    def _not_accepted(self, plugin: Plugin, reason: str) -> None:
        """The runtime closed a session before it was synchronised."""
        if plugin.fault is not None or self.release is None:
            return  # `failed` has seen to it
        log.warning("%s: not accepted: %s", plugin.identity, reason)
        runtime = plugin.session.runtime
        if runtime and not runtime.nri_version and plugin.session.subscribed & ~OLD_EVENTS:
            # Closed right after it was configured: a runtime that knows fewer events than
            # was inferred. The next attempt asks for the oldest set only. A runtime that
            # says its generation knows it; one that merely ends must not cost a validator
            # its validations.
            self.known_events = OLD_EVENTS
        self._again(f"not accepted: {reason}")

    def _again(self, error: str, served: bool = False) -> None:
        """Try once more after a while that doubles each time, with jitter."""
        self.error = error
        if served and time.monotonic() - self._took_over > HEALTHY_S:
            self._backoff.reset()
        self._backoff.again()
        self._changed()

    # --- the change

    def _settled(self) -> None:
        handover, incumbent = self._handover, self._incumbent
        if handover is None:
            return
        failed = incumbent is not None and incumbent.fault is not None
        if handover.may_switch(time.monotonic(), failed):
            self._take_over()
        else:
            self._settle = self._loop.call_later(RECHECK_S, self._settled)

    def _take_over(self) -> None:
        old, new = self._incumbent, self._successor
        assert new is not None
        self._forget_successor()
        self._incumbent = new
        if old is not None:
            self.stats.restarts += 1
            log.info("%s: replaced", new.identity, extra={"plugin": new.identity})
            self._leavers.dismiss(old)
        self.error = ""
        self.since = time.time()
        self._took_over = time.monotonic()
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
        self._handover = None
        self._switch = False
        self._cancel(self._settle)
        self._cancel(self._hurry)

    def _drop_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()

    def _cancel_timers(self) -> None:
        self._backoff.cancel()
        for timer in (self._settle, self._hurry):
            self._cancel(timer)

    @staticmethod
    def _cancel(timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    def _outcome(self, outcome: Outcome) -> None:
        if outcome.event in events.BY_METHOD:
            self.stats.answered(outcome.duration_ns)
        if outcome.kind == "denied":
            self.stats.failed("denied")
        self._report(outcome)

    # --- for people

    @property
    def plugin(self) -> Plugin | None:
        """Who answers now."""
        return self._incumbent

    @property
    def status(self) -> str:
        """starting, running, backoff or waiting (for the runtime)."""
        if self._incumbent is not None:
            return "running" if self._incumbent.serving else "backoff"
        if not self._present:
            return "waiting"
        return "backoff" if self._backoff.waiting else "starting"
