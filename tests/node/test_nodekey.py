"""A node's own key: made once, kept, never the end of the agent; and the states that it signs."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import StoreError
from edge_agent.fleet_protocol import keys, libcrypto, signed_states
from edge_agent.fleet_protocol.keys import parse_private, parse_public
from edge_agent.loop import Loop
from edge_agent.node import nodekey
from edge_agent.node.nodekey import NodeKey, load
from edge_agent.sim.broker import Broker
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store import files
from tests.mqtt.observer import Message, Observer
from tests.support.agent import Agent
from tests.support.faults import survives
from tests.support.mosquitto import needs_openssl
from tests.support.wait import wait_until

DOCUMENT = b'{"session":1,"number":1,"fleet":"greenhouse","node":"board-7"}'


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_it_is_made_once_for_nobody_else_to_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    with caplog.at_level(logging.INFO):
        first = load(folder)
        assert load(folder) == first
    assert (folder / "node.key").stat().st_mode & 0o777 == 0o600
    assert parse_private((folder / "node.key").read_text()) == first.seed
    assert parse_public((folder / "node.pem").read_text()).raw == first.public
    assert sum("made this node's key" in each.message for each in caplog.records) == 1
    assert first.seed.hex() not in caplog.text
    assert load(tmp_path / "other") != first


@needs_openssl
def test_openssl_reads_it(tmp_path: Path) -> None:
    import subprocess

    load(tmp_path)
    command = ["openssl", "pkey", "-in", str(tmp_path / "node.key"), "-pubout"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == (tmp_path / "node.pem").read_text()


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(200))


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _huge(path: Path) -> None:
    path.write_bytes(bytes(1 << 20))


def _public(path: Path) -> None:
    path.write_bytes(path.with_suffix(".pem").read_bytes())


@pytest.mark.parametrize("damage", [_garbage, _half, _empty, _huge, _public])
def test_a_damaged_file_costs_the_enrolment_and_no_more(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = load(tmp_path)
    damage(tmp_path / "node.key")
    after = load(tmp_path)
    assert after != before
    assert load(tmp_path) == after
    assert parse_public((tmp_path / "node.pem").read_text()).raw == after.public
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "a new key is made" in warning.getMessage()


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo])
def test_what_is_no_file_is_left_and_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "node.key")
    with pytest.raises(StoreError):
        load(tmp_path)


def test_a_public_file_that_is_lost_or_wrong_is_written_again(tmp_path: Path) -> None:
    key = load(tmp_path)
    for damage in (lambda path: path.unlink(), _garbage, _huge):
        damage(tmp_path / "node.pem")
        assert load(tmp_path) == key
        assert parse_public((tmp_path / "node.pem").read_text()).raw == key.public


def test_interrupted_anywhere_there_is_one_key_or_none_and_never_half(tmp_path: Path) -> None:
    made: list[bytes] = []

    def judge(root: Path) -> None:
        raw = files.read(root / "state" / "node.key", 4096)
        made.append(b"" if raw is None else parse_private(raw.decode()))
        assert load(root / "state").seed == (made[-1] or load(root / "state").seed)

    counts = survives(
        tmp_path, lambda _: None, lambda root: load(root / "state"), judge, done=judge
    )
    assert min(counts.values()) > 4
    assert b"" in made
    assert any(made)


def test_states_are_signed_once_the_key_is_there(loop: Loop, tmp_path: Path) -> None:
    jobs: list[Callable[[], None]] = []
    changes: list[bool] = []
    key = NodeKey(loop, jobs.append, lambda: changes.append(True), tmp_path)
    key.begin()
    assert key.seal(DOCUMENT) == DOCUMENT
    assert "trouble" in key.status()
    for job in jobs:
        job()
    loop.call_soon(loop.stop)
    loop.run()
    assert changes == [True]
    public = parse_public((tmp_path / "node.pem").read_text())
    assert key.status() == {"id": public.keyid, "file": str(tmp_path / "node.pem")}
    message = key.seal(DOCUMENT)
    assert signed_states.check(message, json.loads(message), public, "greenhouse", "board-7") == (
        1,
        1,
    )


def test_a_disk_that_gives_no_key_is_asked_again(
    loop: Loop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(nodekey, "RETRY_S", 0.01)
    tries: list[int] = []
    write = files.write

    def failing(path: Path, data: bytes, mode: int = files.PRIVATE_FILE) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise files.failure("write", path, OSError(errno.ENOSPC, "full"))
        write(path, data, mode)

    monkeypatch.setattr(files, "write", failing)
    key = NodeKey(loop, lambda job: job(), loop.stop, tmp_path)
    key.begin()
    assert "disk" in key.status()["trouble"]
    assert key.seal(DOCUMENT) == DOCUMENT
    loop.run()  # until there is one
    assert "trouble" not in key.status()
    assert sum("is not signed" in each.message for each in caplog.records) == 1


def states(observer: Observer) -> list[Message]:
    return observer.messages("state")


def test_a_real_agent_signs_what_it_says_over_restarts_with_one_key(tmp_path: Path) -> None:
    with (
        Broker() as broker,
        SimRuntime(tmp_path / "nri.sock"),
        Observer(broker.port) as observer,
    ):
        agent = Agent(
            tmp_path,
            sockets=[tmp_path / "nri.sock"],
            node="board-7",
            fleet="greenhouse",
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}"},
        )
        for _ in range(2):
            seen = len(states(observer))
            with agent:
                public_file = tmp_path / "state" / "node.pem"
                wait_until(
                    lambda seen=seen: any(  # type: ignore[misc]
                        b'"signed":' in each.payload for each in states(observer)[seen:]
                    ),
                    "a signed state",
                )
                public = parse_public(public_file.read_text())
                assert agent.status()["key"] == {"id": public.keyid, "file": str(public_file)}
        orders = [
            signed_states.check(
                each.payload, json.loads(each.payload), public, "greenhouse", "board-7"
            )
            for each in states(observer)
            if b'"signed":' in each.payload
        ]
    assert orders == sorted(set(orders)), "no state takes the place of a later one"
    assert len({session for session, _ in orders}) == 2
    assert public.raw == libcrypto.public_of(
        keys.parse_private((tmp_path / "state" / "node.key").read_text())
    )
