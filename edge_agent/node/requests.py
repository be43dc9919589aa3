"""The fleet's requests, taken in on the link's thread and carried out on the loop's.

    link ─► Requests.received ─► (fleet's thread: signature) ─► (loop) action ─► answers ─► link

An action is quick, or hands its work to a thread of its own and answers later. A restart of the
agent is done once in a while, and answered by the next process.
"""

import binascii
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.config import RequestsConfig
from edge_agent.errors import EdgeAgentError, RepeatedError, RequestError, StoreError
from edge_agent.fleet_protocol import requests as protocol
from edge_agent.fleet_protocol.requests import MAX_OPEN, Ledger, Request, Sealed, State
from edge_agent.loop import Loop
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.pacing import TokenBucket
from edge_agent.store import files

log = logging.getLogger(__name__)


# Ours: more than a person asks at once, then one in so many seconds. Each costs lines of the log,
# answers, and what it asks for, and only the broker knows the sender.
REQUEST_BURST, REQUEST_S = 16, 5.0
# Between two lines about requests that were too many.
TELL_S = 600.0

# (topic, payload, correlation data): at once, from any thread.
Publish = Callable[[str, bytes, bytes | None], object]
Seal = Callable[[bytes], bytes]  # a JSON object in bytes; signed, or as it is


class Ticket(NamedTuple):
    """The address of the answers to a request; it can be kept on disk."""

    id: str
    verb: str
    topic: str
    correlation: bytes | None


class Job:
    """One request on its way; answers from any thread, the last of them once."""

    def __init__(
        self,
        request: Request,
        ticket: Ticket,
        publish: Publish,
        finished: Callable[[Request], None],
    ) -> None:
        self.request = request
        self.ticket = ticket
        self._publish = publish
        self._finished: Callable[[Request], None] | None = finished

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.request.arguments

    def running(self) -> None:
        """Tell that the request is being carried out."""
        self._answer("running")

    def succeeded(self, result: Mapping[str, object] | None = None, seal: Seal = bytes) -> None:
        """Tell that the request is done; `seal` may sign the answer."""
        self._end("succeeded", seal, result=result)

    def failed(self, reason: str) -> None:
        """Tell that the request could not be done, and why."""
        log.warning("the fleet's request %s failed: %s", self.request.verb, reason)
        self._end("failed", reason=reason)

    def _end(self, state: State, seal: Seal = bytes, **more: Any) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(self.request)
            self._answer(state, seal, **more)

    def _answer(self, state: State, seal: Seal = bytes, **more: Any) -> None:
        answer(self._publish, self.ticket, state, seal, **more)


def answer(publish: Publish, ticket: Ticket, state: State, seal: Seal = bytes, **more: Any) -> None:
    """Say what became of a request; `more` as in edge_agent.fleet_protocol.requests.answer."""
    payload = seal(protocol.answer(ticket.id, ticket.verb, state, **more))
    publish(ticket.topic, payload, ticket.correlation)


Action = Callable[[Job], None]
"""Ends its job, now or later. EdgeAgentError: it fails, with that reason."""


Checked = Callable[[Request | RequestError], None]
Verify = Callable[[str, Sealed, Checked], None]
"""Check a signed request of this verb, elsewhere, and say what it is; any thread."""


class Requests:
    """`actions` by verb; `usual(verb)` is the topic of answers unless the request names one.

    `verify` is None where no key is trusted.
    """

    verify: Verify | None = None

    def __init__(
        self,
        loop: Loop,
        usual: Callable[[str], str],
        publish: Publish,
        actions: Mapping[str, Action],
        config: RequestsConfig,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._usual = usual
        self._publish = publish
        self._actions = actions
        self._config = config
        self._monotonic = monotonic
        self._ledger = Ledger()  # one thread enters at a time, any thread leaves
        self._checking = 0  # signatures that the fleet's thread has not come to yet
        self._lock = threading.Lock()
        self._allowed = TokenBucket(REQUEST_BURST, 1 / REQUEST_S)
        self._telling = TokenBucket(1, 1 / TELL_S)

    def carried_out(self, ticket: Ticket) -> None:
        """An earlier process carried this request out; before the first request comes in."""
        self._ledger.remember(ticket.verb, ticket.id)

    def received(self, verb: str, incoming: InboundMessage) -> None:
        """Take a request in, or pass it over if there are too many. On the link's thread;
        returns at once."""
        if not self._in_time():
            return
        topic = incoming.response_topic or self._usual(verb)
        ticket = Ticket("", verb, topic, incoming.correlation)
        try:
            found = protocol.read(verb, incoming.payload)
            if incoming.retained:
                raise RequestError(found.id, "a request must not be retained")
            if verb not in self._config.allow:
                reason = f"not allowed here: {verb} is not in [requests] allow"
                raise RequestError(found.id, reason)
            if isinstance(found, Sealed) and self.verify is not None:
                self._check(found, ticket, self.verify)
            else:
                self._checked(ticket, self._unsigned(verb, found))
        except RequestError as refusal:
            self._refuse(ticket, refusal)

    def _unsigned(self, verb: str, found: Request | Sealed) -> Request:
        """A request that cannot be checked here. RequestError unless that is allowed."""
        if verb not in self._config.unsigned:
            needs = f"unsigned: {verb} needs the signature of a trusted key"
            if self.verify is None:
                needs = f"{needs}, and none is trusted here ([updates] is missing)"
            raise RequestError(found.id, f"{needs}; or [requests] unsigned allows it")
        if isinstance(found, Request):
            return found
        if found.plain is None:
            raise RequestError(found.id, "it says nothing outside of its envelope")
        return found.plain

    def _check(self, sealed: Sealed, ticket: Ticket, verify: Verify) -> None:
        """Hand a signature over. RequestError: too many wait."""
        with self._lock:
            if self._checking >= MAX_OPEN:
                raise RequestError(sealed.id, "busy with other requests; try again")
            self._checking += 1

        def checked(found: Request | RequestError) -> None:
            with self._lock:
                self._checking -= 1
            self._checked(ticket, found)

        verify(ticket.verb, sealed, checked)

    def _checked(self, ticket: Ticket, found: Request | RequestError) -> None:
        """A request that may be carried out, or why not. Any thread."""
        try:
            if isinstance(found, RepeatedError) and self._ledger.knows(ticket.verb, found.id):
                return
            if isinstance(found, RequestError):
                raise found
            with self._lock:
                new = self._ledger.enter(found)
        except RequestError as refusal:
            self._refuse(ticket, refusal)
            return
        if not new:
            return
        by = ", ".join(keyid[:12] for keyid in found.signers)
        log.info(
            "the fleet asks for %s %s(%s)",
            *(found.verb, f"{dict(found.arguments)} " if found.arguments else ""),
            f"signed by {by}" if by else "unsigned",
        )
        ticket = ticket._replace(id=found.id)
        answer(self._publish, ticket, "accepted")
        job = Job(found, ticket, self._publish, self._ledger.leave)
        self._loop.call_soon(partial(self._carry_out, job))

    def _refuse(self, ticket: Ticket, refusal: RequestError) -> None:
        log.warning("a request of the fleet is refused: %s: %s", ticket.verb, refusal)
        ticket = ticket._replace(id=refusal.id)
        answer(self._publish, ticket, "failed", reason=str(refusal))

    def _in_time(self) -> bool:
        now = self._monotonic()
        if self._allowed.take(now):
            return True
        if self._telling.take(now):
            log.warning(
                "more requests than one in %.0f s are passed over; who sends them?", REQUEST_S
            )
        return False

    def _carry_out(self, job: Job) -> None:
        try:
            self._actions[job.request.verb](job)
        except EdgeAgentError as error:
            job.failed(str(error))
        except Exception as error:
            log.exception("the request %s failed", job.request.verb)
            job.failed(f"the agent failed: {error!r}")


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
