"""Signs documents for nodes; an envelope is a file until it has enough signatures."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from edge_agent import strictjson
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import envelope
from edge_agent.fleet_protocol.keys import PublicKey, Signer
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator.folder import FleetFolder


class Signed(NamedTuple):
    """An envelope and its valid signatures."""

    raw: bytes
    payload_type: str
    payload: bytes
    signers: frozenset[PublicKey]  # trusted keys with a valid signature

    def enough(self, threshold: int) -> bool:
        return len(self.signers) >= threshold


def trust_set(folder: FleetFolder) -> TrustSet:
    """The trusted keys of fleet.toml. OperatorError."""
    settings = folder.settings()
    if not settings.keys:
        raise OperatorError(
            f"{folder.path}/fleet.toml: [trust] names no key; make one with `edge-agent fleet"
            " keygen NAME`, put its NAME.pem into trust/ and its name into keys"
        )
    keys = folder.public_keys(settings.keys)
    if not settings.threshold <= len(keys):
        raise OperatorError(
            f"{folder.path}/fleet.toml: threshold is {settings.threshold}, and only {len(keys)}"
            " keys are trusted"
        )
    version, threshold = settings.trust_version, settings.threshold
    return TrustSet(settings.name, version, threshold, keys, settings.validity)


def sign(
    payload_type: str, payload: bytes, trusted: Sequence[PublicKey], keys: Sequence[Signer]
) -> Signed:
    """A new envelope, signed by all of `keys`."""
    return read(envelope.seal(payload_type, payload, keys), trusted)


def add(signed: Signed, trusted: Sequence[PublicKey], keys: Sequence[Signer]) -> Signed:
    """The envelope with the signatures of those `keys` that have not signed yet."""
    new = [key for key in keys if key.public not in signed.signers]
    if not new:
        return signed
    values = cast(dict[str, Any], strictjson.loads(signed.raw))
    added = envelope.seal(signed.payload_type, signed.payload, new)
    values["signatures"] += cast(dict[str, Any], strictjson.loads(added))["signatures"]
    return read(strictjson.dumps(values), trusted)


def read(raw: bytes, trusted: Sequence[PublicKey]) -> Signed:
    """An envelope's content and the trusted keys that signed it. RefusedError."""
    envelope.check_size(raw)
    found = envelope.read(raw)
    return Signed(raw, found.payload_type, found.payload, envelope.signers(found, trusted))


def names(folder: FleetFolder, keys: Sequence[PublicKey] | frozenset[PublicKey]) -> list[str]:
    """The names that fleet.toml has for keys."""
    known = folder.settings().keys
    public = dict(zip((key.keyid for key in folder.public_keys(known)), known, strict=True))
    return sorted(public.get(key.keyid, key.keyid[:12]) for key in keys)
