"""`edge-agent store`."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.config import PluginSettings
from edge_agent.control import ControlServer
from edge_agent.loop import Loop
from edge_agent.store import catalogue, catalogue_store
from edge_agent.store.catalogue import Catalogue, Known
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.release import PluginId, Release

GUESTS = Path(__file__).parents[1] / "guests"
BENCH, EDGE = ((GUESTS / f"{name}.wasm").read_bytes() for name in ("bench", "edge"))


class Node:
    """A node's configuration and state folder, and what `edge-agent store` says there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'node = "n"\nstate_dir = "state"\ncontrol_socket = "{folder}/control"\n'
        )
        self.layout = Layout(folder / "state" / "store")
        self.catalogue = self.layout.root / "catalogue.json"
        self.control = folder / "control"
        self._capsys = capsys

    def store(self, *words: str) -> tuple[int, str]:
        code = main(["store", *words, "-c", str(self.config)])
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err

    def run_first(self) -> Digest:
        """Let the first generation run bench, proven, with edge before it."""
        edge = self.layout.add_module("edge", "1", EDGE)
        bench = self.layout.add_module("bench", "2", BENCH)
        value = Catalogue()
        for number, digest in enumerate((edge, bench), 1):
            value = catalogue.accepted(value, Known(number, "", 1.0), b"{}")
            running = Release("10", "guard", digest, 9, "", PluginSettings(), str(number))
            value = catalogue.kept(catalogue.activated(value, [running]), PluginId("10-guard"))
        catalogue_store.save(self.catalogue, value)
        return bench


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Node:
    return Node(tmp_path, capsys)


def test_an_empty_store_is_listed_and_checked(node: Node) -> None:
    code, said = node.store("ls")
    assert code == 0
    assert "no release is here" in said
    assert node.store("check") == (0, f"{node.layout.root}: 0 releases, all in order\n")
    assert not node.layout.root.exists()


def test_the_list_says_what_each_is_for(node: Node) -> None:
    digest = node.run_first()
    code, said = node.store("ls")
    assert code == 0
    assert "generation 2" in said
    rows = [line.split() for line in said.splitlines()[2:]]
    assert rows[0] == ["PLUGIN", "VERSION", "SIZE", "DIGEST", "USED"]
    assert rows[1][:2] == ["bench", "2"]
    assert rows[1][-2:] == [digest[7:19], "10-guard"]
    assert rows[2][-2:] == ["10-guard", "before"]


def test_the_list_is_there_for_tools_too(node: Node) -> None:
    digest = node.run_first()
    code, said = node.store("ls", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["generation"] == 2
    assert told["releases"][0]["digest"] == digest
    assert told["releases"][0]["used"] == ["10-guard"]


def test_a_damaged_module_is_removed_and_told(node: Node) -> None:
    digest = node.run_first()
    node.layout.blob(digest).write_bytes(b"rubbish")
    code, said = node.store("check")
    assert code == 1
    assert f"{digest}: was damaged and is removed" in said
    code, said = node.store("check")
    assert code == 1
    assert f"{digest}: is missing" in said


def test_a_damaged_catalogue_is_told_and_can_be_forgotten(node: Node) -> None:
    node.run_first()
    for path in (node.catalogue, node.catalogue.with_name("catalogue.2.json")):
        path.write_bytes(b"{")
    code, said = node.store("check")
    assert code == 1
    assert "is damaged" in said
    assert "edge-agent store forget" in said
    assert node.store("forget") == (0, "forgotten\n")
    assert node.store("check")[0] == 0
    code, said = node.store("forget")
    assert code == 0
    assert "nothing is there" in said


def test_nothing_is_forgotten_while_the_agent_runs(node: Node) -> None:
    node.run_first()
    loop = Loop()
    server = ControlServer(loop, node.control, {"status": lambda _: {}})
    server.open()
    turning = threading.Thread(target=loop.run)
    turning.start()
    try:
        code, said = node.store("forget")
    finally:
        loop.call_soon(loop.stop)
        turning.join()
        server.close()
        loop.close()
    assert code == 1
    assert "stop it first" in said
    assert catalogue_store.load(node.catalogue).known.generation == 2


def test_a_layout_is_imported_and_each_release_named(node: Node, tmp_path: Path) -> None:
    stick = Layout(tmp_path / "stick")
    digest = stick.add_module("bench", "1.0", BENCH)
    code, said = node.store("import", str(stick.root))
    assert code == 0
    assert said == f"bench 1.0: taken, {digest}\n"
    assert node.store("import", str(stick.root))[1] == f"bench 1.0: was here already, {digest}\n"
    assert node.store("check")[0] == 0


def test_what_is_not_taken_is_told_with_its_reason(node: Node, tmp_path: Path) -> None:
    stick = Layout(tmp_path / "stick")
    digest = stick.add_module("bench", "1.0", BENCH)
    stick.blob(digest).write_bytes(EDGE)
    code, said = node.store("import", str(stick.root))
    assert code == 1
    assert "not taken" in said
    code, said = node.store("import", str(tmp_path / "nothing"))
    assert code == 1
    assert "No such file" in said
    empty = Layout(tmp_path / "empty")
    empty.add_module("bench", "1", BENCH)
    empty.collect(())
    code, said = node.store("import", str(empty.root))
    assert code == 1
    assert "no Wasm artifact" in said
