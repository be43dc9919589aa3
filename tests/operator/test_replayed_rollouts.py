"""`fleet rollout --replay`: nothing is deployed unless the difference is the declared one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.authors import recording
from edge_agent.errors import OperatorError
from edge_agent.operator import releases
from edge_agent.operator.blobs import download
from edge_agent.pb import nri_pb2
from edge_agent.store.digest import Digest
from tests.operator.conftest import Home
from tests.operator.test_recordings import EVENT
from tests.support.assembler import i32
from tests.support.mosquitto import needs_mosquitto
from tests.wasm.plugins import packed, plugin

pytestmark = [pytest.mark.system, needs_mosquitto]

ROLLOUT = ("rollout", "mark", "1.1.0", "--percent", "100", "-y")
DIFFERENCE = "now: + env MODE=fast"


def marking(**env: str) -> bytes:
    """A plugin that gives every container these variables."""
    reply = nri_pb2.CreateContainerResponse()
    for key, value in env.items():
        reply.adjust.env.add(key=key, value=value)
    raw = reply.SerializeToString()
    return plugin({"create_container": packed(i32(1024), i32(len(raw)))}, data={1024: raw})


@pytest.fixture
def fleet(home: Home, tmp_path: Path) -> Home:
    """1.0.0 is deployed, 1.1.0 is published."""
    for version, env in (("1.0.0", {"A": "b"}), ("1.1.0", {"A": "b", "MODE": "fast"})):
        file = tmp_path / f"{version}.wasm"
        file.write_bytes(marking(**env))
        home.fleet("publish", str(file), "--name", "mark", "--version", version)
    home.fleet("rollout", "mark", "1.0.0", "--percent", "100", "--index", "20", "-y")
    return home


def recorded(folder: Path, plugin: str = "20-mark") -> tuple[str, str]:
    """--replay with a file of two events of one plugin and one of another."""
    events = [replace(EVENT, plugin=plugin), replace(EVENT, plugin="99-else")] * 2
    file = folder / f"{plugin}.edgerec"
    file.write_bytes(recording.encoded({}, events[:-1]))
    return "--replay", str(file)


def deployed(home: Home) -> str:
    return (home.path / "deployment.toml").read_text() + (home.path / "deployed.toml").read_text()


def test_the_declared_difference_is_deployed_and_no_other(fleet: Home, tmp_path: Path) -> None:
    replay, before = recorded(tmp_path), deployed(fleet)
    for expected, reason in (
        ((), "mark 1.0.0 and 1.1.0 differ otherwise than --expect declares, at 2 of 2 events"),
        (("now: + env OTHER=*",), "differ otherwise than --expect declares, at 2 of 2 events"),
        ((DIFFERENCE, "before: *"), "shows the declared difference 'before: *' between mark 1.0.0"),
    ):
        options = [word for each in expected for word in ("--expect", each)]
        code, told, errors = fleet.tried(*ROLLOUT, *replay, *options)
        assert code == 1
        assert reason in errors
        assert "nothing is deployed" in errors
        assert told.count(DIFFERENCE) == 2
        assert deployed(fleet) == before
    told = fleet.fleet(*ROLLOUT, *replay, "--expect", "now: + env MODE=*")
    assert "mark 1.0.0 and 1.1.0: 2 events, 2 differ, 0 not as expected" in told
    assert "deployed generation 2" in told


def test_releases_that_do_the_same_need_nothing_declared(fleet: Home, tmp_path: Path) -> None:
    fleet.fleet("publish", str(tmp_path / "1.0.0.wasm"), "--name", "mark", "--version", "1.0.1")
    rollout = ("rollout", "mark", "1.0.1", "--percent", "10", "-y")
    told = fleet.fleet(*rollout, *recorded(tmp_path))
    assert "mark 1.0.0 and 1.0.1: 2 events, 0 differ, 0 not as expected" in told
    # What goes on is compared with the other release too, not with itself.
    advance = ("rollout", "mark", "1.0.1", "--percent", "50", "-y")
    assert "mark 1.0.0 and 1.0.1" in fleet.fleet(*advance, *recorded(tmp_path))


def test_permissions_and_configuration_are_those_of_each_release(
    fleet: Home, tmp_path: Path
) -> None:
    file = fleet.path / "deployment.toml"
    file.write_text(file.read_text().replace('permissions = ["*"]', 'permissions = ["mounts"]'))
    code, told, _ = fleet.tried(*ROLLOUT, *recorded(tmp_path))
    assert code == 1
    assert "before: + env A=b" in told
    assert "now: denied: " in told


def test_a_program_gets_the_comparison_as_an_object(fleet: Home, tmp_path: Path) -> None:
    replay = recorded(tmp_path)
    code, told, errors = fleet.tried(*ROLLOUT, *replay, "--json")
    assert code == 1
    assert "nothing is deployed" in errors
    (found,) = [json.loads(line)["replay"] for line in told.splitlines() if '"replay"' in line]
    assert (found["file"], found["against"], found["events"]) == (replay[1], "1.0.0", 2)
    assert [each["unexpected"] for each in found["different"]] == [[DIFFERENCE]] * 2


def test_where_nothing_can_be_compared_nothing_is_deployed(fleet: Home, tmp_path: Path) -> None:
    before = deployed(fleet)
    new = ("rollout", "new", "1.0.0", "--percent", "100", "--index", "30", "-y")
    fleet.fleet("publish", str(tmp_path / "1.0.0.wasm"), "--name", "new", "--version", "1.0.0")
    for words, reason in (
        ((*ROLLOUT, *recorded(tmp_path, "20-other")), "has no event of 20-mark"),
        ((*new, *recorded(tmp_path)), "no other release of new is deployed"),
        ((*ROLLOUT, "--expect", "x"), "--expect declares differences over the events of --replay"),
        (
            ("rollout", "mark", "1.0.0", "--pause", *recorded(tmp_path)),
            "--replay compares before something is deployed",
        ),
        (
            ("rollout", "mark", "1.0.0", "--watch", *recorded(tmp_path)),
            "--replay compares before something is deployed",
        ),
        ((*ROLLOUT, "--replay", str(tmp_path / "none")), "cannot be read: No such file"),
        ((*ROLLOUT, "--replay", str(tmp_path / "1.0.0.wasm")), "damaged: Not a gzipped file"),
    ):
        code, _, errors = fleet.tried(*words)
        assert code == 1
        assert reason in errors
        assert deployed(fleet) == before


def test_a_module_that_the_broker_changed_is_not_run(fleet: Home, tmp_path: Path) -> None:
    with fleet.opened() as opened:
        blob = releases.load(opened.folder, "mark", "1.1.0")
        assert download(opened.client, opened.topics, blob) == marking(A="b", MODE="fast")
        topic = opened.topics.blob_part(blob.digest, 0)
        part = opened.client.kept(topic)
        assert part is not None
        other = releases.load(opened.folder, "mark", "1.0.0")
        others = opened.client.kept(opened.topics.blob_part(other.digest, 0))
        for wrong, reason in (
            (others, "another module"),
            (part[:-1] + bytes([part[-1] ^ 1]), "damaged|another module"),
            (b"\0" * 100, "damaged"),
            (b"\0" * (blob.part_size + 1), "is not at the broker"),
            (b"", "is not at the broker"),
        ):
            assert wrong is not None
            opened.client.publish(topic, wrong, retain=True)
            with pytest.raises(OperatorError, match=reason):
                download(opened.client, opened.topics, blob)
        opened.client.publish(topic, part, retain=True)
        for changed in (
            replace(blob, size=blob.size - 1),
            replace(blob, digest=blob.digest, size=blob.size + 1, parts=blob.parts + 1),
            replace(blob, digest=Digest.of(b"x")),
            replace(blob, parts=0),
        ):
            with pytest.raises(OperatorError):
                download(opened.client, opened.topics, changed)
        opened.client.publish(topic, others or b"", retain=True)
    code, _, errors = fleet.tried(*ROLLOUT, *recorded(tmp_path), "--expect", "*")
    assert code == 1
    assert "mark 1.1.0: " in errors
    assert "1.1.0" not in (fleet.path / "deployed.toml").read_text()
