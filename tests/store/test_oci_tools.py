"""The real oras and skopeo read a board's store, and prepare one that a board takes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.store.layout import Layout
from edge_agent.store.seeding import import_layout
from tests.support.gobuild import oras_binary, require_go

pytestmark = pytest.mark.system

BENCH = (Path(__file__).parents[1] / "guests" / "bench.wasm").read_bytes()


@pytest.fixture
def board(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "board")
    layout.add_module("bench", "1.0+a", BENCH)
    layout.add_module("bench", "2.0", BENCH + b"\0\1\0")
    return layout


@pytest.fixture(scope="module")
def oras() -> str:
    require_go()
    return str(oras_binary())


@pytest.fixture(scope="module")
def skopeo() -> str:
    found = shutil.which("skopeo")
    if found is None:
        pytest.skip("needs skopeo: apt install skopeo")
    return found


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(path: Path, folder: Path) -> set[tuple[str, str, bytes]]:
    """What a new board has after the import: name, version, module."""
    layout = Layout(folder / "new")
    for found in import_layout(path, layout):
        assert found.release is not None, found.problem
    assert layout.check() == []
    return {
        (each.name, each.version, layout.blob(each.digest).read_bytes())
        for each in layout.releases()
    }


def test_oras_lists_and_pulls_from_a_boards_store(oras: str, board: Layout, tmp_path: Path) -> None:
    tags = run(oras, "repo", "tags", "--oci-layout", board.root).split()
    assert tags == ["bench-1.0_a", "bench-2.0"]
    run(oras, "pull", "--oci-layout", f"{board.root}:bench-1.0_a", "-o", tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    assert (file.name, file.read_bytes()) == ("bench.wasm", BENCH)


def test_oras_copies_a_release_from_board_to_board(
    oras: str, board: Layout, tmp_path: Path
) -> None:
    source, target = f"{board.root}:bench-2.0", f"{tmp_path}/stick:x"
    run(oras, "copy", "--from-oci-layout", source, "--to-oci-layout", target)
    assert imported(tmp_path / "stick", tmp_path) == {("bench", "2.0", BENCH + b"\0\1\0")}


@pytest.mark.parametrize("as_tar", [False, True])
def test_what_oras_pushes_into_a_layout_seeds_a_board(
    oras: str, tmp_path: Path, as_tar: bool
) -> None:
    (tmp_path / "guard.wasm").write_bytes(BENCH)
    (tmp_path / "config.json").write_text("{}")
    file = "guard.wasm:application/wasm"
    run(oras, "push", "--oci-layout", "made:1.2.3", file, cwd=tmp_path)
    wasm = "config.json:application/vnd.wasm.config.v0+json"
    version = "org.opencontainers.image.version=4"
    run(
        *(oras, "push", "--oci-layout", "made:x", "--config", wasm, "--annotation", version, file),
        cwd=tmp_path,
    )
    expected = {("guard", "1.2.3", BENCH), ("guard", "4", BENCH)}
    if as_tar:
        run("tar", "cf", tmp_path / "made.tar", "-C", tmp_path / "made", ".")
        assert imported(tmp_path / "made.tar", tmp_path) == expected
    else:
        assert imported(tmp_path / "made", tmp_path) == expected


def test_skopeo_inspects_a_boards_store(skopeo: str, board: Layout) -> None:
    raw = json.loads(run(skopeo, "inspect", "--raw", f"oci:{board.root}:bench-2.0"))
    assert raw["config"]["mediaType"] == "application/vnd.wasm.config.v0+json"
    assert raw["layers"][0]["size"] == len(BENCH) + 3


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_what_skopeo_copies_from_one_board_seeds_another(
    skopeo: str, board: Layout, tmp_path: Path, kind: str
) -> None:
    source, target = f"oci:{board.root}:bench-1.0_a", f"{kind}:{tmp_path}/copied:tag"
    run(skopeo, "--insecure-policy", "copy", source, target)
    assert imported(tmp_path / "copied", tmp_path) == {("bench", "1.0+a", BENCH)}
