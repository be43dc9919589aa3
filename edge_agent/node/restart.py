"""A restart of the agent that the fleet asks for: once in a while, and answered after it."""

import binascii
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_agent.errors import RequestError, StoreError
from edge_agent.loop import Loop
from edge_agent.node.requests import Job, Ticket
from edge_agent.store import files

log = logging.getLogger(__name__)

# Between two restarts that the fleet asks for: a node that does nothing else serves nobody.
PAUSE_S = 300.0
TICKET_FILE = "restart.json"  # of the state folder
MAX_TICKET_BYTES = 4096


class Restart:
    """`end` is called on the loop to end this process, when `due` says that it begins anew; `run`
    has something done on a thread that may wait for the disk."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        end: Callable[[], None],
        state_dir: Path,
    ) -> None:
        self.due = False  # the program is to begin anew
        self._loop = loop
        self._run = run
        self._end = end
        self._file = state_dir / TICKET_FILE
        self._began = time.monotonic()  # boards without a clock of their own jump by years
        self._restarted = False  # this process began so

    def perform(self, job: Job) -> None:
        """Keep the request on disk and end this process. RequestError: it restarted just now."""
        uptime_s = time.monotonic() - self._began
        if self._restarted and uptime_s < PAUSE_S:
            reason = f"restarted {uptime_s:.0f} s ago; the next time after {PAUSE_S:.0f} s"
            raise RequestError(job.request.id, reason)
        job.running()
        self._run(partial(self._keep, job))

    def kept(self) -> Ticket | None:
        """The request that led to this process, once; None: there was none, or it is damaged.
        Reads a file, so before the loop runs."""
        try:
            kept = files.read(self._file, MAX_TICKET_BYTES)
        except StoreError as error:
            log.warning("%s", error)
            kept = b""
        if kept is None:
            return None
        self._restarted = True
        files.remove(self._file)
        return _ticket(kept)

    def _keep(self, job: Job) -> None:
        """On the other thread: the next process answers the request."""
        ticket = job.ticket
        correlation = None if ticket.correlation is None else ticket.correlation.hex()
        document = {**ticket._asdict(), "correlation": correlation}
        try:
            files.make_folder(self._file.parent)
            files.write(self._file, json.dumps(document).encode())
        except StoreError as error:
            self._loop.call_soon(partial(job.failed, str(error)))
            return
        self._loop.call_soon(self._begin_anew)

    def _begin_anew(self) -> None:
        log.info("restarting, as the fleet asks")
        self.due = True
        self._end()


def _ticket(kept: bytes) -> Ticket | None:
    """None for a file that a crash or somebody else left behind."""
    try:
        found = json.loads(kept)
        correlation = found["correlation"]
        return Ticket(
            str(found["id"]),
            str(found["verb"]),
            str(found["topic"]),
            None if correlation is None else binascii.unhexlify(correlation),
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
