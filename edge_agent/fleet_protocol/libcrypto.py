"""Signatures by the OpenSSL that Python itself is linked with, called by ctypes.

Ed25519 (RFC 8032) for a node's own key, and checking ECDSA on the curve P-256 with SHA-256 (FIPS
186-5). Ed25519 of the fleet's keys is checked by PyNaCl (edge_agent.fleet_protocol.keys), which a
node without a deployment does not load. Python's `_hashlib` is linked with a libcrypto, which TLS
loads on every node with a broker; its functions are found by name through that module, so nothing
is to be installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from edge_agent.errors import CryptoError

if TYPE_CHECKING:
    import ctypes


GOOD = 1  # of the EVP functions


@cache
def libcrypto() -> "ctypes.CDLL":
    """The library, its functions with their types. CryptoError: this Python has none."""
    try:
        import _hashlib
        import ctypes

        # What a library is linked with is found through it; None: all is in the program itself.
        crypto = ctypes.CDLL(_file(_hashlib))
        pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
        sizes = ctypes.POINTER(size)
        crypto.d2i_PUBKEY.argtypes = [pointer, ctypes.POINTER(text), ctypes.c_long]
        crypto.EVP_MD_CTX_new.argtypes = crypto.EVP_sha256.argtypes = []
        crypto.EVP_DigestVerifyInit.argtypes = crypto.EVP_DigestSignInit.argtypes = [pointer] * 5
        crypto.EVP_DigestVerify.argtypes = [pointer, text, size, text, size]
        crypto.EVP_DigestSign.argtypes = [pointer, text, sizes, text, size]
        crypto.EVP_PKEY_new_raw_private_key.argtypes = [ctypes.c_int, pointer, text, size]
        crypto.EVP_PKEY_get_raw_public_key.argtypes = [pointer, text, sizes]
        crypto.EVP_MD_CTX_free.argtypes = crypto.EVP_PKEY_free.argtypes = [pointer]
        for each in (
            *(crypto.d2i_PUBKEY, crypto.EVP_MD_CTX_new, crypto.EVP_sha256),
            crypto.EVP_PKEY_new_raw_private_key,
        ):
            each.restype = pointer
        for each in (crypto.EVP_MD_CTX_free, crypto.EVP_PKEY_free, crypto.ERR_clear_error):
            each.restype = None
    except (ImportError, OSError, AttributeError) as error:
        raise CryptoError(f"this Python has no OpenSSL ({error})") from error
    return crypto


def _file(module: ModuleType) -> str | None:
    return getattr(module, "__file__", None)


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


_NUMBER_BYTES = 32


def verify_p256(der: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of the key in this SubjectPublicKeyInfo (RFC 5480) signed `message`.

    CryptoError: cannot be found out here.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto = libcrypto()
    except CryptoError as error:
        raise CryptoError(f"signatures of ECDSA cannot be checked: {error}") from error
    import ctypes

    start = ctypes.c_char_p(der)
    key = crypto.d2i_PUBKEY(None, ctypes.byref(start), len(der))
    context = crypto.EVP_MD_CTX_new()
    try:
        if not key:
            return False  # not on the curve
        if (
            not context
            or crypto.EVP_DigestVerifyInit(context, None, crypto.EVP_sha256(), None, key) != GOOD
        ):
            raise CryptoError("signatures of ECDSA cannot be checked: libcrypto refuses")
        sig = der_signature(signature)
        done = crypto.EVP_DigestVerify(context, sig, len(sig), message, len(message))
        # 0 is a bad signature, a negative number one of another form.
        return bool(done == GOOD)
    finally:
        crypto.EVP_MD_CTX_free(context)  # both take a null pointer
        crypto.EVP_PKEY_free(key)
        crypto.ERR_clear_error()  # or Python's ssl would take it for one of its own


def der_signature(signature: bytes) -> bytes:
    """The same signature as OpenSSL and X.509 have it: SEQUENCE of two INTEGER."""
    r, s = signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:]
    body = _integer(r) + _integer(s)
    return bytes((0x30, len(body))) + body


def _integer(number: bytes) -> bytes:
    least = number.lstrip(b"\0") or b"\0"
    if least[0] & 0x80:
        least = b"\0" + least
    return bytes((2, len(least))) + least
