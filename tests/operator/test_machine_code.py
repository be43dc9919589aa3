"""`fleet publish --code`: for whom code is made, that it reaches the broker, what signers see."""

import json
import os
import tomllib
import zlib
from collections.abc import Callable

import pytest

from edge_agent.errors import EngineError, OperatorError
from edge_agent.operator import blobs, releases
from edge_agent.operator.node_state import Node
from edge_agent.operator.releases import Kind, Maker
from edge_agent.wasm.engine import metered_settings
from edge_agent.wasm.engines.native import WasmerEngine
from tests.operator.conftest import GUARD, LOGGER, Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

Peers = Callable[..., list[Peer]]
HERE = os.uname().machine


@pytest.fixture
def maker() -> Maker:
    try:
        return Maker()
    except (EngineError, OperatorError) as error:
        pytest.skip(f"needs wasmer: {error}")


def says(maker: Maker, target: str = HERE, *, wide: bool = True, takes: bool = True) -> Node:
    """A node of a kind."""
    settings = WasmerEngine(wide).settings()
    state = {
        "engine": {"name": "wasmer", "version": maker.version, "settings": settings},
        "architecture": target,
        "updates": {"compiled": "accept" if takes else "refuse"},
    }
    return Node("board", state=state)


def test_the_kinds_are_those_of_nodes_that_take_code(maker: Maker) -> None:
    nodes = [
        says(maker, "aarch64"),
        says(maker, "aarch64"),
        says(maker, "riscv64", wide=False),
        says(maker, "x86_64", takes=False),
        says(maker, "armv7l"),
        Node("silent"),
        Node("older", state={"engine": {"name": "wasmer", "version": "7.3.0"}}),
    ]
    assert maker.reported(nodes, False) == [
        Kind("aarch64", True, False),
        Kind("riscv64", False, False),
    ]
    assert maker.reported(nodes, True)[0].metered


def test_without_such_nodes_it_is_told_what_to_do(maker: Maker) -> None:
    with pytest.raises(OperatorError, match=r'none accepts code.*compiled = "accept"'):
        maker.reported([says(maker, takes=False)], False)
    node = says(maker)
    other = {**node.state, "engine": {"name": "wasmer", "version": "7.3.0", "settings": "x"}}
    with pytest.raises(OperatorError, match=r"those that accept code run wasmer 7\.3\.0"):
        maker.reported([Node("board", state=other)], False)


def test_targets_are_named_as_debian_or_linux_does(maker: Maker) -> None:
    assert maker.named("arm64,riscv64, x86_64", [], False) == [
        Kind("aarch64", True, False),
        Kind("riscv64", False, False),
        Kind("x86_64", True, False),
    ]
    nodes = [says(maker, "riscv64"), says(maker, "riscv64", wide=False, takes=False)]
    assert maker.named("riscv64", nodes, False) == [
        Kind("riscv64", False, False),
        Kind("riscv64", True, False),
    ]
    with pytest.raises(OperatorError, match="can be compiled for 'armhf'"):
        maker.named("armhf", [], False)


def test_what_is_made_says_what_it_assumes(maker: Maker) -> None:
    wasm = GUARD.read_bytes()
    made = maker.make(wasm, Kind("aarch64", True, True))
    assert (made.engine, made.version, made.target) == ("wasmer", maker.version, "aarch64")
    assert made.features == ("neon",)
    assert made.settings == metered_settings(WasmerEngine(True).settings())
    assert made.data.startswith(b"\x7fELF")
    assert maker.make(wasm, Kind("aarch64", True, True)) == made
    assert maker.make(wasm, Kind("aarch64", True, False)).data != made.data


@pytest.mark.system
@needs_mosquitto
def test_code_is_published_deployed_and_cleared(home: Home, maker: Maker) -> None:
    words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0", "--code")
    told = home.fleet(*words, "--target", "arm64,riscv64")
    assert "machine code for aarch64" in told
    assert "machine code for riscv64" in told
    home.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    with home.opened() as fleet:
        document = fleet.current().deployment
        assert document is not None
        (release,) = document.plugins[0].offers
        assert document.form == 1
        assert [each.code.target for each in release.codes] == ["aarch64", "riscv64"]
        for each in release.codes:
            topics = [
                fleet.topics.blob_part(each.blob.digest, number)
                for number in range(each.blob.parts)
            ]
            kept = fleet.client.retained(topics)
            data = zlib.decompress(b"".join(kept[topic] for topic in topics))
            wide = each.code.target == "aarch64"
            assert data == maker.make(GUARD.read_bytes(), Kind(each.code.target, wide, False)).data
        assert blobs.stale(fleet.client, fleet.topics, blobs.named(document)).stale == []
    # The same version again keeps it; another kind is added, the same one replaced.
    home.fleet(*words[:-1])
    home.fleet(*words, "--target", "amd64,arm64")
    file = tomllib.loads((home.path / "releases" / "guard" / "1.0.0.toml").read_text())
    assert [each["target"] for each in file["code"]] == ["riscv64", "x86_64", "aarch64"]


@pytest.mark.system
@needs_mosquitto
def test_signers_see_machine_code_and_the_nodes_that_run_it(
    home: Home, peers: Peers, maker: Maker
) -> None:
    engine = says(maker).state["engine"]
    peers("board-1", engine=engine, architecture=HERE, compiled="accept")
    words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0", "--code", "--json")
    (code,) = json.loads(home.fleet(*words))["code"]
    assert (code["target"], code["engine"], code["version"]) == (HERE, "wasmer", maker.version)
    told = home.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    assert f"machine code for {HERE} of guard 1.0.0, which 1 node would run unchecked" in told
    assert code["digest"] in told
    (row,) = json.loads(home.fleet("plan", "--json"))["code"]
    assert (row["digest"], row["nodes"]) == (code["digest"], ["board-1"])


@pytest.mark.system
@needs_mosquitto
def test_options_without_code_are_a_mistake(home: Home) -> None:
    words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    for option in (("--target", "arm64"), ("--fuel",)):
        _, _, errors = home.tried(*words, *option)
        assert "--code" in errors


@pytest.mark.system
@needs_mosquitto
@pytest.mark.usefixtures("maker")
def test_a_missing_part_of_code_stops_a_deployment(home: Home) -> None:
    words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0", "--code")
    home.fleet(*words, "--target", "arm64")
    with home.opened() as fleet:
        (file,) = releases.find_codes(fleet.folder, "guard", "1.0.0")
        last = fleet.topics.blob_part(file.blob.digest, file.blob.parts - 1)
        fleet.client.publish(last, b"", retain=True)
    _, _, errors = home.tried(
        *("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    )
    assert "not wholly, at the broker" in errors
    assert "--version 1.0.0 --code" in errors


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize("wrong", ["target = 7\n", 'target = "x"\n', ""])
def test_a_damaged_file_of_a_release_is_told(home: Home, wrong: str) -> None:
    home.fleet("publish", str(LOGGER), "--name", "guard", "--version", "1.0.0")
    path = home.path / "releases" / "guard" / "1.0.0.toml"
    path.write_text(f"{path.read_text()}\n[[code]]\n{wrong}")
    _, _, errors = home.tried(
        *("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    )
    assert "[[code]] is wrong" in errors


@pytest.mark.usefixtures("maker")
def test_an_installed_library_that_makes_no_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(WasmerEngine):
        """On edge-agent-engines 0.2.0."""

        def features(self) -> None:
            return None

    monkeypatch.setattr(releases, "select_engine", lambda _: (Older(), ""))
    with pytest.raises(OperatorError, match=r"install 0\.2\.1"):
        Maker()
