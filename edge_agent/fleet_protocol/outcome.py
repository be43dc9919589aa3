"""What became of one event at one plugin: the raw facts, decoded later and elsewhere."""

from typing import NamedTuple

from edge_agent.store.digest import Digest
from edge_agent.wasm.imports import Report

OK, REJECTED, DENIED, ERROR = "ok", "rejected", "denied", "error"
"""Kinds beside a GuestFault's: answered, refused by the guest, reply not permitted, policy."""

DROPPED, UNSUPPORTED, CONFLICT = "dropped", "unsupported", "conflict"
VALIDATION, UPDATE_REFUSED = "validation", "update_refused"
"""What became of a reply afterwards: the runtime left fields out, failed the creation over them or
over another plugin's, a validator rejected it, the runtime did not update. Beside the record of
the event itself."""


class Outcome(NamedTuple):
    """One event, answered. Bytes are as they went over the wire; nothing is decoded here."""

    time_ns: int
    plugin: str
    digest: Digest  # of the module; NO_DIGEST: none could be read
    runtime: str
    event: str
    export: str
    kind: str
    duration_ns: int
    request: bytes
    reply: bytes
    error: str
    reports: tuple[Report, ...]
    wanted: str  # the plugin's `report` setting: all, changes or errors
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()  # further keys of the record

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory, as far as others determine them."""
        told = sum(len(report.payload) for report in self.reports)
        more = sum(len(each) for _, texts in self.details for each in texts)
        return len(self.request) + len(self.reply) + len(self.error) + told + more
