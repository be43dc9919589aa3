"""When a certificate counts, as openssl wrote it; and what is none."""

from __future__ import annotations

import calendar
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ConfigError
from edge_agent.mqtt import certificate
from tests.support.mosquitto import needs_openssl


def make(path: Path, *words: str) -> bytes:
    """A certificate for one of openssl's own keys."""
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", str(path.with_suffix(".key")), "-out", str(path))
    named = ("-subj", "/CN=board-7/O=Größe", "-utf8")
    subprocess.run(["openssl", *new, *files, *named, *words], check=True, capture_output=True)
    return path.read_bytes()


def by_openssl(path: Path) -> tuple[float, float]:
    """What openssl says of it."""
    words = ["openssl", "x509", "-in", str(path), "-noout", "-dates"]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    times = [
        calendar.timegm(time.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y GMT"))
        for line in told.splitlines()
    ]
    return times[0], times[1]


@needs_openssl
@pytest.mark.parametrize("days", ["1", "90", "3650", "15000", "300000"])
def test_the_times_are_those_that_openssl_reads(tmp_path: Path, days: str) -> None:
    """Beyond 2050 a certificate has another form of time."""
    file = tmp_path / "board-7.pem"
    make(file, "-days", days)
    assert certificate.read(file) == by_openssl(file)


@needs_openssl
def test_of_a_chain_the_first_counts_and_text_before_it_is_none(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a.pem", "-days", "7"), make(tmp_path / "b.pem", "-days", "99")
    (tmp_path / "chain.pem").write_bytes(b"Certificate:\n  Data\n" + first + second)
    assert certificate.read(tmp_path / "chain.pem") == by_openssl(tmp_path / "a.pem")


@needs_openssl
def test_what_is_cut_or_changed_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    pem = make(tmp_path / "a.pem", "-days", "7")
    for at in range(0, len(pem), 3):
        for changed in (pem[:at], pem[:at] + b"A" + pem[at + 1 :]):
            try:
                certificate.validity(changed)
            except ValueError:
                pass


@given(st.binary(max_size=300))
def test_rubbish_is_refused(der: bytes) -> None:
    import base64

    body = base64.b64encode(der)
    text = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match=r"."):
        certificate.validity(text)


def test_a_file_that_is_missing_or_no_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pem: no such file"):
        certificate.read(tmp_path / "none.pem")
    (tmp_path / "a.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"a\.pem: no PEM certificate"):
        certificate.read(tmp_path / "a.pem")
    with pytest.raises(ConfigError, match="is not a file"):
        certificate.read(tmp_path)


def test_it_brings_nothing_heavy() -> None:
    """A board pays for it as long as the agent runs."""
    script = (
        "import sys\n"
        "from edge_agent.mqtt import certificate\n"
        "assert not {'ssl', '_ssl', '_strptime', 'calendar', '_hashlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
