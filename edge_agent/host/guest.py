"""One guest as a session calls it, and what is reported of its calls.

Whatever the guest does, a call ends in time with a reply or an error. The crash marker says whose
code runs now, so that the next process knows whose code ended this one
(edge_agent.host.crash_marker). Results are raw facts; the link's thread describes them.
"""

import logging
import time
from pathlib import Path

from edge_agent.errors import EdgeAgentError, GuestError, GuestFault
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.crash_marker import LOOP, NOBODY
from edge_agent.host.creations import Finding
from edge_agent.host.loader import Prepared
from edge_agent.host.per_event import Places
from edge_agent.nri import events, permissions
from edge_agent.nri.session import Call
from edge_agent.store.release import Release
from edge_agent.wasm.imports import Report

log = logging.getLogger(__name__)


ANSWER_SHARE, WATCH_SHARE, NOTICE_SHARE = 1 / 2, 3 / 8, 1 / 8
"""Of the time that the runtime gives: for an answer, for being shown an event, and for a call by
time or pressure. Another plugin's answer may have to wait for the two latter; all are in time."""


class Guest:
    """Calls belong to the loop's thread."""

    def __init__(self, prepared: Prepared) -> None:
        self.release = prepared.release
        self.exports = prepared.exports
        self._prepared = prepared
        self._one_shot = self.release.settings.one_shot
        self._places: Places | None = None  # of a one-shot plugin, once it is configured
        self._closed = False
        self._used = False  # up, of a one-shot plugin: the next call has another instance
        self._instance = prepared.instance
        self._services = prepared.services
        self.mark = prepared.mark
        self._running, self._index = self.mark.memory, self.mark.index
        self._deadline_s = self.release.settings.limits.deadline_ms / 1000

    @property
    def memory_bytes(self) -> int:
        """Size of the guest's linear memory, in bytes; of a one-shot plugin, of all that are
        ready."""
        if self._places is not None:
            return self._places.memory_bytes
        return self._instance.memory_bytes

    @property
    def has_reports(self) -> bool:
        """Whether the guest passed anything to edge.report since reports were last taken."""
        return bool(self._services.reports)

    def answer(self, call: Call, share: float = ANSWER_SHARE, *, hold_log: bool = False) -> bytes:
        """The guest's reply, given within this share of the time that the runtime gives. With
        `hold_log` its lines wait until `release_log`, as far as that goes.

        NotPermitted: that, or an update that the guest asked for by itself, touches what it may
        not. GuestError. GuestFault. After an error no update is passed on."""
        granted = self.release.settings.permissions
        try:
            reply = self._call(call, share, hold_log)
            permissions.check(call.event, reply, granted)
            for request in self._services.updates:
                permissions.check(permissions.UPDATE_CONTAINERS, request, granted)
        except EdgeAgentError:
            self._services.updates.clear()
            raise
        return reply

    def watch(self, call: Call) -> None:
        """Show an event to a guest that does not answer yet: nothing that it says counts.
        GuestFault."""
        try:
            self._call(call, WATCH_SHARE, muted=True)
        except GuestError:
            pass

    def over(self, call: Call) -> None:
        """All is taken that the guest said in this call; a one-shot plugin's instance goes, unless
        it was only configured."""
        if not self._one_shot or not call.export or self._used or self._closed:
            return
        if self._places is None:
            self._places = Places(self._prepared)
        if call.event == events.CONFIGURE:
            self._places.configured(call)
        else:
            self._services.log.flush()
            self._used = True
            self._places.used()

    def take_reports(self) -> tuple[Report, ...]:
        """Take the reports that the guest passed to edge.report."""
        reports = self._services.reports
        if not reports:
            return ()
        taken = tuple(reports)
        reports.clear()
        return taken

    def take_updates(self) -> tuple[bytes, ...]:
        """Take the updates of containers that the guest asked for by itself, as serialized
        requests."""
        updates = self._services.updates
        if not updates:
            return ()
        taken = tuple(updates)
        updates.clear()
        return taken

    def close(self) -> None:
        """Give its memory back. Harmless when repeated."""
        self._closed = True
        (self._places or self._prepared).close()

    def release_log(self) -> None:
        """The answer is out: its lines may take their time."""
        self._services.log.release()

    def flush_log(self) -> None:
        """Write what stands in the log without the end of its line."""
        self._services.log.flush()

    def _call(self, call: Call, share: float, hold_log: bool = False, muted: bool = False) -> bytes:
        if not call.export:
            return b""
        limit_s = min(self._deadline_s, call.timeout_s * share)
        running = self._running
        try:
            if self._used:
                limit_s = self._renew(limit_s)
            services = self._services
            if hold_log:
                services.log.hold()
            services.muted = muted
            running[LOOP] = self._index
            return self._instance.call(call.export, call.payload, limit_s)
        except (GuestError, GuestFault):
            raise
        except Exception as error:
            # A defect of this agent: the runtime must get its answer all the same.
            log.exception("%s: %s failed", self.release.identity, call.export)
            raise GuestFault("trap", f"{call.export}: the agent failed: {error!r}") from error
        finally:
            running[LOOP] = NOBODY

    def _renew(self, limit_s: float) -> float:
        """Take another instance; the time that is left. GuestFault."""
        assert self._places is not None
        place, left_s = self._places.take(limit_s)
        self._used = False
        self._instance, self._services, self._index = (
            place.instance,
            place.services,
            place.mark.index,
        )
        return left_s


CREATE = "CreateContainer"
Details = tuple[tuple[str, tuple[str, ...]], ...]


class Results:
    """Makes the results of one release at one runtime."""

    def __init__(self, release: Release, socket: Path) -> None:
        self._release = release
        self._identity = release.identity
        self._socket = str(socket)
        self._monitored = release.settings.monitored

    def of_call(
        self,
        call: Call,
        began_ns: int,
        kind: str,
        reply: bytes = b"",
        text: str = "",
        reports: tuple[Report, ...] = (),
        details: Details = (),
        withheld: int = 0,
    ) -> EventResult:
        """The call is answered. `began_ns` is of time.perf_counter_ns; `details` are further keys
        of the record, `withheld` counts updates that a monitored plugin asked for."""
        release = self._release
        return EventResult(
            time.time_ns(),
            self._identity,
            release.digest,
            self._socket,
            call.event,
            call.export,
            kind,
            time.perf_counter_ns() - began_ns,
            # A synchronisation may have 16 MiB, and is about no pod in particular.
            call.payload if call.event in events.BY_METHOD else b"",
            reply,
            text,
            reports,
            release.settings.report,
            details,
            self._monitored,
            withheld,
        )

    def of_finding(self, finding: Finding) -> EventResult:
        """A result that tells what became of a reply, beside the result of the event."""
        release = self._release
        details = {"fields": finding.fields, "with": finding.others}
        details["containers"] = finding.containers
        return EventResult(
            time.time_ns(),
            self._identity,
            release.digest,
            self._socket,
            CREATE if finding.request else permissions.UPDATE_CONTAINERS,
            "",
            finding.kind,
            0,
            finding.request,
            b"",
            finding.text,
            (),
            release.settings.report,
            tuple((key, texts) for key, texts in details.items() if texts),
        )
