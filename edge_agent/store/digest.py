"""SHA-256 and HMAC-SHA256 (RFC 2104) without OpenSSL, which would cost 4 MB of memory.

`hashlib` loads libcrypto; the interpreter brings a SHA-256 of its own, and a node that
works alone, without TLS, needs no more. Where TLS has loaded it, it is taken: several times
faster with a processor's own instructions.
"""

import sys
from typing import Any

try:
    from _sha2 import sha256 as _own_sha256  # type: ignore[import-not-found]  # CPython 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _own_sha256  # type: ignore[import-not-found]  # and 3.11
    except ImportError:  # a distribution that left it out
        from hashlib import sha256 as _own_sha256

_BLOCK_BYTES = 64  # of SHA-256
# CPython 3.11's own SHA-256 keeps the interpreter's lock for one part: 0.1 ms with this,
# instead of 40 ms and more, in which no runtime is answered, for a Go module in one.
PART_BYTES = 16 << 10


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


class Hmac:
    """HMAC-SHA256 over data that comes in parts, of at most PART_BYTES if there is much."""

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = bytes.fromhex(sha256_hex(key))
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner, self._outer = sha256(), sha256()
        self._inner.update(bytes(byte ^ 0x36 for byte in padded))
        self._outer.update(bytes(byte ^ 0x5C for byte in padded))

    def update(self, data: bytes | memoryview) -> None:
        self._inner.update(data)

    def hex(self) -> str:
        """The code over all data so far, as 64 hexadecimal characters."""
        outer = self._outer.copy()
        outer.update(self._inner.digest())
        return str(outer.hexdigest())
