"""DSSE version 1 (secure-systems-lab/dsse): a payload and who signed it. Pure.

What is signed is PAE(type, payload), so a signature for one kind of document is none for
another. Signatures are Ed25519 (RFC 8032), `keyid` the SHA-256 of the key's 32 bytes.
"""

import binascii
from collections.abc import Sequence
from typing import NamedTuple

from edge_agent import strictjson
from edge_agent.errors import RefusedError
from edge_agent.fleet import keys
from edge_agent.fleet.keys import PublicKey, Signer

# A message of this size passes every broker that was looked at (AWS IoT Core: 128 KiB).
MAX_DOCUMENT_BYTES = 64 << 10
# Signatures looked at: each may cost a slow board a millisecond.
MAX_SIGNATURES = 16

_TO_STANDARD = str.maketrans("-_", "+/")  # DSSE: verifiers must accept either base64


class Envelope(NamedTuple):
    """What an envelope says; nothing in it is to be believed before `signers` is asked."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]  # (keyid, signature)


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (DSSE protocol, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> bytes:
    """An envelope around `payload` with one signature of each signer. CryptoError."""
    message = pae(payload_type, payload)
    signatures = [
        {"keyid": signer.public.keyid, "sig": _base64(signer.sign(message))} for signer in signers
    ]
    return strictjson.dumps(
        {"payloadType": payload_type, "payload": _base64(payload), "signatures": signatures}
    )


def open_sealed(
    raw: bytes, payload_type: str, trusted: Sequence[PublicKey], threshold: int
) -> bytes:
    """The payload of an envelope that enough of the trusted keys signed.

    RefusedError `oversized`, `envelope` or `signature`. CryptoError: cannot be checked here.
    """
    check_size(raw)
    envelope = read(raw)
    check_signed(envelope, payload_type, trusted, threshold)
    return envelope.payload


def check_size(raw: bytes) -> None:
    """RefusedError `oversized`."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise RefusedError(
            "oversized", f"{len(raw)} bytes; a document has at most {MAX_DOCUMENT_BYTES}"
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
    """RefusedError `signature` unless `threshold` different keys signed a payload of this type."""
    if envelope.payload_type != payload_type:
        raise RefusedError(
            "signature", f"signed as {envelope.payload_type[:80]!a}, not as {payload_type}"
        )
    good = signers(envelope, trusted)
    if len(good) < threshold:
        known = f"{len(good)} of {threshold} signatures needed are good"
        raise RefusedError("signature", f"{known}; {len(trusted)} keys are trusted here")


def signers(envelope: Envelope, trusted: Sequence[PublicKey]) -> frozenset[PublicKey]:
    """Which of the trusted keys signed; each counts once, however often it did.

    The key id proves nothing; it says which key to try (DSSE, "KEYID"), so that a signature
    costs one trial at most.
    """
    message = pae(envelope.payload_type, envelope.payload)
    named = {key.keyid: key for key in trusted}
    return frozenset(
        named[keyid]
        for keyid, signature in envelope.signatures
        if keyid in named and keys.verify(named[keyid], message, signature)
    )


def _signature(value: object) -> tuple[str, bytes]:
    if not isinstance(value, dict):
        raise _refused("a signature is not a JSON object")
    keyid = value.get("keyid", "")
    if not isinstance(keyid, str):
        raise _refused("a keyid is not a string")
    return keyid, _unbase64("sig", value.get("sig"))


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
