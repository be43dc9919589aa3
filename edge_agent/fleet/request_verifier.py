"""Verifies signed requests: by a trusted key, for this node, in time, and carried out once.

For the thread of edge_agent.node.updates: a signature costs a slow board a millisecond, and what
was asked has to be on the disk before it is done, or it could be sent again after a restart.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_agent.errors import CryptoError, RefusedError, RequestError, StoreError
from edge_agent.fleet.documents import TrustInForce
from edge_agent.fleet_protocol import signed_requests
from edge_agent.fleet_protocol.requests import Request, Sealed
from edge_agent.fleet_protocol.signed_requests import Addressed, Memory
from edge_agent.store import files

log = logging.getLogger(__name__)

# Keys times ids, each with its time: some 300 KiB at most.
MAX_FILE_BYTES = 1 << 20


class RequestVerifier:
    """Requests that came are remembered in `path`. Used by one thread."""

    def __init__(self, path: Path, trust_in_force: Callable[[], TrustInForce]) -> None:
        self._path = path
        self._trust_in_force = trust_in_force
        self._memory: Memory | None = None

    def request(self, sealed: Sealed, to: Addressed) -> Request:
        """The request in an envelope. RequestError: it is not to be carried out."""
        in_force = self._trust_in_force()
        trust, now = in_force.trust, in_force.now
        if trust is None:
            raise RequestError(sealed.id, f"signature: nobody is trusted here: {in_force.reason}")
        known = self._known(in_force)
        try:
            trust.check_in_force(now)
        except RefusedError as error:
            raise RequestError(sealed.id, f"{error.reason}: {error}") from None
        try:
            request, memory = signed_requests.accept(sealed, to, trust.keys, now, known)
        except CryptoError as error:
            raise RequestError(sealed.id, f"signature: {error}") from error
        self._remember(request, memory)
        return request

    def _known(self, in_force: TrustInForce) -> Memory:
        before = self._memory
        memory = self._read(in_force) if before is None else before
        memory = self._memory = signed_requests.recalled(memory, in_force.now)
        return memory

    def _read(self, in_force: TrustInForce) -> Memory:
        """Load the file. If it is damaged, every request that may be older than it is refused."""
        try:
            data = files.read(self._path, MAX_FILE_BYTES)
            return signed_requests.load(data) if data is not None else {}
        except (StoreError, ValueError) as error:
            log.warning(
                "%s: what was asked before is not known, and none of it is done again: %s",
                *(self._path, error),
            )
        lost = signed_requests.forgotten(in_force.now, clock_stands=in_force.clock_stands)
        with suppress(StoreError):  # or the next process is as strict once more
            files.write(self._path, signed_requests.dump(lost))
        return lost

    def _remember(self, request: Request, memory: Memory) -> None:
        """Write the file; in memory in any case: a node with a bad disk can still be diagnosed."""
        self._memory = memory
        try:
            files.make_folder(self._path.parent)
            files.write(self._path, signed_requests.dump(memory))
        except StoreError as error:
            if request.verb == "restart":  # the next process would take it again
                raise RequestError(request.id, f"it could not be remembered: {error}") from error
            log.warning("the request %s is remembered until the agent ends: %s", request.id, error)
