"""SHA-256, and digests with a secret, without OpenSSL, which would cost 4 MB of memory.

`hashlib` loads libcrypto; the interpreter brings a SHA-256 of its own, and a node that
works alone, without TLS, needs no more. Where TLS has loaded it, it is taken: several times
faster with a processor's own instructions.
"""

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
    """A digest that only who knows the secret (at most 64 bytes) can make: BLAKE2b (RFC 7693)
    of 32 bytes. In plain C it is four times as fast as SHA-256, with the lock given away."""
    return _blake2b(key=secret, digest_size=32)
