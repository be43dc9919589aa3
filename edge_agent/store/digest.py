"""SHA-256 and HMAC-SHA256 (RFC 2104) without OpenSSL, which would cost 4 MB of memory.

`hashlib` loads libcrypto; the interpreter brings a SHA-256 of its own, and a node that
works alone, without TLS, needs no more.
"""

from typing import Any

try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found]  # CPython 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]  # CPython 3.11
    except ImportError:  # a distribution that left it out
        from hashlib import sha256 as _sha256

_BLOCK_BYTES = 64  # of SHA-256


def sha256_hex(data: bytes) -> str:
    """The digest as 64 hexadecimal characters."""
    return str(_sha256(data).hexdigest())


class Hmac:
    """HMAC-SHA256 over data that comes in parts."""

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = _sha256(key).digest()
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner: Any = _sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer: Any = _sha256(bytes(byte ^ 0x5C for byte in padded))

    def update(self, data: bytes | memoryview) -> None:
        self._inner.update(data)

    def hex(self) -> str:
        """The code over all data so far, as 64 hexadecimal characters."""
        outer = self._outer.copy()
        outer.update(self._inner.digest())
        return str(outer.hexdigest())
