"""The modules on disk: one layout, whatever happens to its files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StoreError
from edge_agent.store import artifact
from edge_agent.store.digest import Digest
from edge_agent.store.layout import MAX_INDEX_BYTES, Layout
from tests.support.smalldisk import small_disk

GUESTS = Path(__file__).parents[1] / "guests"
BENCH = (GUESTS / "bench.wasm").read_bytes()
EDGE = (GUESTS / "edge.wasm").read_bytes()


def digest_of(data: bytes) -> Digest:
    return Digest.of_hex(hashlib.sha256(data).hexdigest())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def read(layout: Layout, digest: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(layout.blob(Digest(digest)).read_bytes())
    return value


def names(layout: Layout) -> list[tuple[str, str, str]]:
    return [(each.name, each.version, each.digest) for each in layout.releases()]


def blobs(layout: Layout) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout.root / "blobs" / "sha256").iterdir()}


def test_a_release_becomes_one_wasm_artifact(layout: Layout) -> None:
    digest = layout.add_module("bench", "1.0.0", BENCH)
    assert digest == digest_of(BENCH)
    assert json.loads((layout.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout.root / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, artifact.INDEX_TYPE)
    (entry,) = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "bench-1.0.0",
        "org.opencontainers.image.version": "1.0.0",
    }
    manifest = read(layout, entry["digest"])
    assert manifest["annotations"]["org.opencontainers.image.title"] == "bench"
    assert entry["size"] == layout.blob(Digest(entry["digest"])).stat().st_size
    assert manifest["config"]["mediaType"] == "application/vnd.wasm.config.v0+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/wasm"
    assert (layer["digest"], layer["size"]) == (digest, len(BENCH))
    config = read(layout, manifest["config"]["digest"])
    assert (config["architecture"], config["os"]) == ("wasm", "wasip1")
    assert config["layerDigests"] == [digest]
    assert names(layout) == [("bench", "1.0.0", digest)]


def test_adding_again_writes_nothing(layout: Layout) -> None:
    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_ino for path in layout.root.rglob("*")}

    layout.add_module("bench", "1.0.0", BENCH)
    before = stamps()
    layout.add_module("bench", "1.0.0", BENCH)
    assert stamps() == before


def test_one_module_under_two_names_is_kept_once(layout: Layout) -> None:
    layout.add_module("bench", "1", BENCH)
    layout.add_module("other", "1", BENCH)
    assert sorted(names(layout)) == [
        ("bench", "1", digest_of(BENCH)),
        ("other", "1", digest_of(BENCH)),
    ]
    assert len(blobs(layout)) == 1 + 1 + 2  # module, configuration, manifests


def test_a_version_published_anew_takes_the_tag(layout: Layout) -> None:
    layout.add_module("bench", "1", BENCH)
    layout.add_module("bench", "1", EDGE)
    index = json.loads((layout.root / "index.json").read_bytes())
    tagged = [each for each in index["manifests"] if artifact.REF in each["annotations"]]
    assert len(index["manifests"]) == 2
    assert [read(layout, each["digest"])["layers"][0]["digest"] for each in tagged] == [
        digest_of(EDGE)
    ]


def test_a_file_from_elsewhere_is_copied(layout: Layout, tmp_path: Path) -> None:
    source = tmp_path / "guest.wasm"
    source.write_bytes(BENCH)
    digest = layout.add_module("bench", "1", source)
    assert source.read_bytes() == layout.blob(digest).read_bytes() == BENCH
    assert layout.blob(digest).stat().st_mode & 0o777 == 0o600


def test_what_was_fetched_is_moved(layout: Layout) -> None:
    folder = layout.incoming(digest_of(BENCH))
    folder.mkdir(parents=True)
    source = folder / "module"
    source.write_bytes(BENCH)
    inode = source.stat().st_ino
    digest = layout.add_module("bench", "1", source)
    assert layout.blob(digest).stat().st_ino == inode
    assert not source.exists()


def test_a_link_is_not_added(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(BENCH)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(StoreError, match="link"):
        layout.add_module("bench", "1", tmp_path / "link")
    assert not layout.releases()


def test_nothing_is_here_before_the_first(layout: Layout) -> None:
    assert not layout.has(digest_of(BENCH))
    assert layout.releases() == []
    assert layout.check() == []
    assert layout.collect(()) == 0
    assert not layout.root.exists()


def test_a_good_store_passes_the_check_untouched(layout: Layout) -> None:
    layout.add_module("bench", "1", BENCH)
    layout.add_module("edge", "1", EDGE)
    index = (layout.root / "index.json").stat().st_ino
    assert layout.check() == []
    assert (layout.root / "index.json").stat().st_ino == index
    assert len(names(layout)) == 2


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": _flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "a link to the same": _instead(lambda path: _same_elsewhere(path)),
    "a link to a device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a named pipe": _instead(os.mkfifo),
    "a folder": _instead(lambda path: _folder(path)),
    "huge and sparse": lambda path: os.truncate(path, 1 << 40),
}


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"x")


def _same_elsewhere(path: Path) -> None:
    elsewhere = path.parents[3] / "elsewhere"
    elsewhere.write_bytes(BENCH)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_module_is_dropped_and_named_and_can_come_again(
    layout: Layout, spoil: Callable[[Path], object]
) -> None:
    digest = layout.add_module("bench", "1", BENCH)
    layout.add_module("edge", "1", EDGE)
    spoil(layout.blob(digest))
    assert layout.check() == [digest]
    assert not layout.has(digest)
    assert not layout.blob(digest).is_symlink()
    assert names(layout) == [("edge", "1", digest_of(EDGE))]
    assert layout.check() == []
    layout.add_module("bench", "1", BENCH)
    assert layout.blob(digest).read_bytes() == BENCH
    assert len(names(layout)) == 2


def _manifest(layout: Layout) -> Digest:
    return layout.releases()[0].manifest


def _config(layout: Layout) -> Digest:
    return Digest(read(layout, _manifest(layout))["config"]["digest"])


@pytest.mark.parametrize("which", [_manifest, _config])
def test_a_damaged_manifest_or_configuration_ends_the_release_and_can_come_again(
    layout: Layout, which: Callable[[Layout], Digest]
) -> None:
    layout.add_module("bench", "1", BENCH)
    digest = which(layout)
    _flip(layout.blob(digest))
    assert layout.check() == [digest]
    assert layout.releases() == []
    assert layout.has(digest_of(BENCH))
    layout.add_module("bench", "1", BENCH)
    assert names(layout) == [("bench", "1", digest_of(BENCH))]


BAD_INDEXES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "huge": lambda path: path.write_bytes(b'{"manifests":[' + b" " * MAX_INDEX_BYTES + b"]}"),
    "deeply nested": lambda path: path.write_bytes(b"[" * 100_000),
    "a list": lambda path: path.write_bytes(b"[]"),
    "manifests no list": lambda path: path.write_bytes(b'{"manifests":{}}'),
    "a link": _instead(lambda path: path.symlink_to("/dev/zero")),
    "entries of rubbish": lambda path: path.write_text(
        json.dumps(
            {
                "manifests": [
                    1,
                    {},
                    {"mediaType": artifact.MANIFEST_TYPE, "digest": "sha256:../../x", "size": 1},
                    {"mediaType": artifact.MANIFEST_TYPE, "digest": "sha256:" + "a" * 64},
                    {
                        "mediaType": artifact.MANIFEST_TYPE,
                        "digest": "sha256:" + "a" * 64,
                        "size": 1,
                        "annotations": [],
                    },
                ]
            }
        )
    ),
}


@pytest.mark.parametrize("spoil", BAD_INDEXES.values(), ids=BAD_INDEXES.keys())
def test_a_damaged_index_is_written_anew_from_the_manifests(
    layout: Layout, spoil: Callable[[Path], object]
) -> None:
    layout.add_module("bench", "1", BENCH)
    layout.add_module("edge", "2", EDGE)
    before = sorted(names(layout))
    spoil(layout.root / "index.json")
    assert sorted(names(layout)) in (before, [])  # until the check, as much as can be
    assert layout.check() == []
    assert sorted(names(layout)) == before
    assert (layout.root / "index.json").stat().st_size < 2000


def test_collection_keeps_what_is_named_and_nothing_else(layout: Layout) -> None:
    bench = layout.add_module("bench", "1", BENCH)
    edge = layout.add_module("edge", "1", EDGE)
    for digest in (bench, edge, digest_of(b"")):
        folder = layout.incoming(digest)
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(b"part")
    (layout.root / "blobs" / "sha256" / "rubbish").write_bytes(b"12345")
    freed = layout.collect([bench, digest_of(b"not here yet")])
    assert freed > len(EDGE) + 5
    assert names(layout) == [("bench", "1", bench)]
    assert len(blobs(layout)) == 3
    assert [path.name for path in (layout.root / "incoming").iterdir()] == [bench[7:]]
    assert layout.collect([bench]) == 0
    assert layout.check() == []


def test_collection_does_not_follow_links(layout: Layout, tmp_path: Path) -> None:
    layout.add_module("bench", "1", BENCH)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_bytes(b"x")
    (layout.root / "incoming" / ("a" * 64)).symlink_to(tmp_path / "other")
    (layout.root / "blobs" / "sha256" / ("b" * 64)).symlink_to(tmp_path / "other" / "precious")
    layout.collect(())
    assert (tmp_path / "other" / "precious").exists()
    assert blobs(layout) == set()


def test_what_crashes_left_goes_with_the_check(layout: Layout) -> None:
    layout.add_module("bench", "1", BENCH)
    left = [layout.root / ".new-1-index.json", layout.root / "blobs" / "sha256" / ".new-2-ab"]
    for path in left:
        path.write_bytes(b"half")
    layout.check()
    assert not [path for path in left if path.exists()]


def test_two_that_add_at_once_both_get_in(layout: Layout) -> None:
    def add(number: int) -> None:
        for each in range(5):
            layout.add_module(f"m{number}", str(each), BENCH + bytes([number, each]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layout.releases()) == 20
    assert layout.check() == []


@pytest.mark.system
def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 9 << 10) as disk:
        layout = Layout(disk / "store")
        layout.add_module("bench", "1", BENCH)
        with pytest.raises(StoreError, match="disk is full"):
            layout.add_module("big", "1", bytes(2 << 20))
        assert names(layout) == [("bench", "1", digest_of(BENCH))]
        assert layout.check() == []


@pytest.mark.parametrize(
    ("name", "version", "tag"),
    [
        ("bench", "1.0.0", "bench-1.0.0"),
        ("a+b", "1.0+build", "a_b-1.0_build"),
        (".a", "1", "_.a-1"),
        ("x" * 64, "1" * 64, "x" * 64 + "-" + "1" * 63),
    ],
)
def test_a_tag_is_one_for_every_registry(name: str, version: str, tag: str) -> None:
    assert artifact.tag(name, version) == tag


def manifest(**fields: object) -> dict[str, object]:
    layer = {"mediaType": artifact.MODULE_TYPE, "digest": "sha256:" + "a" * 64, "size": 9}
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "b" * 64}
    return {"config": {**config, "size": 2}, "layers": [layer], **fields}


ENTRY = artifact.descriptor(artifact.MANIFEST_TYPE, Digest.of_hex("c" * 64), 99)


def test_names_of_others_artifacts_are_found_where_they_put_them() -> None:
    layer = {
        "mediaType": artifact.MODULE_TYPE,
        "digest": "sha256:" + "a" * 64,
        "size": 9,
        "annotations": {artifact.TITLE: "build/guard.wasm"},
    }
    entry = artifact.descriptor(
        artifact.MANIFEST_TYPE, Digest.of_hex("c" * 64), 9, **{artifact.REF: "v2"}
    )
    found = artifact.stored(entry, manifest(layers=[layer]))
    assert (found.name, found.version) == ("guard", "v2")
    bare = artifact.stored(ENTRY, manifest())
    assert (bare.name, bare.version) == ("a" * 12, "unknown")
    hostile = artifact.stored(ENTRY, manifest(annotations={artifact.TITLE: "\x1b[31m../x"}))
    assert hostile.name == "a" * 12


OTHERS: dict[str, dict[str, object]] = {
    "no layers": manifest(layers=[]),
    "two layers": manifest(layers=[{}, {}]),
    "layers no list": manifest(layers="x"),
    "a layer of files": manifest(
        layers=[
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": "sha256:" + "a" * 64,
                "size": 9,
            }
        ]
    ),
    "a layer without a size": manifest(
        layers=[{"mediaType": artifact.MODULE_TYPE, "digest": "sha256:" + "a" * 64}]
    ),
    "a layer of true size": manifest(
        layers=[{"mediaType": artifact.MODULE_TYPE, "digest": "sha256:" + "a" * 64, "size": True}]
    ),
}


@pytest.mark.parametrize("value", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_wasm_artifact_is_none(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a Wasm artifact"):
        artifact.stored(ENTRY, value)


def test_without_a_configuration_it_is_none() -> None:
    with pytest.raises(ValueError, match="configuration"):
        artifact.digests(ENTRY, manifest(config=1))
