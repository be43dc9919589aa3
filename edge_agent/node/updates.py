"""Deployments in the agent: the thread that applies them, and their plan as the host's releases.

    link ─► worker (checks, fetches, stores) ─plan─► the loop ─► supervisor
    supervisor ─verdict─► worker (keeps or rejects) ─plan─► ...

No other thread waits for the `Worker`. Its thread makes the Updater, so what that imports is loaded
while everything else is starting. Its inbox is bounded: of documents the latest of each kind waits,
of parts twice what was asked for; a part that finds no room is asked for again by and by.

Imported only where updates are configured.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent import process
from edge_agent.config import AgentConfig, UpdatesConfig
from edge_agent.errors import RequestError
from edge_agent.fleet_protocol.requests import Request, Sealed
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf, fleet_topics
from edge_agent.loop import Loop
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

if TYPE_CHECKING:
    from edge_agent.fleet.plan import Plan
    from edge_agent.fleet.request_verifier import RequestVerifier
    from edge_agent.fleet.transfer.parts import BrokerPort
    from edge_agent.fleet.updater import Updater
    from edge_agent.fleet_protocol.signed_requests import Addressed
    from edge_agent.store.release import Machine

log = logging.getLogger(__name__)

# Of what others ask for, that the worker may not have come to yet: it may wait for a disk.
MAX_ASKED = 16
# Twice the window of edge_agent.fleet.transfer.parts: 1 MiB.
MAX_PARTS = 16
# JSON, signatures and the disk fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024
# After an error of ours, which is not to become a loop without a rest.
ERROR_PAUSE_S = 60.0
STOP_TIMEOUT_S = 1.0
# Of the state folder: the OCI image layout, with the catalogue beside its files.
STORE, CATALOGUE = "store", "catalogue.json"
ASKED_FILE = "requests.json"  # of the state folder: which signed requests came

Planned = Callable[[Mapping[PluginId, Release], frozenset[Digest]], None]
"""(what is to run, by identity; digests that may have to run again), on the loop."""

T = TypeVar("T")


class Updates:
    """`broker` is None where there is none to ask: what is on the disk runs all the same."""

    def __init__(
        self,
        loop: Loop,
        config: AgentConfig,
        broker: "BrokerPort | None",
        planned: Planned,
        begun: Callable[[], None],
        changed: Callable[[], None],
        machine: "Machine | None" = None,
    ) -> None:
        """`begun` is called on the loop once what the disk says was planned, or could not be.

        `machine`: that machine code of the fleet's must be made for; None: none is taken.
        """
        assert config.updates is not None
        self._loop = loop
        self._config = config
        self._settings: UpdatesConfig = config.updates
        self._machine = machine
        self._broker = broker or _NoBroker()
        self._planned = planned
        self._changed = changed
        self._topics = fleet_topics(config.fleet)
        self._worker = Worker(self._make, lambda: loop.call_soon(begun))
        self._request_verifier: RequestVerifier | None = None
        self._asked: set[object] = set()  # the loop's thread adds, the worker's takes away

    def start(self) -> None:
        """Begin with what the disk says."""
        self._worker.start()

    def stop(self) -> None:
        """End; what is under way goes on with the next start."""
        self._worker.stop()

    def received(self, what: DocumentOf | PartOf, payload: bytes) -> None:
        """A message of the broker's; any thread."""
        self._worker.received(what, payload)

    def verdict(self, release: Release, kept: bool, reason: str) -> None:
        """Take the host's verdict on a release of the plan."""
        if kept or release.probation is not None:
            self._worker.call(lambda updater: _judge(updater, release, kept, reason))
        else:  # it had proven itself, and ended the agent twice
            self._worker.call(lambda updater: updater.quarantine(release.digest, reason))

    def sync(self) -> bool:
        """Look at everything that the broker holds once more. False: too much else waits."""
        return self._ask("sync", lambda updater: updater.sync())

    def unquarantine(self, identity: PluginId, done: Callable[[int | None], None]) -> bool:
        """Hold nothing against this plugin's modules any more; `done` gets how many that concerned
        (None: a defect), on the worker's thread. False as above; `done` is not called then."""
        if len(self._asked) >= MAX_ASKED:
            return False
        asked = object()
        self._asked.add(asked)

        def work(updater: "Updater") -> int | None:
            self._asked.discard(asked)
            try:
                return updater.unquarantine(identity)
            except Exception:
                log.exception("what is held against %s could not be lifted", identity)
                return None

        self._worker.call(work, done)
        return True

    def verify_request(
        self, verb: str, sealed: Sealed, done: Callable[[Request | RequestError], None]
    ) -> None:
        """Check that a signed request of this verb is for this node and comes for the first time.

        Any thread; `done` is called on the worker's.
        """

        def check(updater: "Updater") -> Request | RequestError:
            try:
                return self._verifier(updater).request(sealed, self._addressed(verb))
            except RequestError as error:
                return error
            except Exception as error:
                log.exception("a signed request could not be checked")
                return RequestError(sealed.id, f"signature: the agent failed: {error!r}")

        self._worker.call(check, done)

    def status(self) -> dict[str, Any]:
        """For the reported state (docs/fleet-protocol.md)."""
        return self._worker.status()

    def _ask(self, what: str, work: Callable[["Updater"], object]) -> bool:
        """Have `work` done once, however often it is asked for until then."""
        if what in self._asked:
            return True
        if len(self._asked) >= MAX_ASKED:
            return False
        self._asked.add(what)

        def carry_out(updater: "Updater") -> None:
            self._asked.discard(what)
            work(updater)

        self._worker.call(carry_out)
        return True

    def _make(self, wake: Callable[[], None]) -> "Updater":
        """On the worker's thread: what this imports need not delay the start."""
        from edge_agent.fleet.plan import Node
        from edge_agent.fleet.updater import Updater
        from edge_agent.store.layout import Layout

        config = self._config
        folder = config.state_dir / STORE
        return Updater(
            node=Node(
                *(config.node, config.fleet, config.labels, config.limits, config.report),
                machine=self._machine,
            ),
            config=self._settings,
            layout=Layout(folder),
            catalogue_path=folder / CATALOGUE,
            topics=self._topics,
            broker=self._broker,
            activate=self._activate,
            changed=lambda: self._loop.call_soon(self._changed),
            wake=wake,
            clock=time.time,
            monotonic=time.monotonic,
        )

    def _verifier(self, updater: "Updater") -> "RequestVerifier":
        """On the worker's thread, when the first signed request comes."""
        if self._request_verifier is None:
            from edge_agent.fleet.request_verifier import RequestVerifier

            file = self._config.state_dir / ASKED_FILE
            self._request_verifier = RequestVerifier(file, updater.trust_in_force)
        return self._request_verifier

    def _addressed(self, verb: str) -> "Addressed":
        from edge_agent.fleet_protocol.signed_requests import Addressed

        return Addressed(self._config.fleet, self._config.node, verb)

    def _activate(self, plan: "Plan") -> None:
        """On the worker's thread."""
        releases = {release.identity: release for release in plan.releases}
        self._loop.call_soon(partial(self._planned, releases, plan.kept))


def _judge(updater: "Updater", release: Release, kept: bool, reason: str) -> None:
    """On the worker's thread."""
    updater.verdict(release.identity, release.digest, kept, reason, release.setup)


class _NoBroker:
    """No broker."""

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        """Nothing comes."""

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Nothing came."""


class Worker:
    """Owns the thread and the Updater on it. Any thread may call any method."""

    def __init__(
        self,
        make: Callable[[Callable[[], None]], "Updater"],
        attempted: Callable[[], None] = lambda: None,
    ) -> None:
        """`make` is called on the thread, with the Updater's `wake`; `attempted` once it has
        begun, or has failed to for the first time."""
        self._make = make
        self._attempted: Callable[[], None] | None = attempted
        self._change = threading.Condition()
        self._documents: dict[DocumentOf, bytes] = {}  # the latest of each kind
        self._parts: deque[tuple[PartOf, bytes]] = deque()
        self._calls: deque[Callable[[Updater], None]] = deque()
        self._woken = self._stopping = False
        self._updater: Updater | None = None
        self._thread: threading.Thread | None = None
        self.dropped = 0  # parts that found no room

    def start(self) -> None:
        """Begin, once."""
        self._thread = process.start(self._run, name="fleet", stack_bytes=STACK_BYTES)

    def received(self, what: DocumentOf | PartOf, payload: bytes) -> None:
        """A message came from the broker; returns at once."""
        with self._change:
            if isinstance(what, DocumentOf):
                self._documents[what] = payload
            elif len(self._parts) == MAX_PARTS:
                self.dropped += 1
                return
            else:
                self._parts.append((what, payload))
            self._change.notify()

    def call(self, work: Callable[["Updater"], T], done: Callable[[T], None] | None = None) -> None:
        """Have `work` done, and `done` called with what it gives; both on the thread."""

        def both(updater: "Updater") -> None:
            result = work(updater)
            if done is not None:
                done(result)

        with self._change:
            self._calls.append(both)
            self._change.notify()

    def wake(self) -> None:
        """There is something to do."""
        with self._change:
            self._woken = True
            self._change.notify()

    def status(self) -> dict[str, Any]:
        """`Updater.status`; empty before the updater has begun."""
        updater = self._updater
        return updater.status() if updater is not None else {}

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End soon; what is under way goes on with the next start."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        due = -math.inf
        while not self._stopping:
            try:
                due = self._turn(due)
            except Exception:  # a defect here must not end what runs
                log.exception("the fleet's part failed; it goes on in a minute")
                self._rest()
                due = -math.inf
        if self._updater is not None:
            self._updater.stop()

    def _begin(self) -> "Updater":
        try:
            updater = self._make(self.wake)
            updater.start()
        finally:
            attempted, self._attempted = self._attempted, None
            if attempted is not None:
                attempted()
        return updater

    def _rest(self) -> None:
        """Whatever comes meanwhile: what made it fail may come without end."""
        with self._change:
            self._change.wait_for(lambda: self._stopping, ERROR_PAUSE_S)

    def _turn(self, due: float) -> float:
        """Wait until something is to be done, and do it; when to come back."""
        updater = self._updater
        if updater is None:
            updater = self._updater = self._begin()
        messages, calls = self._wait(due)
        for work in calls:
            try:
                work(updater)
            except Exception:  # the others may be verdicts, which come once
                log.exception("the fleet's part could not do what it was asked for")
        for what, payload in messages:
            updater.received(what, payload)
        return updater.step(time.monotonic())

    def _wait(
        self, due: float
    ) -> tuple[list[tuple[DocumentOf | PartOf, bytes]], list[Callable[["Updater"], None]]]:
        with self._change:
            self._change.wait_for(self._anything, _timeout(due - time.monotonic()))
            messages: list[tuple[DocumentOf | PartOf, bytes]] = [*self._documents.items()]
            messages += self._parts
            calls = list(self._calls)
            self._documents.clear()
            self._parts.clear()
            self._calls.clear()
            self._woken = False
            return messages, calls

    def _anything(self) -> bool:
        waiting = self._documents or self._parts or self._calls
        return bool(waiting) or self._woken or self._stopping


def _timeout(seconds: float) -> float | None:
    # More than a day overflows on some platforms, and is no matter.
    return None if seconds == math.inf else min(max(seconds, 0.0), 86_400.0)
