"""A node that says when its certificate for the broker ends."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edge_agent.loop import Loop
from edge_agent.mqtt import certificate
from edge_agent.mqtt.certificate import LOOK_S, CertificateWatch
from tests.mqtt.test_certificate import make
from tests.support.mosquitto import needs_openssl

DAY = 86_400
pytestmark = needs_openssl


class Node:
    """What watches, with a clock; `look` is what its timer does."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.now = 0.0
        self.changes = 0
        self._loop = loop
        self._path = path
        self.watch = CertificateWatch(
            loop, lambda work: work(), self._changed, clock=lambda: self.now
        )

    def look(self) -> None:
        self.watch.watch(self._path)
        self._loop.call_soon(self._loop.stop)
        self._loop.run()

    def _changed(self) -> None:
        self.changes += 1


def test_it_is_in_the_state_and_from_the_last_third_on_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "board-7.pem"
    make(path, "-days", "90")
    found = certificate.read(path)
    with Loop() as loop, caplog.at_level(logging.WARNING):
        node = Node(loop, path)
        node.now = found.issued
        node.look()
        assert node.watch.reported() == {"issued": found.issued, "expires": found.expires}
        assert (node.changes, caplog.messages) == (1, [])
        node.now = found.expires - 20 * DAY
        for _ in range(3):
            node.look()
            node.now += LOOK_S
        assert (node.changes, len(caplog.messages)) == (1, 1)
        assert "expires in 20 days" in caplog.messages[0]
        assert "configs/mosquitto/certificate renew board-7" in caplog.messages[0]
        node.now = found.expires + 1
        for _ in range(2):
            node.look()
        assert len(caplog.messages) == 2
        assert "expired on" in caplog.messages[1]
        make(path, "-days", "9000")  # in its place
        node.look()
        assert (node.changes, len(caplog.messages)) == (2, 2)
        path.write_text("rubbish")
        node.look()
        assert node.watch.reported() is None
