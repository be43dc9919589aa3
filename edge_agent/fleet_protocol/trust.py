"""Whose signatures count, and how that changes. Pure.

The first set comes from files on the node. The topic `trust` then carries the chain of all later
ones: a JSON list of envelopes, oldest first (one envelope alone is a chain too), so that a node
that was away for several rotations can follow. Each set is signed by a threshold of the set
before it, which gives the trust, and by a threshold of its own keys, which proves that they work.

A set may expire. It then signs nothing but the set that follows it. A key may be of an
algorithm that is not known here: it is kept, and what it signs counts as not signed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent import strictjson
from edge_agent.config.document import Document
from edge_agent.config.table import Table
from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError, CryptoError, KeyFormatError, RefusedError
from edge_agent.fleet_protocol import envelope, form, keys
from edge_agent.fleet_protocol.keys import PublicKey
from edge_agent.store.digest import sha256_hex

KIND = "edge-agent.trust"
PAYLOAD_TYPE = "application/vnd.edge-agent.trust+json"
MAX_KEYS = 16  # a fleet's signers; each costs time wherever a signature is checked
MAX_CHAIN = 64  # as many as fit the message's size


@dataclass(frozen=True)
class TrustSet:
    """The keys that a fleet's documents are signed with, `threshold` of them at least.

    `version` 1 is usually the first; a node's files may hold a later one.
    """

    fleet: str
    version: int
    threshold: int
    keys: tuple[PublicKey, ...]
    validity: Validity | None = None  # None: it does not expire

    def __post_init__(self) -> None:
        """KeyFormatError: no document could be checked with this set."""
        if not self.keys:
            raise KeyFormatError("no key is trusted; put the fleet's public keys, *.pem, here")
        if len(self.keys) > MAX_KEYS:
            raise KeyFormatError(f"{len(self.keys)} keys are trusted; at most {MAX_KEYS} can be")
        if len({key.keyid for key in self.keys}) < len(self.keys):
            raise KeyFormatError("a key is named twice")
        if not 1 <= self.threshold <= len(self.keys):
            raise KeyFormatError(
                f"threshold is {self.threshold}; it must be 1 to {len(self.keys)}, the number of "
                "keys"
            )
        if not 1 <= self.version <= strictjson.MAX_INTEGER:
            raise KeyFormatError(f"version is {self.version}; the first set is version 1")

    def check_in_force(self, now: float) -> None:
        """RefusedError `trust-expired`; `now` is the latest time that is known to have passed."""
        if self.validity is not None and self.validity.over(now):
            raise RefusedError(
                "trust-expired",
                f"the trusted keys, version {self.version}, {self.validity.ending(now)}; their"
                " owners renew them with `edge-agent fleet trust renew`",
            )


def to_payload(trust: TrustSet) -> bytes:
    """The document that is signed, and that the catalogue keeps."""
    values: dict[str, object] = {
        "kind": KIND,
        "fleet": trust.fleet,
        "version": trust.version,
        "threshold": trust.threshold,
        "keys": [_written_key(key) for key in trust.keys],
    }
    if trust.validity is not None:
        values |= trust.validity.as_document()
    return strictjson.dumps(values)


def parse(payload: bytes, fleet: str) -> TrustSet:
    """The set in a document. RefusedError `malformed`, `kind` or `fleet`."""
    try:
        value = strictjson.loads(payload, null=False)
    except ValueError as error:
        raise _malformed(str(error)) from None
    if not isinstance(value, dict):
        raise _malformed("not a JSON object")
    check_head(value, KIND, fleet)
    version, threshold = _whole(value, "version"), _whole(value, "threshold")
    told = value.get("keys")
    if not isinstance(told, list):
        raise _malformed("keys must be a list")
    validity = _validity(value)
    try:
        if len(told) > MAX_KEYS:
            raise KeyFormatError(f"{len(told)} keys; at most {MAX_KEYS} can be trusted")
        return TrustSet(fleet, version, threshold, tuple(map(_key, told)), validity)
    except KeyFormatError as error:
        raise _malformed(str(error)) from None


def chain(envelopes: Iterable[bytes]) -> bytes:
    """The message that is published under `trust`: the sealed sets, oldest first."""
    return b"[" + b",".join(envelopes) + b"]"


def rotated(raw: bytes, current: TrustSet) -> TrustSet | None:
    """The newest set that leads on from `current`; None: `current` is the newest in `raw`.

    RefusedError, CryptoError: nothing here leads on, because of the newest set's fault.
    """
    envelope.check_size(raw)
    newest = current
    fault: RefusedError | CryptoError | None = None
    for link in _links(raw):
        try:
            newest, fault = _follow(link, newest), None
        except (RefusedError, CryptoError) as error:
            # Of an older one than this node began with: no fault of the chain. One that cannot
            # be checked here keeps nobody from those that can.
            fault = error
    if newest is not current:
        return newest
    if fault is not None:
        raise fault
    return None


def name(trust: TrustSet) -> str:
    """Tells one set from every other, but for when it expires: SHA-256 of its document, in hex.

    So that files beside which that is written later are not taken for others.
    """
    return sha256_hex(to_payload(replace(trust, validity=None)))


def in_force(root: TrustSet, payload: str, began_with: str) -> TrustSet:
    """What is trusted on a node: the newest set that it accepted, or that of its files.

    `payload` and `began_with` are the catalogue's `trust` and `trust_root`. Files that were
    replaced by hand win: who can write them may do anything on this node.
    """
    if not payload or began_with != name(root):
        return root
    return parse(payload.encode(), root.fleet)


def check_head(value: dict[str, object], kind: str, fleet: str) -> None:
    """RefusedError `kind` or `fleet` unless a document is of this kind and for this fleet."""
    if value.get("kind") != kind:
        raise RefusedError("kind", f"kind is {_show(value.get('kind'))}, not {kind}")
    if value.get("fleet") != fleet:
        raise RefusedError("fleet", f"it is for the fleet {_show(value.get('fleet'))}, not {fleet}")


def _follow(link: envelope.Envelope, current: TrustSet) -> TrustSet:
    """The next set, or `current` if the link is that."""
    envelope.check_signed(link, PAYLOAD_TYPE, current.keys, current.threshold)
    following = parse(link.payload, current.fleet)
    parse(to_payload(following), current.fleet)  # as it will be read from the disk
    if following.version < current.version:
        raise RefusedError("rollback", f"version {following.version} is older than is trusted here")
    if following.version == current.version:
        if _alike(following, current):
            # Its files may not say when it expires; the first to say so decides.
            if following.validity is None or following.validity == current.validity:
                return current
            if current.validity is None:
                return following
        raise RefusedError("conflict", f"another version {current.version} is trusted here")
    if following.version > current.version + 1:
        raise RefusedError(
            "gap", f"version {current.version + 1} is missing before {following.version}"
        )
    envelope.check_signed(link, PAYLOAD_TYPE, following.keys, following.threshold)
    return following


def _alike(one: TrustSet, other: TrustSet) -> bool:
    """The same keys, in whatever order: files have that of their names."""
    return one.threshold == other.threshold and frozenset(one.keys) == frozenset(other.keys)


def _written_key(key: PublicKey) -> object:
    """A text alone is a key of Ed25519, all that agents without other algorithms read."""
    pem = keys.public_pem(key)
    return pem if key.algorithm == keys.ED25519 else {"algorithm": key.algorithm, "key": pem}


def _key(value: object) -> PublicKey:
    """KeyFormatError."""
    if isinstance(value, str):
        return keys.parse_named(keys.ED25519, value)
    if isinstance(value, dict):
        algorithm, pem = value.get("algorithm"), value.get("key")
        if isinstance(algorithm, str) and isinstance(pem, str):
            return keys.parse_named(algorithm, pem)
    raise KeyFormatError("a key must be a PEM text, or an object with algorithm and key")


def _validity(value: dict[str, object]) -> Validity | None:
    """`issued` and `expires`, both or neither."""
    if not {"issued", "expires"} & value.keys():
        return None
    document = Document(Path("trust"), "", value)
    found = form.read_validity(Table(document))
    try:
        document.check()
    except ConfigError as error:
        raise _malformed(str(error)) from None
    return found


def _links(raw: bytes) -> Sequence[envelope.Envelope]:
    try:
        value = strictjson.loads(raw)
    except ValueError as error:
        raise RefusedError("envelope", f"not a chain of envelopes: {error}") from None
    links = value if isinstance(value, list) else [value]
    if not 1 <= len(links) <= MAX_CHAIN:
        raise RefusedError("envelope", f"a chain of {len(links)}; 1 to {MAX_CHAIN} are taken")
    return [envelope.decode(link) for link in links]


def _whole(value: dict[str, object], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool):
        raise _malformed(f"{name} must be a whole number")
    return number


def _show(value: object) -> str:
    return ascii(value)[:80]


def _malformed(message: str) -> RefusedError:
    return RefusedError("malformed", f"trust: {message}")
