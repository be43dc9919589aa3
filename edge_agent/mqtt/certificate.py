"""When the certificate for a broker counts: of X.509 (RFC 5280, 4.1) nothing but that. Pure, but
for the file.

Python's ssl tells of the other side's certificate only. Read is the first of the file, as OpenSSL
does for a chain.
"""

import binascii
import re
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.errors import ConfigError, StoreError
from edge_agent.store import files
from edge_agent.validity import Validity

MAX_FILE_BYTES = 256 << 10  # a certificate has some 2 KiB, and a file may hold its chain

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*+)-----END CERTIFICATE-----")
_WHEN = re.compile(r"[0-9]{14}Z")
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def read(path: Path) -> Validity:
    """Of the certificate in a PEM file. ConfigError: it cannot be read, or is none."""
    try:
        data = files.read(path, MAX_FILE_BYTES)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    if data is None:
        raise ConfigError(f"{path}: no such file")
    try:
        return validity(data)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def validity(pem: bytes) -> Validity:
    """Of the first certificate in a PEM text. ValueError: there is none."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no PEM certificate is in it")
    der = binascii.a2b_base64(b"".join(found[1].split()))
    certificate, _ = _take(der, _SEQUENCE)
    body, _ = _take(certificate, _SEQUENCE)
    if body[:1] == bytes((_VERSION,)):
        _, body = _take(body)
    for _ in ("serialNumber", "signature", "issuer"):
        _, body = _take(body)
    times, _ = _take(body, _SEQUENCE)
    (begins, rest), form = _take(times), times[:1]
    ends, _ = _take(rest)
    return Validity(_seconds(form, begins), _seconds(rest[:1], ends))


def _take(der: bytes, wanted: int | None = None) -> tuple[bytes, bytes]:
    """The content of the first element (X.690, 8.1), and what follows it. ValueError."""
    if len(der) < 2 or wanted not in (None, der[0]):
        raise ValueError("it is no X.509 certificate")
    size, at = der[1], 2
    if size & 0x80:
        at += size & 0x7F
        size = int.from_bytes(der[2:at], "big")
    if len(der) - at < size:
        raise ValueError("it is no X.509 certificate, or cut")
    return der[at : at + size], der[at + size :]


def _seconds(form: bytes, content: bytes) -> float:
    """RFC 5280, 4.1.2.5: both end with Z; two digits of a year are of 1950 to 2049."""
    text = content.decode("ascii")
    if form == bytes((_UTC_TIME,)):
        text = ("19" if text[:2] >= "50" else "20") + text
    if not _WHEN.fullmatch(text):
        raise ValueError("it is no X.509 certificate")
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC).timestamp()
