"""What became of one event at one plugin: the raw facts, decoded later and elsewhere."""

from typing import NamedTuple

from edge_agent.wasm.imports import Report

OK, REJECTED, DENIED, ERROR = "ok", "rejected", "denied", "error"
"""Kinds beside a GuestFault's: answered, refused by the guest, reply not permitted, policy."""


class Outcome(NamedTuple):
    """One event, answered. Bytes are as they went over the wire; nothing is decoded here."""

    time_ns: int
    plugin: str
    digest: str
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

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory, as far as others determine them."""
        told = sum(len(report.payload) for report in self.reports)
        return len(self.request) + len(self.reply) + len(self.error) + told
