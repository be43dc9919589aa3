from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Certificates
from tests.support.webserver import WebServer


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """As if this machine's administrator had added the tests' authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return certificates


@pytest.fixture
def server(trusted: Certificates) -> Iterator[WebServer]:
    with WebServer(trusted) as server:
        yield server


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "from-a-source"
