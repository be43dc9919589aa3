"""TLS with a real mosquitto and certificates made for the occasion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Broker
from tests.mqtt.harness import config_for, running, wait_for_error, wait_until_connected
from tests.support.mosquitto import Certificates, Mosquitto, needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto, needs_openssl]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def port(tmp_path: Path, certificates: Certificates) -> Iterator[int]:
    """A broker that wants no certificate of its clients."""
    with Mosquitto(tmp_path, *certificates.settings()) as broker:
        yield broker.port


def by_name(port: int) -> dict[str, Any]:
    """The broker under the name in its certificate."""
    return {"brokers": (Broker("localhost", port, True),)}


def test_results_arrive_over_tls(port: int, certificates: Certificates) -> None:
    with running(config_for(ca_file=certificates.ca, **by_name(port))) as link:
        for item in range(50):
            link.report(str(item) * 5000)  # more than one TLS record
        wait_until(lambda: link.status()["sent"] == 50, "all is sent")
        assert link.status()["broker"] == f"mqtts://localhost:{port}"


def test_the_name_in_the_certificate_can_be_configured(
    port: int, certificates: Certificates
) -> None:
    config = config_for(port, tls=True, ca_file=certificates.ca, tls_server_name="localhost")
    with running(config) as link:
        wait_until_connected(link)


def test_a_certificate_for_another_name_is_refused(port: int, certificates: Certificates) -> None:
    with running(config_for(port, tls=True, ca_file=certificates.ca)) as link:
        wait_for_error(link, "certificate is refused", "127.0.0.1", "tls_server_name")


def test_a_certificate_of_another_authority_is_refused(
    port: int, certificates: Certificates
) -> None:
    other = certificates.client[0]
    with running(config_for(ca_file=other, **by_name(port))) as link:
        wait_for_error(link, "certificate is refused", "ca_file")


def test_the_systems_authorities_are_the_default(port: int) -> None:
    with running(config_for(**by_name(port))) as link:
        wait_for_error(link, "certificate is refused", "ca_file")


def test_a_broker_without_tls_is_told_apart(tmp_path: Path, certificates: Certificates) -> None:
    with Mosquitto(tmp_path) as broker:
        config = config_for(ca_file=certificates.ca, **by_name(broker.port))
        with running(config) as link:
            wait_for_error(link, "does that port speak TLS?")


def test_a_broker_that_wants_tls_is_told_apart(port: int) -> None:
    with running(config_for(port)) as link:
        wait_for_error(link, "is TLS wanted there")


def test_a_client_certificate_is_presented(tmp_path: Path, certificates: Certificates) -> None:
    certificate, key = certificates.client
    with Mosquitto(tmp_path, *certificates.settings(require_client=True)) as broker:
        config = config_for(
            ca_file=certificates.ca, cert_file=certificate, key_file=key, **by_name(broker.port)
        )
        with running(config) as link:
            wait_until_connected(link)


def test_a_missing_client_certificate_is_told(tmp_path: Path, certificates: Certificates) -> None:
    with Mosquitto(tmp_path, *certificates.settings(require_client=True)) as broker:
        config = config_for(ca_file=certificates.ca, **by_name(broker.port))
        with running(config) as link:
            wait_for_error(link, "certificate required")


@pytest.mark.parametrize("what", ["ca_file", "cert_file"])
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, certificates: Certificates, what: str
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate\n")
    files = {
        "ca_file": certificates.ca,
        "cert_file": certificates.client[0],
        "key_file": certificates.client[1],
        what: wrong,
    }
    with running(config_for(1, tls=True, **files)) as link:
        wait_for_error(link, what, "wrong.pem")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(
    tmp_path: Path, certificates: Certificates
) -> None:
    certificate, key = certificates.client
    locked = certificates.lock(key, tmp_path / "locked.key")
    files = {"ca_file": certificates.ca, "cert_file": certificate, "key_file": locked}
    with running(config_for(1, tls=True, **files)) as link:
        wait_for_error(link, "locked.key", "without a password")
