"""When the certificate for the broker counts, and a warning before it ends.

Of X.509 (RFC 5280, 4.1) nothing but the validity is read: Python's ssl tells of the other side's
certificate only. It is the first certificate of the file, as OpenSSL does for a chain. After its
end the node is unreachable.
"""

import binascii
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError, StoreError
from edge_agent.loop import Loop, Timer
from edge_agent.mqtt import certificate
from edge_agent.store import files

log = logging.getLogger(__name__)


MAX_FILE_BYTES = 256 << 10  # a certificate has some 2 KiB, and a file may hold its chain

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*+)-----END CERTIFICATE-----")
_WHEN = re.compile(r"[0-9]{14}Z")
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def read(path: Path) -> Validity:
    """When the certificate in a PEM file counts. ConfigError: it cannot be read, or is no
    certificate."""
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
    """When the first certificate in a PEM text counts. ValueError: there is none."""
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


LOOK_S = 6 * 3600.0  # between two looks at the file, which is renewed in its place


class CertificateWatch:
    """Looks at the start, at each reload and now and then. All methods belong to the loop's
    thread."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`run` has something done on a thread that may wait for the disk."""
        self._loop = loop
        self._run = run
        self._changed = changed
        self._clock = clock
        self._found: Validity | None = None
        self._logged = ""  # so that it is in the log once for each certificate
        self._timer: Timer | None = None

    def watch(self, path: Path) -> None:
        """Look at this file from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LOOK_S, partial(self.watch, path))
        self._run(partial(self._look, path))

    def reported(self) -> dict[str, int] | None:
        """For the fleet; None: there is none that can be read."""
        if self._found is None:
            return None
        return {"issued": int(self._found.issued), "expires": int(self._found.expires)}

    def _look(self, path: Path) -> None:
        """On the other thread."""
        try:
            found = certificate.read(path)
        except ConfigError:
            found = None  # the link reports why it cannot connect with it
        self._loop.call_soon(partial(self._looked, path, found))

    def _looked(self, path: Path, found: Validity | None) -> None:
        before, self._found = self._found, found
        if found != before:
            self._logged = ""
            self._changed()
        told = found.ending(self._clock()) if found is not None else ""
        word = told[:8]  # "expires " or "expired ": each once, not each number of days
        if told and word != self._logged:
            self._logged = word
            log.warning(
                "%s %s; whoever has the fleet's authority renews it:"
                " configs/mosquitto/certificate renew %s",
                path,
                told,
                path.stem,
            )
