"""ECDSA on the curve P-256 with SHA-256 (FIPS 186-5), checked by the OpenSSL that Python has.

PyNaCl has Ed25519 only. A signature is r and s, 32 bytes each, as PKCS #11 has it.
"""

from edge_agent.errors import CryptoError
from edge_agent.fleet_protocol.libcrypto import GOOD, libcrypto

SIGNATURE_BYTES = 64
_NUMBER_BYTES = 32


def verify(der: bytes, message: bytes, signature: bytes) -> bool:
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
