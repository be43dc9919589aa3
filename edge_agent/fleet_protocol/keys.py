"""Keys in ordinary PEM files (RFC 7468, 8410, 5480), and what they signed. Pure.

Each key has an algorithm, by a name of the protocol. It is the key's, which somebody trusted, and
never the message's, that says how a signature is checked.

PyNaCl is imported when a signature of Ed25519 is first made or checked: 1 MB and more that a node
without a deployment does not pay.
"""

import binascii
import os
import re
from types import ModuleType
from typing import NamedTuple, Protocol

from edge_agent.errors import CryptoError, KeyFormatError
from edge_agent.store.digest import sha256_hex

ED25519 = "ed25519"  # RFC 8032; what is meant where no algorithm is named
P256 = "ecdsa-p256-sha256"
ALGORITHM_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# A PEM file of an Ed25519 key has 113 or 119 bytes; some tools write a text before it. Keys of
# algorithms to come fit too (ML-DSA-87: 3.6 KB).
MAX_PEM_BYTES = 4096

_SPKI = bytes.fromhex("302a300506032b6570032100")
_P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
P256_KEY_BYTES = 65  # 04, x, y (SEC 1, 2.3.3): not compressed, so that each key has one form
# What precedes the bytes of a public key in a SubjectPublicKeyInfo, and how many these are.
_SPKIS = {ED25519: (_SPKI, KEY_BYTES), P256: (_P256_SPKI, P256_KEY_BYTES)}
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")  # the same of a private one
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s([A-Za-z0-9+/=\s]*+)-----END \1-----")
_KINDS = {
    "ENCRYPTED PRIVATE KEY": "it is encrypted; the operator's tool asks for its passphrase",
    "OPENSSH PRIVATE KEY": "it is a key of ssh, which ssh-agent signs with: ssh-add FILE",
    "CERTIFICATE": "it is a certificate; the public key alone is wanted",
    "PRIVATE KEY": "it is a private key, which belongs on no node; the public one is wanted",
    "PUBLIC KEY": "it is the public key; the private one is wanted",
}


class PublicKey(NamedTuple):
    """A key that can check signatures.

    `keyid` is the SHA-256 in hex of `raw` for Ed25519, and of the SubjectPublicKeyInfo for every
    other algorithm. `raw` is that whole where this agent does not know the algorithm.
    """

    keyid: str
    raw: bytes
    algorithm: str = ED25519

    @property
    def known(self) -> bool:
        """Whether this agent can check what the key signs."""
        return self.algorithm in _SPKIS


def public_key(raw: bytes, algorithm: str = ED25519) -> PublicKey:
    """The key of these bytes: 32 of Ed25519, or a point of P-256. KeyFormatError."""
    if algorithm == ED25519:
        if len(raw) != KEY_BYTES:
            raise KeyFormatError(f"an Ed25519 key has {KEY_BYTES} bytes, not {len(raw)}")
        return PublicKey(sha256_hex(raw), raw)
    if len(raw) != P256_KEY_BYTES or raw[0] != 4:
        raise KeyFormatError("a key of P-256 is a point of 65 bytes, not compressed")
    return PublicKey(sha256_hex(_P256_SPKI + raw), raw, algorithm)


def parse_public(pem: str) -> PublicKey:
    """The key in a PEM text (SubjectPublicKeyInfo) of an algorithm known here. KeyFormatError."""
    der = der_of(pem, "PUBLIC KEY")
    for algorithm, (prefix, size) in _SPKIS.items():
        if der.startswith(prefix) and len(der) == len(prefix) + size:
            return public_key(der[len(prefix) :], algorithm)
    raise KeyFormatError(
        "it is not an Ed25519 key, nor one of P-256; make one with: edge-agent fleet keygen"
    )


def parse_named(algorithm: str, pem: str) -> PublicKey:
    """The same of a key whose algorithm is named, and perhaps not known here. KeyFormatError."""
    if not ALGORITHM_PATTERN.fullmatch(algorithm):
        raise KeyFormatError(f"{ascii(algorithm)[:80]} is no algorithm's name")
    if algorithm not in _SPKIS:
        der = der_of(pem, "PUBLIC KEY")
        return PublicKey(sha256_hex(der), der, algorithm)
    key = parse_public(pem)
    if key.algorithm != algorithm:
        raise KeyFormatError(f"a key of {key.algorithm} is called one of {algorithm}")
    return key


def public_pem(key: PublicKey) -> str:
    """The key as `parse_public` and `openssl pkey -pubin` read it."""
    prefix = _SPKIS[key.algorithm][0] if key.known else b""
    return _wrap("PUBLIC KEY", prefix + key.raw)


def parse_private(pem: str) -> bytes:
    """The private key of Ed25519, 32 bytes, in a PEM text (PKCS #8). KeyFormatError."""
    der = der_of(pem, "PRIVATE KEY")
    if not der.startswith(_PKCS8) or len(der) != len(_PKCS8) + KEY_BYTES:
        raise KeyFormatError("it is not an Ed25519 key; make one with: edge-agent fleet keygen")
    return der[len(_PKCS8) :]


def private_pem(seed: bytes) -> str:
    """The same key as a text. To be kept secret."""
    return _wrap("PRIVATE KEY", _PKCS8 + seed)


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the owner of `key` signed `message`; never of an algorithm not known here.

    CryptoError: cannot be found out here.
    """
    if key.algorithm == P256:
        from edge_agent.fleet_protocol import libcrypto

        return libcrypto.verify_p256(_P256_SPKI + key.raw, message, signature)
    if key.algorithm != ED25519 or len(signature) != SIGNATURE_BYTES:
        return False
    nacl = _nacl()
    try:
        nacl.bindings.crypto_sign_open(signature + message, key.raw)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class Signer(Protocol):
    """What signs: a key at hand, or one in a token or an agent."""

    public: PublicKey

    def sign(self, message: bytes, /) -> bytes:
        """The signature of 64 bytes."""


class SigningKey:
    """A private key of Ed25519. Its text form is never part of a message or a log."""

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
        return cls(parse_private(pem))

    def to_pem(self) -> str:
        """The key as `from_pem` and `openssl pkey` read it. To be kept secret."""
        return private_pem(self._seed)

    def sign(self, message: bytes) -> bytes:
        """The signature of 64 bytes."""
        signed: bytes = _nacl().bindings.crypto_sign(message, self._secret)
        return signed[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self.public.keyid[:12]})"


def der_of(pem: str, kind: str) -> bytes:
    """The bytes of the one PEM block of this kind."""
    if len(pem) > MAX_PEM_BYTES:
        raise KeyFormatError(f"longer than the {MAX_PEM_BYTES} characters that a key may have")
    blocks = _PEM.findall(pem)
    if len(blocks) != 1:
        raise KeyFormatError(f'{len(blocks)} PEM blocks; one "-----BEGIN {kind}-----" is wanted')
    found, body = blocks[0]
    if found != kind:
        raise KeyFormatError(_KINDS.get(found, f"a PEM block of another kind: {found[:40]}"))
    try:
        return binascii.a2b_base64("".join(body.split()), strict_mode=True)
    except binascii.Error as error:
        raise KeyFormatError(f"its base64 is damaged: {error}") from None


def _wrap(kind: str, der: bytes) -> str:
    text = binascii.b2a_base64(der, newline=False).decode()
    body = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))  # RFC 7468, 2
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
