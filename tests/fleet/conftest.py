import pytest

from tests.support.mosquitto import OPENSSL, Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    return Certificates(tmp_path_factory.mktemp("certificates"))
