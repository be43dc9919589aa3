"""A layout from a stick: what is good in it is taken, and nothing in it can do harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StoreError
from edge_agent.store import artifact, seeding
from edge_agent.store.artifact import MANIFEST_TYPE, MODULE_TYPE
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.seeding import Found, import_layout

GUESTS = Path(__file__).parents[1] / "guests"
BENCH, EDGE = ((GUESTS / f"{name}.wasm").read_bytes() for name in ("bench", "edge"))


@pytest.fixture
def stick(tmp_path: Path) -> Layout:
    """A good layout with two releases."""
    layout = Layout(tmp_path / "stick")
    layout.add_module("bench", "1", BENCH)
    layout.add_module("edge", "2", EDGE)
    return layout


@pytest.fixture
def board(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "board")


def as_tar(layout: Layout, prefix: str = "./") -> Path:
    path = layout.root.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        for each in sorted(layout.root.rglob("*"), reverse=True):  # index.json comes last
            name = prefix + str(each.relative_to(layout.root))
            tar.add(each, name, recursive=False)
    return path


def taken(path: Path, board: Layout) -> list[Found]:
    found = list(import_layout(path, board))
    assert board.check() == []
    assert not list((board.root / "incoming").iterdir())
    return found


def names(board: Layout) -> list[tuple[str, str]]:
    return sorted((each.name, each.version) for each in board.releases())


def test_a_folder_is_taken(stick: Layout, board: Layout) -> None:
    found = taken(stick.root, board)
    assert [each.fresh for each in found] == [True, True]
    assert names(board) == [("bench", "1"), ("edge", "2")]
    # Once more: nothing is fresh and nothing changes.
    assert [each.fresh for each in taken(stick.root, board)] == [False, False]
    assert names(board) == [("bench", "1"), ("edge", "2")]


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_is_taken(stick: Layout, board: Layout, prefix: str) -> None:
    assert [each.fresh for each in taken(as_tar(stick, prefix), board)] == [True, True]
    assert names(board) == [("bench", "1"), ("edge", "2")]


def test_what_is_damaged_here_is_replaced(stick: Layout, board: Layout) -> None:
    digest = board.add_module("bench", "1", BENCH)
    board.blob(digest).write_bytes(b"rubbish")
    taken(stick.root, board)
    assert board.blob(digest).read_bytes() == BENCH


def blob(stick: Layout, data: bytes) -> str:
    """Put any blob into a layout."""
    digest = Digest.of(data)
    stick.blob(digest).write_bytes(data)
    return digest


def described(digest: str, size: int, media_type: str = MODULE_TYPE) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def put(stick: Layout, layer: dict[str, Any], name: str = "evil") -> None:
    """Let the index of a layout name one artifact of this layer before all others."""
    config = described("sha256:" + "0" * 64, 2, artifact.CONFIG_TYPE)
    manifest = json.dumps(
        {"config": config, "layers": [layer], "annotations": {artifact.TITLE: name}}
    ).encode()
    index(stick, described(blob(stick, manifest), len(manifest), MANIFEST_TYPE))


def index(stick: Layout, entry: object) -> None:
    path = stick.root / "index.json"
    value = json.loads(path.read_bytes())
    value["manifests"].insert(0, entry)
    path.write_text(json.dumps(value))


def _wrong_content(stick: Layout) -> None:
    digest = Digest.of_hex("a" * 64)
    stick.blob(digest).write_bytes(BENCH)
    put(stick, described(digest, len(BENCH)))


def _wrong_manifest(stick: Layout) -> None:
    digest = Digest.of_hex("a" * 64)
    stick.blob(digest).write_bytes(b"{}")
    index(stick, described(digest, 2, MANIFEST_TYPE))


def _missing(stick: Layout) -> None:
    put(stick, described("sha256:" + "a" * 64, 9))


def _link(stick: Layout) -> None:
    digest = Digest.of(Path("/etc/passwd").read_bytes())
    stick.blob(digest).symlink_to("/etc/passwd")
    put(stick, described(digest, Path("/etc/passwd").stat().st_size))


def _pipe(stick: Layout) -> None:
    digest = Digest.of_hex("b" * 64)
    os.mkfifo(stick.blob(digest))
    put(stick, described(digest, 9))


def _sparse(stick: Layout) -> None:
    digest = Digest.of_hex("c" * 64)
    stick.blob(digest).touch()
    os.truncate(stick.blob(digest), 1 << 40)
    put(stick, described(digest, 1 << 40))


def _no_wasm(stick: Layout) -> None:
    data = b"#!/bin/sh\nrm -rf /\n"
    put(stick, described(blob(stick, data), len(data)))


HARMS: dict[str, tuple[Callable[[Layout], None], str]] = {
    "another content": (_wrong_content, "another digest"),
    "another manifest": (_wrong_manifest, "another digest"),
    "module missing": (_missing, "None bytes, 9 are named"),
    "no Wasm": (_no_wasm, "no Wasm module"),
    "size wrong": (
        lambda stick: put(stick, described(blob(stick, BENCH + b"x"), 5000)),
        "5000 are named",
    ),
    "size tiny": (lambda stick: put(stick, described(blob(stick, b"x"), 1)), "no module has 1"),
    "a container image": (
        lambda stick: put(stick, described(blob(stick, b"x"), 1, "application/x-tar")),
        "not a Wasm artifact",
    ),
    "a manifest of a list": (
        lambda stick: index(stick, described(blob(stick, b"[]"), 2, MANIFEST_TYPE)),
        "not a JSON object",
    ),
}


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize(("harm", "said"), HARMS.values(), ids=HARMS.keys())
def test_what_is_wrong_is_told_and_the_rest_is_taken(
    stick: Layout, board: Layout, harm: Callable[[Layout], None], said: str, tar: bool
) -> None:
    harm(stick)
    bad, *good = taken(as_tar(stick) if tar else stick.root, board)
    assert bad.release is None
    assert said in bad.problem
    assert [each.fresh for each in good] == [True, True]
    assert names(board) == [("bench", "1"), ("edge", "2")]


FILES: dict[str, tuple[Callable[[Layout], None], str]] = {
    "a link": (_link, "cannot read"),
    "a named pipe": (_pipe, "is not a file"),
    "a huge file": (_sparse, "no module has|at most"),
}


@pytest.mark.parametrize(("harm", "said"), FILES.values(), ids=FILES.keys())
def test_only_files_within_bounds_are_read(
    stick: Layout, board: Layout, harm: Callable[[Layout], None], said: str
) -> None:
    harm(stick)
    bad, *good = taken(stick.root, board)
    assert bad.release is None
    assert re.search(said, bad.problem)
    assert len(good) == 2


def test_digests_that_are_paths_name_nothing(stick: Layout, board: Layout) -> None:
    for digest in ("sha256:../../../../etc/passwd", "../index.json", "sha256:" + "A" * 64):
        index(stick, described(digest, 9, MANIFEST_TYPE))
        put(stick, described(digest, 9))
    found = taken(stick.root, board)
    assert [each.problem for each in found if each.release is None] == [
        f"not a Wasm artifact: one layer of {MODULE_TYPE} is wanted"
    ] * 3
    assert names(board) == [("bench", "1"), ("edge", "2")]


def test_names_that_are_paths_or_worse_are_not_taken_over(stick: Layout, board: Layout) -> None:
    put(stick, described(blob(stick, EDGE), len(EDGE)), "../../\x1b[2J")
    taken(stick.root, board)
    assert all("/" not in name and "\x1b" not in name for name, _ in names(board))


def test_a_further_index_is_followed_once(stick: Layout, board: Layout) -> None:
    inner = (stick.root / "index.json").read_bytes()
    outer = {"manifests": [described(blob(stick, inner), len(inner), artifact.INDEX_TYPE)]}
    (stick.root / "index.json").write_text(json.dumps(outer))
    assert len(taken(stick.root, board)) == 2
    again = json.dumps(outer).encode()
    outer = {"manifests": [described(blob(stick, again), len(again), artifact.INDEX_TYPE)]}
    (stick.root / "index.json").write_text(json.dumps(outer))
    assert taken(stick.root, board) == []


def _link_folder(stick: Layout) -> None:
    (stick.root / "blobs").rename(stick.root.parent / "blobs")
    (stick.root / "blobs").symlink_to("../blobs")


NO_LAYOUTS: dict[str, tuple[Callable[[Layout], object], str]] = {
    "no version": (lambda stick: (stick.root / "oci-layout").unlink(), "oci-layout is missing"),
    "another version": (
        lambda stick: (stick.root / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}'),
        "version '2.0.0'",
    ),
    "a version of rubbish": (
        lambda stick: (stick.root / "oci-layout").write_text("[" * 4000),
        "nested deeper",
    ),
    "no index": (lambda stick: (stick.root / "index.json").unlink(), "index.json is missing"),
    "a huge index": (
        lambda stick: os.truncate(stick.root / "index.json", 2 << 20),
        "at most 1048576",
    ),
    "an index of rubbish": (
        lambda stick: (stick.root / "index.json").write_text("{}"),
        "manifests is not a list",
    ),
}


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize(("spoil", "said"), NO_LAYOUTS.values(), ids=NO_LAYOUTS.keys())
def test_what_is_no_layout_is_refused(
    stick: Layout, board: Layout, spoil: Callable[[Layout], object], said: str, tar: bool
) -> None:
    spoil(stick)
    with pytest.raises(StoreError, match=said):
        list(import_layout(as_tar(stick) if tar else stick.root, board))
    assert not board.root.exists()


def test_a_layout_whose_folders_are_links_is_refused(stick: Layout, board: Layout) -> None:
    _link_folder(stick)
    with pytest.raises(StoreError, match="is a link"):
        list(import_layout(stick.root, board))


def test_more_releases_than_any_board_has_are_left(
    stick: Layout, board: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "MAX_RELEASES", 1)
    with pytest.raises(StoreError, match="more than 1 artifacts"):
        list(import_layout(stick.root, board))
    assert len(names(board)) == 1


def _tar(*members: tuple[str, bytes, dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _declared(size: int, kind: bytes) -> bytes:
    """One header that announces a body of this size."""
    info = tarfile.TarInfo("x")
    info.size, info.type = size, kind
    return info.tobuf() + bytes(1024)


TARS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "tar"),
    "text": (b"hello" * 1000, "tar"),
    "compressed": (gzip.compress(_tar(("index.json", b"{}", {}))), "tar"),
    "truncated": (_tar(("oci-layout", b"x" * 2000, {}))[:600], "tar|missing"),
    "a link in it": (
        _tar(("oci-layout", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})),
        "oci-layout is missing",
    ),
    "a device in it": (_tar(("oci-layout", b"", {"type": tarfile.CHRTYPE})), "missing"),
    "paths that lead out": (_tar(("../oci-layout", b"{}", {})), "oci-layout is missing"),
    "a header of 1 TB": (_declared(1 << 40, tarfile.XHDTYPE), "tar"),
    "a name of 1 GB": (_declared(1 << 30, tarfile.GNUTYPE_LONGNAME), "tar"),
}


@pytest.mark.parametrize(("data", "said"), TARS.values(), ids=TARS.keys())
def test_a_tar_that_is_none_is_refused(
    tmp_path: Path, board: Layout, data: bytes, said: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=said):
        list(import_layout(path, board))
    assert not board.root.exists()


def test_a_header_of_a_gigabyte_that_is_there_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(_declared(1 << 30, tarfile.XHDTYPE))
    os.truncate(path, (1 << 30) + 4096)  # sparse, but there
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({300 << 20},) * 2)\n"
        "from edge_agent.errors import StoreError\n"
        "from edge_agent.store.layout import Layout\n"
        "from edge_agent.store.seeding import import_layout\n"
        "try:\n    list(import_layout(Path(sys.argv[1]), Layout(Path(sys.argv[2]))))\n"
        "except StoreError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "board")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "a header of 1073741824 bytes" in done.stdout


def test_too_many_members_are_refused(
    stick: Layout, board: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "MAX_TAR_MEMBERS", 3)
    with pytest.raises(StoreError, match="more than 3 files"):
        list(import_layout(as_tar(stick), board))


def test_a_path_that_is_not_there_is_named(tmp_path: Path, board: Layout) -> None:
    with pytest.raises(StoreError, match=r"nothing: cannot read: No such file"):
        list(import_layout(tmp_path / "nothing", board))


def test_no_file_stays_open(stick: Layout, board: Layout) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    taken(stick.root, board)
    taken(as_tar(stick), board)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
