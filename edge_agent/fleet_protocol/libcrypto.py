"""The OpenSSL that Python itself is linked with, called by ctypes.

Python's `_hashlib` is linked with a libcrypto, which TLS loads on every node with a broker. Its
functions are found by name through that module, so nothing is to be installed.
"""

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
