"""Signatures of Ed25519 (RFC 8032) by the OpenSSL that TLS has loaded on a node with a broker.

For a node's own key. What comes from the fleet is checked by PyNaCl (fleet_protocol/keys), which
a node without a deployment does not load.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_agent.errors import CryptoError
from edge_agent.fleet_protocol.libcrypto import GOOD, libcrypto

if TYPE_CHECKING:
    import ctypes

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_EVP_PKEY_ED25519 = 1087  # OpenSSL's NID_ED25519, since 1.1.1


def public_of(seed: bytes) -> bytes:
    """The public key, 32 bytes, of a private key of RFC 8032, 32 bytes. CryptoError."""
    import ctypes

    with _private(seed) as (crypto, key):
        found = ctypes.create_string_buffer(KEY_BYTES)
        size = ctypes.c_size_t(KEY_BYTES)
        if crypto.EVP_PKEY_get_raw_public_key(key, found, ctypes.byref(size)) != GOOD:
            raise CryptoError("libcrypto gives no public key of Ed25519")
        return found.raw


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature, 64 bytes. CryptoError."""
    import ctypes

    with _private(seed) as (crypto, key):
        context = crypto.EVP_MD_CTX_new()
        try:
            found = ctypes.create_string_buffer(SIGNATURE_BYTES)
            size = ctypes.c_size_t(SIGNATURE_BYTES)
            # No digest is named: Ed25519 has its own.
            if (
                not context
                or crypto.EVP_DigestSignInit(context, None, None, None, key) != GOOD
                or crypto.EVP_DigestSign(context, found, ctypes.byref(size), message, len(message))
                != GOOD
            ):
                raise CryptoError("libcrypto makes no signature of Ed25519")
            return found.raw
        finally:
            crypto.EVP_MD_CTX_free(context)  # takes a null pointer


@contextmanager
def _private(seed: bytes) -> "Iterator[tuple[ctypes.CDLL, int]]":
    if len(seed) != KEY_BYTES:
        raise CryptoError(f"a key of Ed25519 has {KEY_BYTES} bytes, not {len(seed)}")
    crypto = libcrypto()
    key = crypto.EVP_PKEY_new_raw_private_key(_EVP_PKEY_ED25519, None, seed, len(seed))
    try:
        if not key:
            raise CryptoError("libcrypto knows no Ed25519")
        yield crypto, key
    finally:
        crypto.EVP_PKEY_free(key)  # takes a null pointer
        crypto.ERR_clear_error()  # or Python's ssl would take it for one of its own
