"""Results of events at one plugin and runtime, made on the answering thread: raw facts only."""

import time
from pathlib import Path

from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.creations import Finding
from edge_agent.nri import events, permissions
from edge_agent.nri.session import Call
from edge_agent.store.release import Release
from edge_agent.wasm.imports import Report

CREATE = "CreateContainer"


class Results:
    """What all results of one release at one runtime have in common."""

    def __init__(self, release: Release, socket: Path) -> None:
        self._release = release
        self._identity = release.identity
        self._socket = str(socket)

    def of_call(
        self,
        call: Call,
        began_ns: int,
        kind: str,
        reply: bytes = b"",
        text: str = "",
        reports: tuple[Report, ...] = (),
        others: tuple[str, ...] = (),
    ) -> EventResult:
        """The call is answered. `began_ns` is of time.perf_counter_ns; `others`: plugins on the
        other side of a rejection."""
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
            (("with", others),) if others else (),
        )

    def of_finding(self, finding: Finding) -> EventResult:
        """What became of a reply, as a result of its own beside the one of the event."""
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
