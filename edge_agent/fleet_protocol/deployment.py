"""The deployment: the one signed document that says what a fleet's nodes run, and what each runs.

Pure. Its form (edge_agent.fleet_protocol.form), and the order in which a node checks it, are
published in docs/fleet-protocol.md. Unknown fields are ignored, except where ignoring one would
widen what a plugin may do or where it runs: inside `select`, `rollout` and `limits`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_agent import RELEASED, strictjson
from edge_agent.config.document import Document
from edge_agent.config.model import Limits, Report
from edge_agent.config.table import Table
from edge_agent.errors import ConfigError, EdgeAgentError, RefusedError
from edge_agent.fleet_protocol import envelope, form
from edge_agent.fleet_protocol.form import Blob as Blob
from edge_agent.fleet_protocol.form import CodeOffer as CodeOffer
from edge_agent.fleet_protocol.form import Encoding as Encoding
from edge_agent.fleet_protocol.form import Offer as Offer
from edge_agent.fleet_protocol.form import PluginEntry as PluginEntry
from edge_agent.fleet_protocol.form import Rollout as Rollout
from edge_agent.fleet_protocol.form import max_encoded_bytes as max_encoded_bytes
from edge_agent.fleet_protocol.trust import TrustSet, check_head
from edge_agent.store.catalogue import Known as Known
from edge_agent.store.digest import sha256_hex
from edge_agent.store.release import PluginId, Release

KIND = "edge-agent.deployment"
# The second form: what agents up to 0.1.0 would read as something else (docs/adr/0041).
KIND_2 = "edge-agent.deployment/2"
KIND_3 = "edge-agent.deployment/3"  # what agents up to that form would (docs/adr/0057)
KIND_4 = "edge-agent.deployment/4"  # the same again (docs/adr/0060)
_FORMS = {KIND: 1, KIND_2: 2, KIND_3: 3, KIND_4: 4}
MAX_FORM = 4
PAYLOAD_TYPE = "application/vnd.edge-agent.deployment+json"
# How far above the last one accepted (0 in a new epoch) a generation may be: a number for each
# second of 136 years, so a board follows however long it was away, and one document cannot use
# up the numbers (docs/adr/0040).
MAX_GENERATION_STEP = 1 << 32

# Reasons of refusals that come before the check of signatures.
_UNSIGNED = ("oversized", "envelope", "signature", "algorithm")

_MESSAGE_NAME_DIGITS = 16

_DEFAULTS = Limits()


@dataclass(frozen=True)
class Deployment:
    """A checked document. Times are seconds since 1970; `payload` is what was signed."""

    fleet: str
    generation: int
    issued: float
    expires: float
    plugins: tuple[PluginEntry, ...]
    payload: bytes
    epoch: int = 0
    form: int = 1

    @property
    def order(self) -> tuple[int, int]:
        """Epoch and generation: a later document has a higher one."""
        return self.epoch, self.generation

    @property
    def known(self) -> Known:
        """What a node that accepted the document has to remember for good."""
        return Known(self.generation, sha256_hex(self.payload), self.issued, self.epoch)


def accept(
    raw: bytes,
    *,
    fleet: str,
    trust: TrustSet,
    known: Known,
    clock: float,
    defaults: Limits = _DEFAULTS,
    report: Report = "all",
) -> Deployment | None:
    """The deployment in a message; None: it is the one that is known already.

    RefusedError with the reason of the first check that failed, in the protocol's order.
    CryptoError: signatures cannot be checked here. `clock` is the system's, in seconds since
    1970; `defaults` and `report` are this node's, for what a plugin's entry leaves open.
    """
    payload = envelope.open_sealed(raw, PAYLOAD_TYPE, trust.keys, trust.threshold)
    values = _object(payload)
    _check_head(values, fleet)
    head = Document(Path("deployment"), "", values)
    epoch, generation = form.read_epoch(Table(head)), form.read_generation(Table(head))
    _check(head)
    if sha256_hex(payload) == known.payload_sha256:
        return None
    _check_order(epoch, generation, known, trust)
    _, expires = form.read_times(Table(head))
    _check(head)
    now = best_time(clock, known, trust)
    trust.check_in_force(now)
    if now >= expires:
        raise RefusedError("expired", f"it expired at {values['expires']}")
    return _read(payload, values, defaults, report)


def parse(
    payload: bytes, *, fleet: str, defaults: Limits = _DEFAULTS, report: Report = "all"
) -> Deployment:
    """A document that was accepted before, or that is to be signed. RefusedError."""
    values = _object(payload)
    _check_head(values, fleet)
    return _read(payload, values, defaults, report)


def kind_of(plugins: Iterable[Mapping[str, Any]]) -> str:
    """The kind that a document with these entries needs."""
    needed = [KIND]
    for plugin in plugins:
        for release in plugin.get("releases", ()):
            rollout = release.get("rollout", {})
            said = plugin.keys() | release.keys()
            if form.INSTANCE in said:
                needed.append(KIND_4)
            if form.MODE in said:
                needed.append(KIND_3)
            if {*form.SETTINGS, "config"} & release.keys() or {"nodes", "rings"} & rollout.keys():
                needed.append(KIND_2)
    return max(needed, key=_FORMS.__getitem__)


def to_payload(values: Mapping[str, object]) -> bytes:
    """The bytes to sign, of a document that is given as JSON's values. RefusedError: its form.

    What an entry leaves open stays open, for each node's own defaults.
    """
    payload = strictjson.dumps(values)
    parse(payload, fleet=str(values.get("fleet")))
    return payload


def said_generation(raw: bytes, refused: EdgeAgentError) -> int | None:
    """The generation of a refused message; None where no trusted key signed it."""
    if getattr(refused, "reason", "signature") in _UNSIGNED:
        return None
    try:
        value = strictjson.loads(envelope.read(raw).payload)
    except (RefusedError, ValueError):
        return None
    generation = value.get("generation") if isinstance(value, dict) else None
    return generation if type(generation) is int else None


def best_time(clock: float, known: Known, trust: TrustSet | None = None) -> float:
    """The latest time that is known to have passed, for boards whose clock starts in 1970."""
    released = datetime.fromisoformat(f"{RELEASED}T00:00:00+00:00").timestamp()
    rotated = trust.validity.issued if trust is not None and trust.validity is not None else 0.0
    return max(clock, known.issued, rotated, released)


def _check_head(values: dict[str, object], fleet: str) -> None:
    kind = values.get("kind")
    check_head(values, kind if isinstance(kind, str) and kind in _FORMS else KIND, fleet)


def _object(payload: bytes) -> dict[str, object]:
    try:
        value = strictjson.loads(payload, null=False)
    except ValueError as error:
        raise RefusedError("malformed", f"deployment: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError("malformed", "deployment: not a JSON object")
    return value


def _check_order(epoch: int, generation: int, known: Known, trust: TrustSet) -> None:
    """RefusedError unless a document may follow the one that is known."""
    told = _ordinal(epoch, generation)
    before = _ordinal(known.epoch, known.generation)
    if (epoch, generation) < known.order:
        raise RefusedError("rollback", f"{told} is older than {before}, accepted before")
    if (epoch, generation) == known.order:
        raise RefusedError("conflict", f"another document of {told} was accepted before")
    if epoch > trust.version:
        raise RefusedError(
            "gap", f"epoch {epoch} begins with a trust set that is not known here ({trust.version})"
        )
    base = known.generation if epoch == known.epoch else 0
    if generation > base + MAX_GENERATION_STEP:
        raise RefusedError(
            "jump", f"{told} is more than {MAX_GENERATION_STEP} above {base}, the last one here"
        )


def _ordinal(epoch: int, generation: int) -> str:
    return f"generation {generation}" + (f" of epoch {epoch}" if epoch else "")


def _read(
    payload: bytes, values: dict[str, object], defaults: Limits, report: Report
) -> Deployment:
    document = Document(Path("deployment"), "", values)
    table = Table(document)
    issued, expires = form.read_times(table)
    which = _FORMS[str(values["kind"])]
    deployment = Deployment(
        fleet=str(values["fleet"]),
        generation=form.read_generation(table),
        issued=issued,
        expires=expires,
        plugins=form.read_plugins(table, defaults, report, which),
        payload=payload,
        epoch=form.read_epoch(table),
        form=which,
    )
    _check(document)
    return deployment


def _check(document: Document) -> None:
    try:
        document.check()
    except ConfigError as error:
        raise RefusedError("malformed", str(error)) from None


def message_name(raw: bytes) -> str:
    """The first digits of its SHA-256: which message of the broker is meant, in a state."""
    return sha256_hex(raw)[:_MESSAGE_NAME_DIGITS]


def matches(entry: PluginEntry, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels has all that the entry selects."""
    return _has(labels, entry.select)


def place(seed: str, node: str) -> int:
    """A node's place in a rollout, 0 to 99, the same everywhere and for ever.

    SHA-256 over the seed, a zero byte and the node's name, both in UTF-8; its first 8 bytes,
    read as an unsigned big-endian number; the remainder by 100.
    """
    return int(sha256_hex(f"{seed}\0{node}".encode())[:16], 16) % 100


def chosen(rollout: Rollout | None, node: str, labels: Mapping[str, str] = {}) -> bool:
    """Whether a release is for this node: named, in a ring, or by its place.

    A higher percentage, another ring and more names only add nodes.
    """
    if rollout is None or node in rollout.nodes or place(rollout.seed, node) < rollout.percent:
        return True
    return any(_has(labels, ring) for ring in rollout.rings)


def wanted(
    deployment: Deployment,
    node: str,
    labels: Mapping[str, str],
    rejected: Collection[str] = (),
) -> dict[PluginId, Offer]:
    """By identity (NN-name): the first release that is for this node and not rejected by it.

    `rejected` holds digests ("sha256:HEX") and setups (`Release.setup`). A plugin
    without such a release is left out.
    """
    found: dict[PluginId, Offer] = {}
    for entry in deployment.plugins:
        if not matches(entry, labels):
            continue
        for offer in entry.offers:
            if chosen(offer.rollout, node, labels) and not _held(offer.release, rejected):
                found[entry.identity] = offer
                break
    return found


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _held(release: Release, rejected: Collection[str]) -> bool:
    # A setup costs a digest: too much for each of thousands of nodes, and most reject nothing.
    return bool(rejected) and (release.digest in rejected or release.setup in rejected)
