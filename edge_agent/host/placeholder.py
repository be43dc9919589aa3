"""Refusing containers while a plugin with `failure_policy = "Fail"` is missing (docs/adr/0033).

No container is to be created without such a plugin. The state machine says when it counts as
missing (edge_agent.host.slot_state.absence). Here are the time of grace before that, and the
placeholder: a session without a guest that registers under the plugin's index and name, and
refuses every creation with the reason. It knows no other event.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.fleet_protocol import event_result
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.guest import CREATE, Results
from edge_agent.host.handover import QUIET_S, SETTLE_S
from edge_agent.host.plugin import UNKNOWN, Plugin
from edge_agent.host.slot_state import Absence, Grace, SlotState, absence
from edge_agent.loop import Loop, Timer
from edge_agent.nri import events
from edge_agent.nri.capabilities import why_skipped
from edge_agent.nri.link import Link, SocketFile
from edge_agent.nri.session import Call, Incoming, RuntimeInfo, Session, State, Updated
from edge_agent.pacing import Backoff
from edge_agent.store.release import Release

if TYPE_CHECKING:
    from edge_agent.host.runtime_endpoint import RuntimeEndpoint

log = logging.getLogger(__name__)


_EXPORTS = frozenset({events.EXPORTS[CREATE]})  # so it subscribes to creations alone
GRACE_S = 0.5  # for a plugin to be registered, where nothing is known to stand in its way
MAX_REASON_CHARS = 500  # of an error that the creator of the container reads


class Placeholder:
    """One session. OSError from the constructor: the runtime does not listen."""

    def __init__(self, loop: Loop, socket: Path, release: Release, place: "PlaceholderSlot"):
        self.release = release
        self.refuses = True  # False: it answers empty
        self.last_event_at = 0.0  # monotonic
        self._place = place
        self._socket = socket
        self._results = Results(release, socket)
        self.session = Session(release.index, release.name, _EXPORTS, "")
        self.link = Link(loop, socket, self.session, self._received, self._closed)

    @property
    def registered(self) -> bool:
        """The runtime has synchronised it: it is asked about each creation."""
        return self.session.state is State.SYNCHRONISED and self.link.open

    def close(self, reason: str) -> None:
        """End the session. Harmless when repeated."""
        self.link.close(reason)

    def _received(self, incoming: Incoming) -> None:
        if isinstance(incoming, Updated):
            return
        call = incoming
        if call.event == CREATE:
            self._created(call)
            return
        runtime = self.session.runtime
        skipped = ""
        if call.event == events.CONFIGURE and runtime is not None:
            self._place.configured(runtime)
            skipped = why_skipped(self.release.settings, self._socket, runtime)
        if skipped:
            self.session.refuse(call, UNKNOWN, f"plugin {self.release.identity} {skipped}")
        else:
            self.session.answer(call, b"")
        self.link.flush()
        if skipped:
            self._place.skipped(skipped)
        elif call.event == events.SYNCHRONIZE:
            self._place.registered(self)

    def _created(self, call: Call) -> None:
        began = time.perf_counter_ns()
        self.last_event_at = time.monotonic()
        if not self.refuses:
            self.session.answer(call, b"")
            self.link.flush()
            return
        text = self._place.refusal()
        self.session.refuse(call, UNKNOWN, f"plugin {self.release.identity} {text}")
        self.link.flush()
        self._place.report(self._results.of_call(call, began, event_result.ERROR, text=text))

    def _closed(self, reason: str) -> None:
        self._place.closed(self, reason)


class PlaceholderSlot:
    """Keeps a placeholder at one runtime for as long as one is wanted.

    `configured` is called with what the runtime says of itself, `skipped` when the plugin turns
    out not to be meant for it, `changed` on any news, `report` with each creation that was refused.
    """

    def __init__(
        self,
        loop: Loop,
        runtime: "RuntimeEndpoint",
        report: Callable[[EventResult], None],
        configured: Callable[[RuntimeInfo], None],
        skipped: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.report = report
        self.configured = configured
        self._skipped = skipped
        self._loop = loop
        self._runtime = runtime
        self._changed = changed
        self._release: Release | None = None  # None: none is wanted
        self._reason = ""
        self._current: Placeholder | None = None
        self._draining: list[Placeholder] = []
        self._backoff = Backoff(loop, self._connect)
        self._relief: Timer | None = None

    def __bool__(self) -> bool:
        """Whether any session is left, also one that waits to close."""
        return self._current is not None or bool(self._draining)

    @property
    def socket_file(self) -> SocketFile | None:
        """The socket that its session is connected to, if there is one."""
        return self._current.link.file if self._current is not None else None

    @property
    def peer_pid(self) -> int | None:
        """The process at the other end of its session, if there is one."""
        return self._current.link.peer_pid if self._current is not None else None

    @property
    def wanted(self) -> bool:
        """Whether creations are to be refused, now or as soon as the runtime registers the
        placeholder."""
        return self._release is not None

    @property
    def refusing(self) -> bool:
        """Whether the runtime asks the placeholder about each creation, and is refused."""
        return self._current is not None and self._current.registered

    @property
    def relieving(self) -> bool:
        """The plugin itself is registered, and the placeholder is about to leave."""
        return self._relief is not None

    def want(self, release: Release, reason: str) -> None:
        """Refuse each creation with this reason."""
        if self._release is None:
            log.error(
                "%s: refuses every container at %s until it runs: %s",
                release.identity,
                self._runtime.socket,
                reason,
                extra={"plugin": release.identity},
            )
        self._release, self._reason = release, reason
        self._cancel_relief()
        self._connect()

    def refusal(self) -> str:
        """The error for a creation."""
        assert self._release is not None or self._current is not None
        return (
            'does not run, and its failure_policy = "Fail" lets no container be created without it '
            f'("Ignore" does, or remove the plugin): {self._reason[:MAX_REASON_CHARS]}'
        )

    def relieve(self, plugin: Plugin) -> None:
        """The plugin itself has been synchronised beside it, and answers from now on.

        Until it stands in the runtime's list for sure, which takes SETTLE_S without an event
        (docs/adr/0004), a creation may reach the placeholder alone, and is refused.
        """
        self._stop_wanting()
        if self._current is not None and self._relief is None:
            self._relief = self._loop.call_later(SETTLE_S, self.drop)
            plugin.watcher = self

    def seen(self, plugin: Plugin, call: Call) -> None:
        """The plugin itself was sent an event: it is in the runtime's list."""
        del call
        plugin.watcher = None
        if self._relief is not None:
            self.drop()

    def answered(self, plugin: Plugin) -> None:
        """Nothing to do (edge_agent.host.plugin.Watcher)."""

    def drop(self) -> None:
        """Refuse nothing any more, and leave once the runtime is quiet (docs/adr/0005)."""
        self._stop_wanting()
        self._cancel_relief()
        placeholder, self._current = self._current, None
        if placeholder is None:
            return
        placeholder.refuses = False
        self._draining.append(placeholder)
        if placeholder.registered:
            self._close_when_quiet(placeholder)
        else:
            placeholder.close("not wanted any more")
        self._changed()

    def close(self, reason: str) -> None:
        """Close every session at once."""
        self._stop_wanting()
        self._cancel_relief()
        for placeholder in [*self._draining, *filter(None, [self._current])]:
            placeholder.close(reason)

    # --- from its sessions

    def registered(self, placeholder: Placeholder) -> None:
        if placeholder is self._current:
            self._backoff.reset()
            self._changed()

    def skipped(self, reason: str) -> None:
        """The plugin is not meant for this runtime, which closes the session."""
        placeholder, self._current = self._current, None
        self._stop_wanting()
        if placeholder is not None:
            self._draining.append(placeholder)
            self._close_when_quiet(placeholder)
        self._skipped(reason)

    def closed(self, placeholder: Placeholder, reason: str) -> None:
        if placeholder in self._draining:
            self._draining.remove(placeholder)
        elif placeholder is self._current:
            self._current = None
            self._cancel_relief()
            self._runtime.lost()  # as with a plugin's own session
            if self._release is not None:
                if placeholder.session.state is not State.SYNCHRONISED:
                    log.warning("%s: not accepted: %s", placeholder.release.identity, reason)
                self._backoff.again()
        self._changed()

    def _connect(self) -> None:
        if self._release is None or self._current is not None or self._backoff.waiting:
            return
        try:
            self._current = Placeholder(self._loop, self._runtime.socket, self._release, self)
        except OSError as error:
            self._stop_wanting()
            self._runtime.unreachable(f"cannot connect: {error.strerror}")
            return
        self._runtime.reached()

    def _close_when_quiet(self, placeholder: Placeholder) -> None:
        def leave() -> None:
            if time.monotonic() - placeholder.last_event_at < QUIET_S:
                self._close_when_quiet(placeholder)
            else:
                placeholder.close("replaced")

        self._loop.call_later(QUIET_S, leave)

    def _stop_wanting(self) -> None:
        self._release = None
        self._backoff.cancel()

    def _cancel_relief(self) -> None:
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None


class AbsenceGuard:
    """`grace_over` is called on the loop when the time of grace is over; `update` must follow."""

    def __init__(
        self, loop: Loop, placeholder: PlaceholderSlot, grace_over: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._placeholder = placeholder
        self._grace_over = grace_over
        self._grace: Timer | None = None

    def update(self, release: Release | None, state: SlotState, reason: Callable[[], str]) -> None:
        """Refuse creations, or refuse them no longer, as the state of the slot demands.

        `reason` says why the plugin does not run; it is called only where that is reported.
        """
        todo = Absence.NONE
        if release is not None and release.settings.must_not_be_missed:
            refusing, refused = self._placeholder.refusing, self._placeholder.wanted
            todo = absence(state, self._grace_now, refusing=refusing, refused=refused)
        if todo is Absence.NONE:
            if not self._placeholder.relieving:
                self._placeholder.drop()
        elif todo is Absence.BEGIN_GRACE:
            self._grace = self._loop.call_later(GRACE_S, self._grace_over)
        elif todo is Absence.REFUSED:
            assert release is not None
            self._placeholder.want(release, reason())

    def end_grace(self) -> None:
        """The plugin is registered, or what is known of its absence is out of date."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def runtime_gone(self) -> None:
        """The runtime cannot be reached: there is nothing to refuse."""
        self.end_grace()
        if not self._placeholder.refusing:  # while its session lives, the runtime does too
            self._placeholder.drop()

    @property
    def _grace_now(self) -> Grace:
        if self._grace is None:
            return Grace.NOT_BEGUN
        return Grace.RUNNING if self._grace.pending else Grace.OVER
