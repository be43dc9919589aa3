"""Digests, which name blobs: SHA-256 and keyed digests without OpenSSL, which takes 4 MB.

`hashlib` loads libcrypto; the interpreter brings a SHA-256 of its own, and a node that
works alone, without TLS, needs no more. Where TLS has loaded it, it is taken: several times
faster with a processor's own instructions.
"""

import re
import sys
from typing import Any

try:
    from _blake2 import blake2b as _blake2b
except ImportError:
    from hashlib import blake2b as _blake2b

try:
    from _sha2 import sha256 as _own_sha256  # type: ignore[import-not-found]  # CPython 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _own_sha256  # type: ignore[import-not-found]  # and 3.11
    except ImportError:  # a distribution that left it out
        from hashlib import sha256 as _own_sha256

# CPython 3.11's own SHA-256 keeps the interpreter's lock for one part: 0.1 ms with this,
# instead of 40 ms and more, in which no runtime is answered, for a Go module in one.
PART_BYTES = 16 << 10

PATTERN = r"sha256:[0-9a-f]{64}"
_DIGEST = re.compile(PATTERN)
_PREFIX = "sha256:"
SHORT_DIGITS = 12  # tell plugins apart well enough for a table


class Digest(str):
    """The name of a blob by its content: "sha256:HEX", as documents, OCI and the catalogue have it.

    Everything inside has this form; `hex` is for what has digits alone: files, topics, compilers.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> "Digest":
        """ValueError: it is none. Nothing (`NO_DIGEST`) is none too, and taken."""
        if text and not _DIGEST.fullmatch(text):
            raise ValueError(f'{text[:80]!a} is not a digest, "sha256:" and 64 digits')
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """The digest of these bytes."""
        return cls(_PREFIX + sha256_hex(data))

    @classmethod
    def made(cls, sha256: Any) -> "Digest":
        """The digest of all that a `sha256` was fed."""
        return cls(_PREFIX + str(sha256.hexdigest()))

    @classmethod
    def of_hex(cls, digits: str) -> "Digest":
        """ValueError: not 64 hexadecimal digits in lower case."""
        return cls(_PREFIX + digits)

    @classmethod
    def of_raw(cls, raw: bytes) -> "Digest":
        """The digest with these 32 bytes. ValueError: another number of bytes."""
        return cls.of_hex(raw.hex())

    @property
    def hex(self) -> str:
        """Its 64 digits."""
        return self[len(_PREFIX) :]

    @property
    def raw(self) -> bytes:
        """Its 32 bytes."""
        return bytes.fromhex(self.hex)

    @property
    def short(self) -> str:
        """The first digits, for people."""
        return short(self)


NO_DIGEST = Digest("")
"""Of a module that cannot be read; false where a digest is true."""


def short(told: str) -> str:
    """The first digits of a digest or setup for people, also of one that a node reports."""
    return told.removeprefix(_PREFIX)[:SHORT_DIGITS]


def sha256() -> Any:
    """A digest with `update` and `hexdigest`; feed it parts of at most PART_BYTES."""
    openssl = sys.modules.get("_hashlib")
    return _own_sha256() if openssl is None else openssl.openssl_sha256()


def sha256_hex(data: bytes) -> str:
    """The digest as 64 hexadecimal characters."""
    digest = sha256()
    view = memoryview(data)
    for at in range(0, len(data), PART_BYTES):
        digest.update(view[at : at + PART_BYTES])
    return str(digest.hexdigest())


def keyed(secret: bytes) -> Any:
    """A digest that cannot be made without the secret (at most 64 bytes): BLAKE2b (RFC 7693)
    of 32 bytes. In plain C it is four times as fast as SHA-256, with the lock given away."""
    return _blake2b(key=secret, digest_size=32)
