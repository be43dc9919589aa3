"""DSSE version 1 (secure-systems-lab/dsse): a payload and who signed it. Pure.

What is signed is PAE(type, payload), so a signature for one kind of document is none for
another. A signature names the key and, unless that is Ed25519, its algorithm (fleet_protocol/keys).
"""

import binascii
from collections.abc import Sequence
from typing import NamedTuple

from edge_agent import strictjson
from edge_agent.errors import CryptoError, RefusedError
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.keys import PublicKey, Signer
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES

# Signatures looked at: each may cost a slow board a millisecond.
MAX_SIGNATURES = 16

_TO_STANDARD = str.maketrans("-_", "+/")  # DSSE: verifiers must accept either base64


class Signature(NamedTuple):
    """One signature of an envelope, not yet checked."""

    keyid: str
    value: bytes
    algorithm: str = keys.ED25519


class Envelope(NamedTuple):
    """The content of an envelope; not to be trusted before `signers` has checked it."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (DSSE protocol, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> bytes:
    """An envelope around `payload` with one signature of each signer. CryptoError."""
    message = pae(payload_type, payload)
    signatures = [
        {**_algorithm(signer.public), "keyid": signer.public.keyid, "sig": _base64(made)}
        for signer, made in ((signer, signer.sign(message)) for signer in signers)
    ]
    return strictjson.dumps(
        {"payloadType": payload_type, "payload": _base64(payload), "signatures": signatures}
    )


def open_sealed(
    raw: bytes, payload_type: str, trusted: Sequence[PublicKey], threshold: int
) -> bytes:
    """The payload of an envelope that enough of the trusted keys signed.

    RefusedError `oversized`, `envelope`, `signature` or `algorithm`. CryptoError: cannot be
    checked here.
    """
    check_size(raw)
    envelope = read(raw)
    check_signed(envelope, payload_type, trusted, threshold)
    return envelope.payload


def check_size(raw: bytes) -> None:
    """RefusedError `oversized`."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise RefusedError(
            "oversized", f"{len(raw)} bytes; a document has at most {MAX_MESSAGE_BYTES}"
        )


def read(raw: bytes) -> Envelope:
    """Decode an envelope of bounded size. RefusedError `envelope`."""
    try:
        return decode(strictjson.loads(raw))
    except ValueError as error:
        raise _refused(str(error)) from None


def decode(value: object) -> Envelope:
    """The envelope that a JSON value is. RefusedError `envelope`."""
    if not isinstance(value, dict):
        raise _refused("not a JSON object")
    payload_type, signatures = value.get("payloadType"), value.get("signatures")
    if not isinstance(payload_type, str):
        raise _refused("payloadType is not a string")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise _refused(f"signatures is not a list of 1 to {MAX_SIGNATURES}")
    return Envelope(
        payload_type,
        _unbase64("payload", value.get("payload")),
        tuple(_signature(each) for each in signatures),
    )


def check_signed(
    envelope: Envelope, payload_type: str, trusted: Sequence[PublicKey], threshold: int
) -> None:
    """RefusedError `signature` unless `threshold` different keys signed a payload of this type.

    `algorithm` if trusted keys signed by one that is not known here, and the others are too few.
    CryptoError: too few could be checked here.
    """
    if envelope.payload_type != payload_type:
        raise RefusedError(
            "signature", f"signed as {envelope.payload_type[:80]!a}, not as {payload_type}"
        )
    good, problem = _good(envelope, trusted)
    if len(good) >= threshold:
        return
    if problem is not None:
        raise problem
    known = f"{len(good)} of {threshold} signatures needed are good"
    raise RefusedError("signature", f"{known}; {len(trusted)} keys are trusted here")


def signers(envelope: Envelope, trusted: Sequence[PublicKey]) -> frozenset[PublicKey]:
    """Which of the trusted keys signed. CryptoError: none, or nothing can be checked here."""
    good, problem = _good(envelope, trusted)
    if not good and isinstance(problem, CryptoError):
        raise problem
    return good


def _good(
    envelope: Envelope, trusted: Sequence[PublicKey]
) -> tuple[frozenset[PublicKey], RefusedError | CryptoError | None]:
    """The trusted keys that signed, each once, however often it did; and why others do not count.

    The key id proves nothing; it says which key to try (DSSE, "KEYID"), so that a signature
    costs one trial at most. How it is checked the key says: a signature that names another
    algorithm is none of this key.
    """
    message = pae(envelope.payload_type, envelope.payload)
    named = {key.keyid: key for key in trusted}
    good: set[PublicKey] = set()
    problem: RefusedError | CryptoError | None = None
    for each in envelope.signatures:
        key = named.get(each.keyid)
        if key is None or key.algorithm != each.algorithm:
            continue
        if not key.known:
            problem = RefusedError(
                "algorithm",
                f"the key {key.keyid[:12]} signs with {key.algorithm}, which this agent does not"
                " know: update the agent",
            )
            continue
        try:
            if keys.verify(key, message, each.value):
                good.add(key)
        except CryptoError as error:
            problem = error
    return frozenset(good), problem


def _algorithm(key: PublicKey) -> dict[str, str]:
    """Nothing for Ed25519, which agents that know no other algorithm take for granted."""
    return {} if key.algorithm == keys.ED25519 else {"algorithm": key.algorithm}


def _signature(value: object) -> Signature:
    if not isinstance(value, dict):
        raise _refused("a signature is not a JSON object")
    keyid = value.get("keyid", "")
    if not isinstance(keyid, str):
        raise _refused("a keyid is not a string")
    algorithm = value.get("algorithm", keys.ED25519)
    if not isinstance(algorithm, str):
        raise _refused("an algorithm is not a string")
    return Signature(keyid, _unbase64("sig", value.get("sig")), algorithm)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _unbase64(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise _refused(f"{name} is not a string")
    try:
        # strict: one way to write it, no stray characters that another reader may take.
        return binascii.a2b_base64(value.translate(_TO_STANDARD), strict_mode=True)
    except ValueError as error:
        raise _refused(f"{name} is not base64: {error}") from None


def _refused(message: str) -> RefusedError:
    return RefusedError("envelope", f"not a DSSE envelope: {message}")
