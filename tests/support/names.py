"""Names of hosts that tests need."""

import functools
import socket

import pytest


@functools.cache
def _localhost_is_known() -> bool:
    try:
        return socket.gethostbyname("localhost") == "127.0.0.1"
    except OSError:
        return False


def require_localhost() -> None:
    """Skip the calling test where `localhost` is no name, as in a bare root without /etc/hosts:
    certificates are for names."""
    if not _localhost_is_known():
        pytest.skip("localhost has no address here (no /etc/hosts?)")
