"""Ed25519 keys (RFC 8032) in ordinary PEM files (RFC 7468, 8410). Pure.

PyNaCl is imported when a signature is first made or checked: 1 MB and more that a node without a
deployment does not pay.
"""

import binascii
import os
import re
from types import ModuleType
from typing import NamedTuple, Protocol

from edge_agent.errors import CryptoError, KeyFormatError
from edge_agent.store.digest import sha256_hex

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# A PEM file of an Ed25519 key has 113 or 119 bytes; some tools write a text before it.
MAX_PEM_BYTES = 4096

_SPKI = bytes.fromhex("302a300506032b6570032100")  # what precedes the 32 bytes of a public key
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")  # and of a private one
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s([A-Za-z0-9+/=\s]*+)-----END \1-----")
_KINDS = {
    "ENCRYPTED PRIVATE KEY": "it is encrypted; the operator's tool asks for its passphrase",
    "OPENSSH PRIVATE KEY": "it is a key of ssh, which ssh-agent signs with: ssh-add FILE",
    "CERTIFICATE": "it is a certificate; the public key alone is wanted",
    "PRIVATE KEY": "it is a private key, which belongs on no node; the public one is wanted",
    "PUBLIC KEY": "it is the public key; the private one is wanted",
}


class PublicKey(NamedTuple):
    """A key that can check signatures. `keyid` is the SHA-256 of `raw`, in hex."""

    keyid: str
    raw: bytes


def public_key(raw: bytes) -> PublicKey:
    """The key of these 32 bytes. KeyFormatError."""
    if len(raw) != KEY_BYTES:
        raise KeyFormatError(f"an Ed25519 key has {KEY_BYTES} bytes, not {len(raw)}")
    return PublicKey(sha256_hex(raw), raw)


def parse_public(pem: str) -> PublicKey:
    """The key in a PEM text (SubjectPublicKeyInfo). KeyFormatError."""
    return public_key(_unwrap(pem, "PUBLIC KEY", _SPKI))


def public_pem(key: PublicKey) -> str:
    """The key as `parse_public` and `openssl pkey -pubin` read it."""
    return _wrap("PUBLIC KEY", _SPKI + key.raw)


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the owner of `key` signed `message`. CryptoError: cannot be found out here."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    nacl = _nacl()
    try:
        nacl.bindings.crypto_sign_open(signature + message, key.raw)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class Signer(Protocol):
    """What signs: a key at hand, or one that somebody else keeps."""

    public: PublicKey

    def sign(self, message: bytes, /) -> bytes:
        """The signature of 64 bytes."""


class SigningKey:
    """A private key. Its text form is never part of a message or a log."""

    def __init__(self, seed: bytes) -> None:
        """`seed` is the private key of RFC 8032, 32 bytes. KeyFormatError, CryptoError."""
        if len(seed) != KEY_BYTES:
            raise KeyFormatError(f"an Ed25519 key has {KEY_BYTES} bytes, not {len(seed)}")
        self._seed = seed
        raw, self._secret = _nacl().bindings.crypto_sign_seed_keypair(seed)
        self.public = public_key(raw)

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key from the system's randomness. CryptoError."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_pem(cls, pem: str) -> "SigningKey":
        """The key in a PEM text (PKCS #8, not encrypted). KeyFormatError, CryptoError."""
        return cls(_unwrap(pem, "PRIVATE KEY", _PKCS8))

    def to_pem(self) -> str:
        """The key as `from_pem` and `openssl pkey` read it. To be kept secret."""
        return _wrap("PRIVATE KEY", _PKCS8 + self._seed)

    def sign(self, message: bytes) -> bytes:
        """The signature of 64 bytes."""
        signed: bytes = _nacl().bindings.crypto_sign(message, self._secret)
        return signed[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self.public.keyid[:12]})"


def _unwrap(pem: str, kind: str, prefix: bytes) -> bytes:
    """The 32 bytes of the one PEM block of this kind."""
    if len(pem) > MAX_PEM_BYTES:
        raise KeyFormatError(f"longer than the {MAX_PEM_BYTES} characters that a key may have")
    blocks = _PEM.findall(pem)
    if len(blocks) != 1:
        raise KeyFormatError(f'{len(blocks)} PEM blocks; one "-----BEGIN {kind}-----" is wanted')
    found, body = blocks[0]
    if found != kind:
        raise KeyFormatError(_KINDS.get(found, f"a PEM block of another kind: {found[:40]}"))
    try:
        der = binascii.a2b_base64("".join(body.split()), strict_mode=True)
    except binascii.Error as error:
        raise KeyFormatError(f"its base64 is damaged: {error}") from None
    if not der.startswith(prefix) or len(der) != len(prefix) + KEY_BYTES:
        raise KeyFormatError("it is not an Ed25519 key; make one with: edge-agent fleet keygen")
    return der[len(prefix) :]


def _wrap(kind: str, der: bytes) -> str:
    body = binascii.b2a_base64(der, newline=False).decode()
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


def _nacl() -> ModuleType:
    try:
        import nacl.bindings
        import nacl.exceptions
    except (ImportError, OSError) as error:
        raise CryptoError(
            f"signatures cannot be made or checked, PyNaCl cannot be loaded ({error}); install it: "
            "apt install python3-nacl, or pip install PyNaCl"
        ) from error
    return nacl
