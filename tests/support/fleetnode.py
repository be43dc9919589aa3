"""An operator and a node of a fleet, the real ones but for the broker between them and the host."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from edge_agent.config import UpdatesConfig
from edge_agent.config.units import Validity
from edge_agent.fleet.plan import Node, Plan
from edge_agent.fleet.updater import Updater
from edge_agent.fleet_protocol import deployment, envelope, keys, trust
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.fleet_protocol.keys import Signer, SigningKey
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf, Router, fleet_topics, node_topics
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.layout import Layout
from edge_agent.store.release import Machine, PluginId
from tests.support.blobs import Cut, cut
from tests.support.shelf import Shelf

FLEET = "greenhouse"
TOPICS = fleet_topics(FLEET)
ROUTER = Router(TOPICS, node_topics(FLEET, "board"))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
# Fixed, so that a failing test fails again.
KEYS = tuple(SigningKey(bytes([number]) * 32) for number in range(1, 6))
FOREVER = 1e9


class Retains(Protocol):
    """A broker, or a connection to one."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Retain a message."""


class Operator:
    """Publishes to `shelf` as `edge-agent fleet` does."""

    def __init__(self, shelf: Retains, signers: Iterable[SigningKey] = KEYS[:1]) -> None:
        self.shelf = shelf
        self.signers: list[Signer] = list(signers)
        self.generation = 0

    def upload(self, it: Cut) -> None:
        """Retain the parts of a blob."""
        for number, part in enumerate(it.parts):
            self.shelf.publish(TOPICS.blob_part(it.blob.digest, number), part)

    def deploy(self, *plugins: Mapping[str, Any], **head: Any) -> bytes:
        """Sign and retain the next generation; the message."""
        self.generation = head.pop("generation", self.generation + 1)
        raw = envelope.seal(
            deployment.PAYLOAD_TYPE,
            deployment.to_payload(self.document(*plugins, **head)),
            self.signers,
        )
        self.shelf.publish(TOPICS.deployment, raw)
        return raw

    def document(self, *plugins: Mapping[str, Any], **head: Any) -> dict[str, Any]:
        """The values of a deployment."""
        return {
            "kind": deployment.KIND,
            "fleet": FLEET,
            "generation": self.generation,
            "issued": "2026-11-24T11:00:00Z",
            "expires": "2026-12-24T11:00:00Z",
            "plugins": list(plugins),
            **head,
        }

    def rotate(self, *to: TrustSet) -> None:
        """Retain the chain of trust sets `to`, each signed by the keys before it and by its own."""
        links, before = [], list(self.signers)
        for following in to:
            new: list[Signer] = [key for key in KEYS if key.public in following.keys]
            signers = list(dict.fromkeys([*before, *new]))
            links.append(envelope.seal(trust.PAYLOAD_TYPE, trust.to_payload(following), signers))
            before = new
        self.signers = before
        self.shelf.publish(TOPICS.trust, trust.chain(links))


def trust_set(
    *signers: Signer, version: int, threshold: int = 1, validity: Validity | None = None
) -> TrustSet:
    return TrustSet(FLEET, version, threshold, tuple(key.public for key in signers), validity)


def plugin(name: str, *releases: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An entry of a deployment."""
    return {"name": name, "index": "10", "releases": list(releases), **more}


def release(version: str, blob: Blob | Cut, *sources: str, **more: Any) -> dict[str, Any]:
    """A release of an entry."""
    blob = blob.blob if isinstance(blob, Cut) else blob
    values: dict[str, Any] = {"digest": blob.digest, "size": blob.size, "encoding": blob.encoding}
    if blob.parts:
        values |= {"parts": blob.parts, "part_size": blob.part_size}
    return {"version": version, "blob": values, "sources": list(sources or ("mqtt",)), **more}


def wasm(number: int, size: int = 3000) -> Cut:
    """One of as many different modules as needed; 3 or more parts of 1 KiB."""
    from tests.support.blobs import module

    return cut(module(size, seed=number))


class Board:
    """One node with its disk in `folder`; made again in the same folder it has been restarted."""

    def __init__(
        self,
        folder: Path,
        shelf: Shelf,
        *,
        name: str = "board",
        labels: Mapping[str, str] | None = None,
        trusted: Iterable[SigningKey] = KEYS[:1],
        clock: float = NOW,
        machine: Machine | None = None,
        **config: Any,
    ) -> None:
        self.shelf = shelf
        self.folder = folder
        self.now = 0.0
        self.clock = clock
        self.plans: list[Plan] = []
        self.changed: Callable[[], None] = lambda: None
        self.layout = Layout(folder / "store")
        trust_dir = folder / "trust"
        if not trust_dir.exists():
            trust_dir.mkdir(parents=True)
            for number, key in enumerate(trusted):
                (trust_dir / f"{number}.pem").write_text(keys.public_pem(key.public))
        self.updater = Updater(
            node=Node(name, FLEET, labels or {}, machine=machine),
            config=UpdatesConfig(trust_dir=trust_dir, **config),
            layout=self.layout,
            catalogue_path=folder / "store" / "catalogue.json",
            topics=TOPICS,
            broker=shelf,
            activate=self.plans.append,
            changed=lambda: self.changed(),
            wake=lambda: None,
            clock=lambda: self.clock,
            monotonic=lambda: self.now,
        )

    def start(self) -> "Board":
        """Begin and go on as long as no time has to pass."""
        self.updater.start()
        self.turn()
        return self

    def turn(self) -> float:
        """Whatever can happen without time passing; when something is due."""
        while True:
            due = self.updater.step(self.now)
            if not self.shelf.delivered:
                if due > self.now:
                    return due
                continue
            self.receive(*self.shelf.delivered.popleft())

    def receive(self, topic: str, payload: bytes) -> None:
        """A message, as the agent hands it on."""
        what = ROUTER.route(topic)
        if isinstance(what, DocumentOf | PartOf):
            self.updater.received(what, payload)

    def wait(self, seconds: float) -> None:
        """Let time pass, with everything in it that is due."""
        end = self.now + seconds
        while (due := self.turn()) <= end:
            self.now = due
        self.now = end
        self.turn()

    def running(self) -> dict[str, str]:
        """What the host was last told to run: versions by identity."""
        releases = self.plans[-1].releases if self.plans else ()
        return {each.identity: each.version for each in releases if not each.unusable}

    def unusable(self) -> dict[str, str]:
        """Why plugins that served here cannot run any more, by identity."""
        releases = self.plans[-1].releases if self.plans else ()
        return {each.identity: each.unusable for each in releases if each.unusable}

    def keep(self, identity: str) -> None:
        """The host's good word on what runs."""
        self._judge(identity, True, "20 events in 60 s")

    def reject(self, identity: str, reason: str = "trap") -> None:
        """The host's bad word on what runs."""
        self._judge(identity, False, reason)

    def status(self) -> dict[str, Any]:
        return self.updater.status()

    def _judge(self, identity: str, kept: bool, reason: str) -> None:
        digest = next(each.digest for each in self.plans[-1].releases if each.identity == identity)
        self.updater.verdict(PluginId(identity), digest, kept, reason)
        self.turn()
