"""The deployment: the one signed document that says what a fleet's nodes run. Pure.

Its form (edge_agent.fleet.form), and the order in which a node checks it, are published in
docs/fleet-protocol.md. Unknown fields are ignored, except where ignoring one would widen what a
plugin may do or where it runs: inside `select`, `rollout` and `limits`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_agent import RELEASED, strictjson
from edge_agent.config.document import Document
from edge_agent.config.model import Limits, Report
from edge_agent.config.table import Table
from edge_agent.errors import ConfigError, EdgeAgentError, RefusedError
from edge_agent.fleet import envelope, form
from edge_agent.fleet.form import Blob as Blob
from edge_agent.fleet.form import Encoding as Encoding
from edge_agent.fleet.form import PluginEntry as PluginEntry
from edge_agent.fleet.form import Release as Release
from edge_agent.fleet.form import Rollout as Rollout
from edge_agent.fleet.form import max_encoded_bytes as max_encoded_bytes
from edge_agent.fleet.trust import TrustSet, check_head
from edge_agent.store.catalogue import Known as Known
from edge_agent.store.digest import sha256_hex

KIND = "edge-agent.deployment"
PAYLOAD_TYPE = "application/vnd.edge-agent.deployment+json"

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

    @property
    def known(self) -> Known:
        """What a node that accepted this must never forget."""
        return Known(self.generation, sha256_hex(self.payload), self.issued)


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
    check_head(values, KIND, fleet)
    head = Document(Path("deployment"), "", values)
    generation = form.read_generation(Table(head))
    _check(head)
    if generation < known.generation:
        raise RefusedError(
            "rollback", f"generation {generation} is older than {known.generation}, accepted before"
        )
    if generation == known.generation:
        if sha256_hex(payload) == known.payload_sha256:
            return None
        raise RefusedError(
            "conflict", f"another document of generation {generation} was accepted before"
        )
    _, expires = form.read_times(Table(head))
    _check(head)
    if best_time(clock, known) >= expires:
        raise RefusedError("expired", f"it expired at {values['expires']}")
    return _read(payload, values, defaults, report)


def parse(
    payload: bytes, *, fleet: str, defaults: Limits = _DEFAULTS, report: Report = "all"
) -> Deployment:
    """A document that was accepted before, or that is to be signed. RefusedError."""
    values = _object(payload)
    check_head(values, KIND, fleet)
    return _read(payload, values, defaults, report)


def to_payload(values: Mapping[str, object]) -> bytes:
    """The bytes to sign, of a document that is given as JSON's values. RefusedError: its form.

    What an entry leaves open stays open, for each node's own defaults.
    """
    payload = strictjson.dumps(values)
    parse(payload, fleet=str(values.get("fleet")))
    return payload


def said_generation(raw: bytes, refused: EdgeAgentError) -> int | None:
    """The generation of a refused message; None where nobody who is trusted signed for it."""
    if getattr(refused, "reason", "signature") in ("oversized", "envelope", "signature"):
        return None
    try:
        value = strictjson.loads(envelope.read(raw).payload)
    except (RefusedError, ValueError):
        return None
    generation = value.get("generation") if isinstance(value, dict) else None
    return generation if type(generation) is int else None


def best_time(clock: float, known: Known) -> float:
    """The latest time that is known to have passed, for boards whose clock starts in 1970."""
    released = datetime.fromisoformat(f"{RELEASED}T00:00:00+00:00").timestamp()
    return max(clock, known.issued, released)


def _object(payload: bytes) -> dict[str, object]:
    try:
        value = strictjson.loads(payload, null=False)
    except ValueError as error:
        raise RefusedError("malformed", f"deployment: {error}") from None
    if not isinstance(value, dict):
        raise RefusedError("malformed", "deployment: not a JSON object")
    return value


def _read(
    payload: bytes, values: dict[str, object], defaults: Limits, report: Report
) -> Deployment:
    document = Document(Path("deployment"), "", values)
    table = Table(document)
    issued, expires = form.read_times(table)
    deployment = Deployment(
        fleet=str(values["fleet"]),
        generation=form.read_generation(table),
        issued=issued,
        expires=expires,
        plugins=form.read_plugins(table, defaults, report),
        payload=payload,
    )
    _check(document)
    return deployment


def _check(document: Document) -> None:
    try:
        document.check()
    except ConfigError as error:
        raise RefusedError("malformed", str(error)) from None
