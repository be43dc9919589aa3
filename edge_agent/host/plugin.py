"""A hosted plugin: a session with one runtime, and the guest that answers its calls.

Serves the runtime's calls on the loop's thread. Whatever the guest does, the runtime gets an
answer in time; a guest that failed is closed and its session answers by policy until a successor
stands beside it (edge_agent.host.slot).
"""

import logging
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_agent.errors import GuestError, GuestFault
from edge_agent.fleet_protocol import event_result
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.creations import Creations, Finding, rejection
from edge_agent.host.guest import (
    CREATE,
    NOTICE_SHARE,
    WATCH_SHARE,
    Details,
    Guest,
    Results,
)
from edge_agent.host.loader import Prepared
from edge_agent.host.withheld import Withheld, withheld
from edge_agent.loop import Loop
from edge_agent.nri import events, permissions
from edge_agent.nri.capabilities import why_skipped
from edge_agent.nri.link import Link, SocketFile
from edge_agent.nri.session import (
    MAX_UNANSWERED,
    Call,
    Incoming,
    RuntimeInfo,
    Session,
    State,
    Updated,
)
from edge_agent.store.release import PluginId

log = logging.getLogger(__name__)

MAX_CONTAINERS, MAX_ID_CHARS = 16, 128  # named in one result
UNKNOWN = 2  # google.rpc.Code of an error that a plugin returns, as upstream's stub sends it


class Role(Enum):
    """How a session handles an event; its slot sets the role. Exactly one session of a plugin
    answers (edge_agent.host.handover)."""

    ANSWER = "answer"
    WATCH = "watch"  # answer empty, then let the guest see the event; its reply is dropped
    DRAIN = "drain"  # close the connection instead of answering, once no creation needs it


class Watcher(Protocol):
    """Looks for a border between two events: a handover, or the end of a placeholder."""

    def seen(self, plugin: "Plugin", call: Call) -> None:
        """The session has been sent this event."""

    def answered(self, plugin: "Plugin") -> None:
        """The event is over for this session."""


class Owner(NamedTuple):
    """Calls of a plugin to its slot, on the loop."""

    report: Callable[[EventResult], None]
    """An event, or a step of the start, is over."""
    found: Callable[[PluginId, Finding], None]
    """(identity, what a reply of it came to)"""
    configured: Callable[[RuntimeInfo], None]
    """The runtime has said what it is."""
    left_out: Callable[["Plugin", str], None]
    """The runtime that configures it is not the one it is meant for, for this reason."""
    synchronised: Callable[["Plugin"], None]
    """The runtime has told the guest its state; events may come."""
    failed: Callable[["Plugin", GuestFault], None]
    """The guest is finished; the session still answers."""
    closed: Callable[["Plugin", str], None]
    """The session is over, for this reason."""


class Plugin:
    """OSError from the constructor: the runtime does not listen (yet)."""

    def __init__(
        self,
        loop: Loop,
        socket: Path,
        prepared: Prepared,
        owner: Owner,
        creations: Creations,
        known_events: int | None,
    ) -> None:
        self.release = prepared.release
        self.identity = self.release.identity
        self.fault: GuestFault | None = None
        self.runtime = ""
        self.role = Role.WATCH
        self.watcher: Watcher | None = None
        self._socket = socket
        self.last_event, self.last_event_at = "", 0.0  # monotonic
        self.unread: list[str] = []  # thresholds whose reading this board does not have, and why
        self.guest = Guest(prepared)
        self._results = Results(self.release, socket)
        self._owner = owner
        self._creations = creations
        self._monitored = self.release.settings.monitored
        self._handle = self._monitor if self._monitored else self._answer
        validates = events.EXPORTS[events.VALIDATE.method] in prepared.exports
        self.session = Session(
            self.release.index,
            self.release.name,
            prepared.exports,
            self.release.config,
            # A validator leaves on an event that is not part of a creation (docs/adr/0005); and
            # that event shows what an adjustment came to (docs/adr/0035).
            extra_events=events.POST_CREATE.bit if validates or self._may_adjust else 0,
            known_events=known_events,
        )
        self._link = Link(loop, socket, self.session, self._received, self._closed)

    @property
    def _may_adjust(self) -> bool:
        granted = self.release.settings.permissions
        return (
            not self._monitored
            and events.EXPORTS[CREATE] in self.guest.exports
            and (granted is None or not set(granted) <= {"update", "evict"})
        )

    @property
    def socket_file(self) -> SocketFile | None:
        """The socket that it is connected to, if it was to be seen."""
        return self._link.file

    @property
    def peer_pid(self) -> int:
        """The runtime's process; 0: outside of this process's PID namespace."""
        return self._link.peer_pid

    @property
    def waited_for(self) -> bool:
        """The runtime has sent something that was not looked at yet."""
        return self._link.waiting

    @property
    def serving(self) -> bool:
        """Synchronised, connected and alive."""
        return self.session.state is State.SYNCHRONISED and self._link.open and not self.fault

    @property
    def validates(self) -> bool:
        """The runtime asks it whether a container may be created."""
        return bool(self.session.subscribed & events.VALIDATE.bit)

    @property
    def memory_bytes(self) -> int:
        return self.guest.memory_bytes

    def retire(self) -> None:
        """The guest is no longer needed; the session may have to stay a while."""
        self.guest.close()

    def finish(self) -> bool:
        """Take no further event, and answer one that has come. Whether one had."""
        return self._link.finish()

    def close(self, reason: str) -> None:
        """End session and guest."""
        self._link.close(reason)

    def _received(self, incoming: Incoming) -> None:
        if isinstance(incoming, Updated):
            if incoming.error or incoming.failed:
                self._not_updated(incoming)
            return
        if incoming.event in events.BY_METHOD:
            self._serve(incoming)
        else:
            self._begin(incoming)
        self.guest.over(incoming)

    def _begin(self, call: Call) -> None:
        """Configure, Synchronize and Shutdown: whatever comes before or after events."""
        began = time.perf_counter_ns()
        fault: GuestFault | None = None
        told = Withheld(event_result.OK)
        if call.event == events.CONFIGURE and (reason := self._left_out()):
            # The runtime forgets a plugin that cannot be configured; the guest sees nothing.
            self.session.refuse(call, UNKNOWN, f"plugin {self.identity} {reason}")
            self._link.flush()
            return
        try:
            reply = self.guest.answer(call)
            if self._monitored and call.event == events.SYNCHRONIZE:
                told = withheld(call.event, reply, self.guest.take_updates())
                reply = b""
            self.session.answer(call, reply)
        except (GuestError, permissions.NotPermitted) as error:
            fault = GuestFault("start", f"{call.event}: {error}")
        except GuestFault as found:
            fault = found
        if fault is not None:
            told = Withheld(fault.kind, str(fault))
            self.session.refuse(call, UNKNOWN, f"plugin {self.identity}: {fault}")
            self._fail(fault)
        self._link.flush()
        if call.event == events.CONFIGURE and self.session.runtime is not None:
            self.runtime = str(self.session.runtime)
            self._tell_unserved()
        # Not to wait for an event, which may never come.
        if self.guest.has_reports or (fault is None and told.kind != event_result.OK):
            self._tell_withheld(call, began, told)
        if call.event == events.SYNCHRONIZE and not self.fault:
            self._send_updates()
            self._owner.synchronised(self)

    def _left_out(self) -> str:
        """Why it is not meant for the runtime that configures it; empty: it is."""
        runtime = self.session.runtime
        assert runtime is not None
        self._owner.configured(runtime)
        reason = why_skipped(self.release.settings, self._socket, runtime)
        if reason:
            self._owner.left_out(self, reason)
        return reason

    def _tell_unserved(self) -> None:
        """Events that the guest asked for and will not get, by whose doing."""
        for mask, why in (
            (self.session.not_sent, f"which {self.runtime} does not send"),
            (self.session.not_exported, "which its exports do not take"),
        ):
            if mask:
                named = ", ".join(events.names(mask)) or "unknown events"
                told = (self.identity, named, why)
                log.warning("%s asked for %s, %s", *told, extra={"plugin": self.identity})

    def _serve(self, call: Call) -> None:
        self.last_event, self.last_event_at = call.event, time.monotonic()
        if self.role is Role.DRAIN and not self._needed_for(call):
            self._link.close("replaced")
            return
        if self.watcher is not None:
            self.watcher.seen(self, call)
        if not call.export:  # subscribed only for the chance to leave on it
            self.session.answer(call, b"")
            self._link.flush()
            self._seen(call)
            return
        if self.role is Role.ANSWER:
            self._handle(call)
        else:
            self.session.answer(call, b"")
            self._link.flush()
            if self.role is Role.WATCH:
                self._watch(call)
        if self.watcher is not None:
            self.watcher.answered(self)
        self._seen(call)

    def _needed_for(self, call: Call) -> bool:
        """Whether the runtime would miss a validator that closes instead of answering this."""
        return self.validates and call.event in (CREATE, events.VALIDATE.method)

    def _seen(self, call: Call) -> None:
        runtime = self.session.runtime
        if call.event == events.POST_CREATE.method and runtime is not None:
            self._creations.created(runtime, call)

    def _answer(self, call: Call) -> None:
        began = time.perf_counter_ns()
        kind, reply, text = event_result.OK, b"", ""
        details: Details = ()
        fault = self.fault
        try:
            if fault is None:
                reply = self.guest.answer(call, hold_log=True)
            else:
                kind, text = event_result.ERROR, str(fault)
        except GuestError as error:
            kind, text = event_result.REJECTED, str(error)
        except GuestFault as found:
            kind, text, fault = found.kind, str(found), found
        except permissions.NotPermitted as error:
            kind, text = event_result.DENIED, str(error)
        if kind == event_result.OK:
            self.session.answer(call, reply)
        elif kind != event_result.REJECTED and self.release.settings.failure_policy == "Ignore":
            self.session.answer(call, b"")
        else:
            self.session.refuse(call, UNKNOWN, f"plugin {self.identity}: {text}")
        self._link.flush()
        # The runtime has its answer; nothing waits for the rest.
        self.guest.release_log()
        if reply and kind == event_result.OK:
            runtime = self.session.runtime
            if call.event == CREATE and runtime is not None:
                tell = self._owner.found
                self._creations.replied(tell, self.identity, runtime, call, reply)
            elif call.event == events.VALIDATE.method and (reason := rejection(reply)):
                kind, text = event_result.REJECTED, reason
                if others := self._creations.rejected(self.identity, call, reason):
                    details = (("with", tuple(others)),)
        self._tell(call, began, kind, reply, text, details)
        self._send_updates()
        if fault is not None and self.fault is None:
            self._fail(fault)

    def _monitor(self, call: Call) -> None:
        """Answer empty, then ask the guest and report what it would have done: so the runtime
        neither waits for it nor gets anything of it (docs/adr/0057)."""
        self.session.answer(call, b"")
        self._link.flush()
        began = time.perf_counter_ns()
        told, reply, fault = self._ask(call, WATCH_SHARE, event_result.WOULD_REJECT)
        self._tell_withheld(call, began, told, reply)
        if fault is not None:
            self._fail(fault)

    def _ask(
        self, call: Call, share: float, refused: str
    ) -> tuple[Withheld, bytes, GuestFault | None]:
        """Call a guest whose reply the runtime does not wait for: what it came to, the reply, and
        why the guest is finished. `refused` is the outcome of an error that it returns."""
        if self.fault is not None:
            return Withheld(event_result.ERROR, str(self.fault)), b"", None
        reply = b""
        try:
            reply = self.guest.answer(call, share)
            if self._monitored:
                return withheld(call.event, reply, self.guest.take_updates()), reply, None
        except GuestError as error:
            return Withheld(refused, str(error)), reply, None
        except GuestFault as fault:
            return Withheld(fault.kind, str(fault)), reply, fault
        except permissions.NotPermitted as error:
            return Withheld(event_result.DENIED, str(error)), reply, None
        return Withheld(event_result.OK), reply, None

    def notice(self, method: str, request: bytes) -> None:
        """Call it by time or pressure, if it answers now; a result only of what it did."""
        runtime = self.session.runtime
        if runtime is None or not self.serving or self.role is not Role.ANSWER:
            return
        timeout_s = runtime.request_timeout_ms / 1000
        call = Call(0, method, events.OWN_EXPORTS[method], request, timeout_s)
        began = time.perf_counter_ns()
        told, _, fault = self._ask(call, NOTICE_SHARE, event_result.ERROR)
        if told.kind != event_result.OK or self.guest.has_reports:
            self._tell_withheld(call, began, told)
        self._send_updates()
        if fault is not None:
            self._fail(fault)
        self.guest.over(call)

    def _tell_withheld(self, call: Call, began: int, told: Withheld, reply: bytes = b"") -> None:
        details: Details = (("adjusted", told.adjusted),) if told.adjusted else ()
        self._tell(call, began, told.kind, reply, told.text, details, told.updates)

    def _watch(self, call: Call) -> None:
        try:
            self.guest.watch(call)
        except GuestFault as fault:
            self._fail(fault)

    def _not_updated(self, updated: Updated) -> None:
        containers = tuple(each[:MAX_ID_CHARS] for each in updated.failed[:MAX_CONTAINERS])
        text = f"the runtime did not update {', '.join(containers) or 'the containers'}"
        text += f": {updated.error}" if updated.error else ""
        finding = Finding(event_result.UPDATE_REFUSED, text, containers=containers)
        self._owner.found(self.identity, finding)

    def aftermath(self, finding: Finding) -> EventResult:
        """A result that tells what became of a reply, beside the result of the event."""
        return self._results.of_finding(finding)

    def _tell(
        self,
        call: Call,
        began: int,
        kind: str,
        reply: bytes,
        text: str,
        details: Details,
        withheld: int = 0,
    ) -> None:
        reports = self.guest.take_reports()
        self._owner.report(
            self._results.of_call(call, began, kind, reply, text, reports, details, withheld)
        )

    def _send_updates(self) -> None:
        updates = self.guest.take_updates()
        for request in updates:
            if not self.session.update_containers(request):
                log.warning(
                    "%s: an update is dropped, the runtime owes answers to %d",
                    self.identity,
                    MAX_UNANSWERED,
                    extra={"plugin": self.identity},
                )
        if updates:
            self._link.flush()

    def _fail(self, fault: GuestFault) -> None:
        self.fault = fault
        self.guest.flush_log()
        self.guest.close()
        self._owner.failed(self, fault)

    def _closed(self, reason: str) -> None:
        self.guest.close()
        self._owner.closed(self, reason)
