"""One guest as a session calls it: by its deadline, its permissions, and with the crash marker set.

Whatever the guest does, a call ends in time with a reply or an error. The marker says whose code
runs now, so that the next process knows whose code ended this one (edge_agent.host.crash_marker).
"""

import logging

from edge_agent.errors import EdgeAgentError, GuestError, GuestFault
from edge_agent.host.crash_marker import LOOP, NOBODY
from edge_agent.host.loader import Prepared
from edge_agent.nri import permissions
from edge_agent.nri.session import Call
from edge_agent.wasm.imports import Report

log = logging.getLogger(__name__)

ANSWER_SHARE, WATCH_SHARE = 1 / 2, 3 / 8
"""Of the time that the runtime gives: for an answer, and for being shown an event. Another
plugin's answer may have to wait for the latter; both together are in time."""


class Guest:
    """Calls belong to the loop's thread."""

    def __init__(self, prepared: Prepared) -> None:
        self.release = prepared.release
        self.exports = prepared.exports
        self._prepared = prepared
        self._instance = prepared.instance
        self._services = prepared.services
        self.mark = prepared.mark
        self._running, self._index = self.mark.memory, self.mark.index
        self._deadline_s = self.release.settings.limits.deadline_ms / 1000

    @property
    def memory_bytes(self) -> int:
        """Of its linear memory."""
        return self._instance.memory_bytes

    @property
    def has_reports(self) -> bool:
        """Whether it passed anything to edge.report since these were taken."""
        return bool(self._services.reports)

    def answer(self, call: Call) -> bytes:
        """The guest's reply. NotPermitted: that, or an update that the guest asked for by itself,
        touches what it may not. GuestError. GuestFault. After an error no update is passed on."""
        granted = self.release.settings.permissions
        try:
            reply = self._call(call, ANSWER_SHARE)
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
        self._services.muted = True
        try:
            self._call(call, WATCH_SHARE)
        except GuestError:
            pass
        finally:
            self._services.muted = False

    def take_reports(self) -> tuple[Report, ...]:
        """What it passed to edge.report."""
        reports = self._services.reports
        if not reports:
            return ()
        taken = tuple(reports)
        reports.clear()
        return taken

    def take_updates(self) -> tuple[bytes, ...]:
        """The updates of containers that it asked for by itself, as serialized requests."""
        updates = self._services.updates
        if not updates:
            return ()
        taken = tuple(updates)
        updates.clear()
        return taken

    def close(self) -> None:
        """Give its memory back. Harmless when repeated."""
        self._prepared.close()

    def hold_log(self) -> None:
        """Its lines wait until `release_log`, as far as that goes."""
        self._services.log.hold()

    def release_log(self) -> None:
        """The answer is out: its lines may take their time."""
        self._services.log.release()

    def flush_log(self) -> None:
        """Write what stands in the log without the end of its line."""
        self._services.log.flush()

    def _call(self, call: Call, share: float) -> bytes:
        if not call.export:
            return b""
        running = self._running
        running[LOOP] = self._index
        try:
            return self._instance.call(
                call.export, call.payload, min(self._deadline_s, call.timeout_s * share)
            )
        except (GuestError, GuestFault):
            raise
        except Exception as error:
            # A defect of this agent: the runtime must get its answer all the same.
            log.exception("%s: %s failed", self.release.identity, call.export)
            raise GuestFault("trap", f"{call.export}: the agent failed: {error!r}") from error
        finally:
            running[LOOP] = NOBODY
