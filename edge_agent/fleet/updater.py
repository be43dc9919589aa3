"""What a node does with its fleet's word, step by step.

    a deployment or a trust set comes -> checked -> remembered on disk, before anything follows
    -> what is lacking is fetched -> only when all is here: the catalogue switches, then the host
    -> the host judges each new release -> kept, or rejected and the one before it runs again
    -> what nobody needs is removed

The catalogue on disk and the documents decide all of it; whenever the process ends, the next
one goes on from there. Nothing here waits for the network; disk and signatures take the time
they take, so this belongs to a thread of its own (edge_agent.fleet.worker), or, in the
benchmark, a thousand of these to one.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.config import UpdatesConfig
from edge_agent.errors import StoreError
from edge_agent.fleet import plan
from edge_agent.fleet.documents import Documents
from edge_agent.fleet.modules import Modules
from edge_agent.fleet.node import Node
from edge_agent.fleet.offers import Offers, here, merged
from edge_agent.fleet.plan import Plan, Target
from edge_agent.fleet.record import DISK_PAUSE_S, Record
from edge_agent.fleet.transfer.courier import Courier
from edge_agent.fleet.transfer.fetch import Means
from edge_agent.fleet.transfer.overmqtt import BrokerPort
from edge_agent.fleet.transfer.queue import Queue, Wish
from edge_agent.fleet.trustkeeper import Standing
from edge_agent.fleet_protocol.deployment import MAX_FORM, Deployment
from edge_agent.fleet_protocol.topics import DEPLOYMENT, TRUST, DocumentOf, FleetTopics, PartOf
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.release import Probation

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import UpdatesState

log = logging.getLogger(__name__)

# Of what is held against modules, in reports: the latest. The catalogue remembers more.
MAX_REPORTED = 16
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
        self._offers = Offers()
        self._documents = Documents(node, config, clock)
        means = Means(broker, topics.blob_part, Courier(), wake, config.registry_auth_file)
        self._queue = Queue(layout.incoming, means)
        self._record: Record | None = None  # None: not started, or not to be read
        self._pending: Deployment | None = None
        self._active: Deployment | None = None
        self._plan: Plan | None = None  # the one that was handed over last
        self._due = math.inf  # what the disk refused is tried again
        self._trouble = ""
        self._status: dict[str, Any] = {}

    # --- from outside

    def start(self) -> None:
        """Run what the disk says and go on with what was under way; needs no broker."""
        try:
            self._record = Record(self._path)
        except StoreError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("no deployment is taken and none is run: %s", error)
            self._due = self._monotonic() + DISK_PAUSE_S
            self._tell()
            return
        self._due = math.inf
        self._trouble = ""
        self._documents.read_trust(self._catalogue)
        self._pending = self._documents.accepted_before(self._catalogue.pending)
        self._active = self._documents.accepted_before(self._catalogue.active)
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
        self, identity: str, digest: Digest, kept: bool, reason: str, setup: str | None = None
    ) -> None:
        """The host's word on a release on probation.

        `setup`: as the catalogue's `setup_key` names the module with its configuration.
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
        """Do not run this module until somebody lifts that; the host may say so again and again."""
        if digest not in self._catalogue.quarantined:
            log.error("%s is quarantined: %s", digest, reason)
            self._note(catalogues.quarantined(self._catalogue, digest, reason))
            self._evaluate()

    def unquarantine(self, identity: str) -> int:
        """Hold nothing against the plugin `identity` any more; how many modules that concerns."""
        held = plan.held_against((self._pending, self._active), self._catalogue, identity)
        for digest in held:
            self._note(catalogues.unquarantined(self._catalogue, digest))
        self._evaluate()
        return len(held)

    def sync(self) -> None:
        """Look at everything again: the disk, the broker's documents, every source."""
        if self._record is None:
            self.start()
            return
        self._documents.read_trust(self._catalogue)
        self._check()
        # What a node can do without gets its one round: asked for often, no round would end.
        codes = {code for each in self._accepted() for code in self._target(each).codes}
        self._queue.again(self._monotonic(), codes)
        self._evaluate()
        self._broker.subscribe([self._topics.deployment, self._topics.trust], anew=True)

    def standing(self) -> Standing:
        """Whose word counts at the moment."""
        if self._record is None:  # a newer set than the files' may be what cannot be read
            return Standing(None, self._trouble or "the disk was not read yet", 0.0)
        return self._documents.standing(self._catalogue)

    def stop(self) -> None:
        """Leave all sources; what came stays on the disk."""
        self._queue.want({}, self._monotonic())

    def status(self) -> dict[str, Any]:
        """For the reported state (docs/fleet-protocol.md); never changed in place."""
        return self._status

    # --- step by step

    def step(self, now: float) -> float:
        """Do what is due; when to come back at the latest. Times are those of `monotonic`."""
        if self._record is None and now >= self._due:
            self.start()
        if self._record is None:
            return self._due
        self._follow_trust(now)
        self._accept(now)
        if now >= min(self._due, self._record.due):
            self._due = math.inf
            self._record.write(now)
            self._evaluate()
        if now >= self._record.retry_at:
            while (found := self._queue.step(now)) and self._store(*found):
                self._evaluate()
            self._give_up()
        self._tell()
        queue_due = max(self._queue.due, self._record.retry_at)
        # What expires is told when it does, though nothing else may come for months.
        expiry = self._documents.until_expiry(self._catalogue, self._active)
        expiry_due = now + min(expiry, EXPIRY_LOOK_S) if expiry != math.inf else math.inf
        return min(self._due, self._record.due, self._documents.due, queue_due, expiry_due)

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
            self._queue.hurry(now)
            return
        new = catalogues.accepted(self._catalogue, found.known, found.payload)
        if self._commit(new):
            log.info("generation %d is accepted", found.generation)
            self._pending = found
            self._offers.clear()
            self._collect()  # what came for one before it may be all the room that there is
            self._evaluate()
        else:
            self._documents.postpone(DEPLOYMENT, self._due)

    def _evaluate(self) -> None:
        """Switch to what is complete, ask for what is lacking, have run what can run."""
        if self._record is None:
            return
        for document in self._accepted():
            target = self._target(document)
            if all(map(self._modules.has, target.supplies)) and not self._awaited(document, target):
                self._switch(document, target)
                break
        self._queue.want(self._wishes(), self._monotonic())
        found = plan.runnable(
            *(self._catalogue, self._modules.has, self._modules.path),
            *(self._terms, self._node.machine),
        )
        if self._plan is None or found.told != self._plan.told:
            self._plan = found
            self._activate(found)
        self._tell()

    def _switch(self, document: Deployment, target: Target) -> None:
        """All that `target` needs is here: from now on it is what runs, if the disk says so."""
        before = self._catalogue
        running = here(target.running, self._modules.has)
        if document is self._pending:
            new = catalogues.activated(before, running)
        else:  # the one that is active already; another may be on its way
            new = catalogues.activated(replace(before, pending=""), running)
            new = replace(new, pending=before.pending)
        if new.rejected:  # of what is gone from the documents nothing is held any more
            left = [document] if document is self._pending else self._accepted()
            new = catalogues.settled(new, plan.named(left))
        if new == before or not self._commit(new):
            return
        if document is self._pending:
            log.info("generation %d is active", document.generation)
            self._active, self._pending = document, None
        self._collect()

    def _store(self, digest: Digest, path: Path) -> bool:
        """A blob came; whether it is in its place."""
        targets = [self._target(document) for document in self._accepted()]
        # What is a module too cannot be done without.
        a_module = any(digest in target.supplies for target in targets)
        if not a_module and any(digest in target.codes for target in targets):
            return self._store_code(digest, path)
        names = {
            (running.name, running.version)
            for target in targets
            for running in target.running
            if running.digest == digest
        }
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
            self._offers.refuse(digest, str(error))
        return True

    def _give_up(self) -> None:
        """Do without the code that no source gave, once there is nothing else to wait for."""
        in_vain = self._queue.in_vain()
        if not in_vain or self._pending is None:
            return
        target = self._target(self._pending)
        if not all(map(self._modules.has, target.supplies)):
            return
        lacking = [each for each in self._awaited(self._pending, target) if each in in_vain]
        for digest in lacking:
            self._offers.refuse(digest, in_vain[digest])
        if lacking:
            self._evaluate()

    def _awaited(self, document: Deployment, target: Target) -> Collection[Digest]:
        """The code that a new deployment waits for; what runs already was made by this node."""
        if document is not self._pending:
            return ()
        return self._offers.lacking(target, self._modules.has)

    def _check(self) -> None:
        trouble = self._modules.check(
            self._catalogue.digests | self._catalogue.codes, self._needed()
        )
        if trouble is not None:
            self._failed(trouble)

    def _collect(self) -> None:
        """Remove what neither runs, nor ran before, nor is on its way."""
        try:
            self._modules.collect(self._needed())
        except StoreError as error:
            self._failed(error)

    # --- what that needs

    @property
    def _catalogue(self) -> Catalogue:
        return self._record.catalogue if self._record is not None else Catalogue()

    def _commit(self, new: Catalogue) -> bool:
        """Nothing may follow from `new` unless the disk has it."""
        assert self._record is not None
        now = self._monotonic()
        done = now >= self._record.retry_at and self._record.commit(new, now)
        if not done:
            self._due = min(self._due, self._record.retry_at)
        return done

    def _note(self, new: Catalogue) -> None:
        """What happened here is so, whether or not the disk has it."""
        if self._record is not None:
            self._record.note(new, self._monotonic())

    def _failed(self, error: StoreError) -> None:
        assert self._record is not None
        self._record.failed(error, self._monotonic())
        self._due = min(self._due, self._record.retry_at)

    def _accepted(self) -> list[Deployment]:
        """The one on its way and the one that runs, as far as there are."""
        return [each for each in (self._pending, self._active) if each is not None]

    def _target(self, document: Deployment) -> Target:
        node = self._node
        return plan.target(document, node.name, node.labels, self._catalogue, node.machine)

    def _needed(self) -> set[Digest]:
        """Digests of what runs, ran before, or is on its way."""
        needed = set(self._catalogue.digests | self._catalogue.codes)
        for document in self._accepted():
            target = self._target(document)
            needed |= target.supplies.keys()
            if document is self._pending:
                needed |= target.codes.keys()
        return needed

    def _wishes(self) -> dict[Digest, Wish]:
        """What the documents need and the disk lacks."""
        wishes: dict[Digest, Wish] = {}
        for document in self._accepted():
            target = self._target(document)
            for digest, supply in target.supplies.items():
                if digest not in wishes and not self._modules.has(digest):
                    wishes[digest] = plan.allowed(supply, self._config)
            for digest in self._awaited(document, target):
                wishes.setdefault(digest, plan.allowed(target.codes[digest], self._config))
        return wishes

    def _tell(self) -> None:
        status: dict[str, Any] = {**self._make_status()}
        if status != self._status:
            self._status = status
            self._changed()

    def _make_status(self) -> "UpdatesState":
        catalogue, pending, active = self._catalogue, self._pending, self._active
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
            "code": self._code_told(),
            "trouble": self._trouble or (self._record.trouble if self._record else ""),
        }

    def _code_told(self) -> dict[str, str]:
        if self._node.machine is None:
            return {}
        targets = map(self._target, self._accepted())
        told = merged(self._offers.told(each, self._modules.has) for each in targets)
        # Reasons first: the rest goes without saying.
        return dict(sorted(told.items(), key=lambda each: not each[1])[:MAX_REPORTED])


def _latest(held: Mapping[str, str]) -> dict[str, str]:
    return dict(list(held.items())[-MAX_REPORTED:])
