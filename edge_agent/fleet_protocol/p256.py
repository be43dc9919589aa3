"""ECDSA on the curve P-256 with SHA-256 (FIPS 186-5), checked by the OpenSSL that Python has.

PyNaCl has Ed25519 only. Python's own `_hashlib` is linked with a libcrypto, which TLS loads on
every node with a broker; its functions are called here by name, so nothing is to be installed.
A signature is r and s, 32 bytes each, as PKCS #11 has it.
"""

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from edge_agent.errors import CryptoError

if TYPE_CHECKING:
    import ctypes

SIGNATURE_BYTES = 64
_NUMBER_BYTES = 32
_GOOD = 1  # of EVP_DigestVerify; 0 is a bad signature, a negative number one of another form


def verify(der: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of the key in this SubjectPublicKeyInfo (RFC 5480) signed `message`.

    CryptoError: cannot be found out here.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    crypto = _libcrypto()
    import ctypes

    start = ctypes.c_char_p(der)
    key = crypto.d2i_PUBKEY(None, ctypes.byref(start), len(der))
    context = crypto.EVP_MD_CTX_new()
    try:
        if not key:
            return False  # not on the curve
        if (
            not context
            or crypto.EVP_DigestVerifyInit(context, None, crypto.EVP_sha256(), None, key) != _GOOD
        ):
            raise CryptoError("signatures of ECDSA cannot be checked: libcrypto refuses")
        sig = der_signature(signature)
        done = crypto.EVP_DigestVerify(context, sig, len(sig), message, len(message))
        return bool(done == _GOOD)
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


@cache
def _libcrypto() -> "ctypes.CDLL":
    """The one that this Python's OpenSSL functions come from. CryptoError."""
    try:
        import _hashlib
        import ctypes

        # What a library is linked with is found through it; None: all is in the program itself.
        crypto = ctypes.CDLL(_file(_hashlib))
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        crypto.d2i_PUBKEY.argtypes = [pointer, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long]
        crypto.EVP_MD_CTX_new.argtypes = crypto.EVP_sha256.argtypes = []
        crypto.EVP_DigestVerifyInit.argtypes = [pointer] * 5
        crypto.EVP_DigestVerify.argtypes = [pointer, ctypes.c_char_p, size, ctypes.c_char_p, size]
        crypto.EVP_MD_CTX_free.argtypes = crypto.EVP_PKEY_free.argtypes = [pointer]
        for each in (crypto.d2i_PUBKEY, crypto.EVP_MD_CTX_new, crypto.EVP_sha256):
            each.restype = pointer
        for each in (crypto.EVP_MD_CTX_free, crypto.EVP_PKEY_free, crypto.ERR_clear_error):
            each.restype = None
    except (ImportError, OSError, AttributeError) as error:
        raise CryptoError(
            f"signatures of ECDSA cannot be checked: this Python has no OpenSSL ({error})"
        ) from error
    return crypto


def _file(module: ModuleType) -> str | None:
    return getattr(module, "__file__", None)
