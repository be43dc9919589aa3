"""Applies signed deployments on a node: verify, persist, fetch, activate, confirm or roll back.

    a deployment or a trust set comes -> checked -> remembered on disk, before anything follows
    -> what is lacking is fetched -> only when all is here: the catalogue switches, then the host
    -> the host judges each new release -> kept, or rejected and the one before it runs again
    -> what nobody needs is removed

The catalogue on disk and the documents decide all of it; whenever the process ends, the next
one goes on from there. Nothing here waits for the network; disk and signatures take the time
they take, so this belongs to a thread of its own (edge_agent.node.updates), or, in the
benchmark, a thousand of these to one.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.config import UpdatesConfig
from edge_agent.errors import StoreError
from edge_agent.fleet import plan
from edge_agent.fleet.blobs import FetchQueue, Modules
from edge_agent.fleet.documents import Documents, TrustInForce
from edge_agent.fleet.plan import MAX_REPORTED, AcceptedDeployments, Node, Plan, Target
from edge_agent.fleet.transfer.fetch import FetchContext
from edge_agent.fleet.transfer.parts import BrokerPort
from edge_agent.fleet.transfer.web import TransferThread
from edge_agent.fleet_protocol.deployment import MAX_FORM, Deployment
from edge_agent.fleet_protocol.topics import DEPLOYMENT, TRUST, DocumentOf, FleetTopics, PartOf
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.catalogue_store import DISK_PAUSE_S, CatalogueStore
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.release import PluginId, Probation

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import UpdatesState

log = logging.getLogger(__name__)

# While something will expire: a clock may be set meanwhile, by years.
EXPIRY_LOOK_S = 3600.0


class Updater:
    """One node's part in its fleet. One thread, but for `status`, which any may ask."""

    def __init__(
        self,
        *,
        node: Node,
        config: UpdatesConfig,
        layout: Layout,
        catalogue_path: Path,
        topics: FleetTopics,
        broker: BrokerPort,
        activate: Callable[[Plan], None],
        changed: Callable[[], None],
        wake: Callable[[], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`activate` gets everything that is to run; `changed` is called when `status` is new.

        `wake` must have `step` called soon; it is called on other threads too. `clock` counts
        from 1970, as well as this node knows.
        """
        self._node = node
        self._config = config
        self._terms = Probation(
            config.probation_events, config.probation_s, config.allowed_failures
        )
        self._path = catalogue_path
        self._topics = topics
        self._broker = broker
        self._activate = activate
        self._changed = changed
        self._monotonic = monotonic
        self._modules = Modules(layout)
        self._accepted = AcceptedDeployments(node, config, self._modules.has)
        self._documents = Documents(node, config, clock)
        context = FetchContext(
            broker, topics.blob_part, TransferThread(), wake, config.registry_auth_file
        )
        self._queue = FetchQueue(layout.incoming, context)
        self._catalogue_store: CatalogueStore | None = None  # None: not started, or not to be read
        self._plan: Plan | None = None  # the one that was handed over last
        self._due = math.inf  # what the disk refused is tried again
        self._last_error = ""
        self._status: dict[str, Any] = {}

    # --- from outside

    def start(self) -> None:
        """Run what the disk says and go on with what was under way; needs no broker."""
        try:
            self._catalogue_store = CatalogueStore(self._path)
        except StoreError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.error("no deployment is taken and none is run: %s", error)
            self._due = self._monotonic() + DISK_PAUSE_S
            self._tell()
            return
        self._due = math.inf
        self._last_error = ""
        self._documents.read_trust(self._catalogue)
        self._accepted.pending = self._documents.accepted_before(self._catalogue.pending)
        self._accepted.active = self._documents.accepted_before(self._catalogue.active)
        self._check()
        self._evaluate()
        self._broker.subscribe([self._topics.deployment, self._topics.trust])

    def received(self, what: DocumentOf | PartOf, payload: bytes) -> None:
        """A message came from the broker; call `step` afterwards."""
        if isinstance(what, DocumentOf):
            self._documents.put(what.kind, payload)
        else:
            self._queue.take(what.digest, what.number, payload, self._monotonic())

    def verdict(
        self, identity: PluginId, digest: Digest, kept: bool, reason: str, setup: str | None = None
    ) -> None:
        """The host's verdict on a release on probation.

        `setup`: that of the release that was judged; None: it is not known.
        """
        found = self._catalogue.plugins.get(identity)
        if found is None or not found.probation or found.current.digest != digest:
            return  # of a release that another has followed, or that is none of the fleet's
        if setup not in (None, found.current.setup):
            return  # of another configuration
        if kept:
            self._note(catalogues.kept(self._catalogue, identity))
            self._collect()
        else:
            log.warning("%s %s is rejected: %s", identity, found.current.version, reason)
            self._note(catalogues.rejected(self._catalogue, identity, reason))
        self._evaluate()

    def quarantine(self, digest: Digest, reason: str) -> None:
        """Do not run this module until the quarantine is lifted; harmless when repeated."""
        if digest not in self._catalogue.quarantined:
            log.error("%s is quarantined: %s", digest, reason)
            self._note(catalogues.quarantined(self._catalogue, digest, reason))
            self._evaluate()

    def unquarantine(self, identity: PluginId) -> int:
        """Lift every rejection and quarantine of this plugin's modules; how many these were."""
        held = plan.held_against(self._accepted.documents, self._catalogue, identity)
        for digest in held:
            self._note(catalogues.unquarantined(self._catalogue, digest))
        self._evaluate()
        return len(held)

    def sync(self) -> None:
        """Look at everything again: the disk, the broker's documents, every source."""
        if self._catalogue_store is None:
            self.start()
            return
        self._documents.read_trust(self._catalogue)
        self._check()
        # What a node can do without gets its one round: asked for often, no round would end.
        self._queue.again(self._monotonic(), self._accepted.codes(self._catalogue))
        self._evaluate()
        self._broker.subscribe([self._topics.deployment, self._topics.trust], anew=True)

    def trust_in_force(self) -> TrustInForce:
        """The trusted keys at the moment."""
        if self._catalogue_store is None:  # a newer set than the files' may be what cannot be read
            return TrustInForce(None, self._last_error or "the disk was not read yet", 0.0)
        return self._documents.trust_in_force(self._catalogue)

    def stop(self) -> None:
        """Leave all sources; what came stays on the disk."""
        self._queue.want({}, self._monotonic())

    def status(self) -> dict[str, Any]:
        """For the reported state (docs/fleet-protocol.md); never changed in place."""
        return self._status

    # --- step by step

    def step(self, now: float) -> float:
        """Do what is due; when to come back at the latest. Times are those of `monotonic`."""
        if self._catalogue_store is None and now >= self._due:
            self.start()
        if self._catalogue_store is None:
            return self._due
        self._follow_trust(now)
        self._accept(now)
        if now >= min(self._due, self._catalogue_store.due):
            self._due = math.inf
            self._catalogue_store.write(now)
            self._evaluate()
        if now >= self._catalogue_store.retry_at:
            while (found := self._queue.step(now)) and self._store(*found):
                self._evaluate()
            if self._accepted.give_up(self._queue.in_vain(), self._catalogue):
                self._evaluate()
        self._tell()
        queue_due = max(self._queue.due, self._catalogue_store.retry_at)
        # An expiry is reported when it comes, though nothing else may come for months.
        expiry = self._documents.until_expiry(self._catalogue, self._accepted.active)
        expiry_due = now + min(expiry, EXPIRY_LOOK_S) if expiry != math.inf else math.inf
        return min(self._due, self._catalogue_store.due, self._documents.due, queue_due, expiry_due)

    def _follow_trust(self, now: float) -> None:
        new = self._documents.trust(now, self._catalogue)
        if new is None:
            return
        if self._commit(new):
            self._documents.trusted(now, new)
        else:
            self._documents.postpone(TRUST, self._due)

    def _accept(self, now: float) -> None:
        found = self._documents.deployment(now, self._catalogue)
        if found is None:
            return
        if found == "known":  # the broker is back, and sends what is retained
            self._queue.end_pauses(now)
            return
        new = catalogues.accepted(self._catalogue, found.known, found.payload)
        if self._commit(new):
            log.info("generation %d is accepted", found.generation)
            self._accepted.accept(found)
            self._collect()  # what came for one before it may be all the room that there is
            self._evaluate()
        else:
            self._documents.postpone(DEPLOYMENT, self._due)

    def _evaluate(self) -> None:
        """Switch to what is complete, ask for what is lacking, have run what can run."""
        if self._catalogue_store is None:
            return
        for document in self._accepted.documents:
            target = self._accepted.target(document, self._catalogue)
            if self._accepted.complete(document, target):
                self._switch(document, target)
                break
        self._queue.want(self._accepted.lacking(self._catalogue), self._monotonic())
        found = plan.runnable(
            *(self._catalogue, self._modules.has, self._modules.path),
            *(self._terms, self._node.machine),
        )
        if found != self._plan:
            self._plan = found
            self._activate(found)
        self._tell()

    def _switch(self, document: Deployment, target: Target) -> None:
        """Everything that `target` needs is on the disk: make it the active set, on disk first."""
        before = self._catalogue
        releases = self._accepted.with_code(target)
        if document is self._accepted.pending:
            new = catalogues.activated(before, releases)
        else:  # the one that is active already; another may be on its way
            new = catalogues.activated(replace(before, pending=""), releases)
            new = replace(new, pending=before.pending)
        if new.rejected:  # of what is gone from the documents nothing is held any more
            left = [document] if document is self._accepted.pending else self._accepted.documents
            new = catalogues.settled(new, plan.named(left))
        if new == before or not self._commit(new):
            return
        self._accepted.activate(document)
        self._collect()

    def _store(self, digest: Digest, path: Path) -> bool:
        """A blob came; whether it is in its place."""
        if self._accepted.only_code(digest, self._catalogue):
            return self._store_code(digest, path)
        names = self._accepted.names(digest, self._catalogue)
        try:
            self._modules.add(digest, path, names)
        except StoreError as error:
            self._failed(error)
            return False
        return True

    def _store_code(self, digest: Digest, path: Path) -> bool:
        try:
            self._modules.add_code(digest, path)
        except StoreError as error:  # what can be done without does not wait for a disk
            self._accepted.refuse(digest, str(error))
        return True

    def _check(self) -> None:
        problem = self._modules.check(
            self._catalogue.digests | self._catalogue.codes,
            self._accepted.needed(self._catalogue),
        )
        if problem is not None:
            self._failed(problem)

    def _collect(self) -> None:
        """Remove what neither runs, nor ran before, nor is on its way."""
        try:
            self._modules.collect(self._accepted.needed(self._catalogue))
        except StoreError as error:
            self._failed(error)

    # --- what that needs

    @property
    def _catalogue(self) -> Catalogue:
        return self._catalogue_store.catalogue if self._catalogue_store is not None else Catalogue()

    def _commit(self, new: Catalogue) -> bool:
        """Write the catalogue; whether that succeeded. Nothing may follow from `new` before."""
        assert self._catalogue_store is not None
        now = self._monotonic()
        done = now >= self._catalogue_store.retry_at and self._catalogue_store.commit(new, now)
        if not done:
            self._due = min(self._due, self._catalogue_store.retry_at)
        return done

    def _note(self, new: Catalogue) -> None:
        """Use the catalogue, and write it now or later: it tells what has happened already."""
        if self._catalogue_store is not None:
            self._catalogue_store.note(new, self._monotonic())

    def _failed(self, error: StoreError) -> None:
        assert self._catalogue_store is not None
        self._catalogue_store.failed(error, self._monotonic())
        self._due = min(self._due, self._catalogue_store.retry_at)

    def _tell(self) -> None:
        status: dict[str, Any] = {**self._make_status()}
        if status != self._status:
            self._status = status
            self._changed()

    def _make_status(self) -> "UpdatesState":
        catalogue, pending, active = self._catalogue, self._accepted.pending, self._accepted.active
        return {
            "generation": active.generation if active else 0,
            "accepted": catalogue.known.generation,
            "epoch": catalogue.known.epoch,
            "document": catalogue.known.payload_sha256,
            "form": MAX_FORM,
            "pending": pending.generation if pending else None,
            "expires": int(active.expires) if active else None,
            "expired": active is not None and self._documents.expired(active, catalogue),
            "refused": self._documents.refused,
            "trust": self._documents.trust_status(catalogue),
            "fetching": self._queue.status(),
            "rejected": _latest(catalogue.rejected),
            "quarantined": _latest(catalogue.quarantined),
            "compiled": "refuse" if self._node.machine is None else "accept",
            "code": self._accepted.code_status(catalogue),
            "trouble": self._last_error
            or (self._catalogue_store.last_error if self._catalogue_store else ""),
        }


def _latest(held: Mapping[str, str]) -> dict[str, str]:
    return dict(list(held.items())[-MAX_REPORTED:])
