"""Deployments in the agent: the worker that applies them, and their plan as the host's releases.

    link ─► worker (checks, fetches, stores) ─plan─► the loop ─► supervisor
    supervisor ─verdict─► worker (keeps or rejects) ─plan─► ...

Imported only where updates are configured.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_agent.config import AgentConfig, UpdatesConfig
from edge_agent.errors import RequestError
from edge_agent.fleet.worker import Worker
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
# Of the state folder: the OCI image layout, with the catalogue beside its files.
STORE, CATALOGUE = "store", "catalogue.json"
ASKED_FILE = "requests.json"  # of the state folder: which signed requests came

Planned = Callable[[Mapping[PluginId, Release], frozenset[Digest]], None]
"""(what is to run, by identity; digests that may have to run again), on the loop."""


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
