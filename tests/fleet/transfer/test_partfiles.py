import os
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import StoreError, TransferError, WrongBlobError
from edge_agent.fleet.transfer.parts import PartFiles
from edge_agent.fleet_protocol.deployment import Blob, Encoding
from edge_agent.store.digest import Digest, sha256_hex
from tests.support.blobs import Cut, cut, module
from tests.support.smalldisk import small_disk


def stored(folder: Path, it: Cut) -> PartFiles:
    folder.mkdir(exist_ok=True)
    parts = PartFiles(folder, it.blob)
    for number, part in enumerate(it.parts):
        parts.store(number, part)
    return parts


@pytest.mark.parametrize("encoding", ["none", "zlib"])
@pytest.mark.parametrize("data", [module(20_000), module(8), b"\0asm\1\0\0\0" + bytes(300_000)])
def test_parts_make_the_blob(tmp_path: Path, data: bytes, encoding: Encoding) -> None:
    it = cut(data, 1000, encoding)
    path = stored(tmp_path, it).decode()
    assert path.read_bytes() == data


def test_parts_of_an_earlier_run_are_found_again(tmp_path: Path) -> None:
    it = cut(module(5000))
    stored(tmp_path, it)
    (tmp_path / ".new-0123-left").write_bytes(b"half a part")
    assert PartFiles(tmp_path, it.blob).here() == set(range(it.blob.parts))
    assert not (tmp_path / ".new-0123-left").exists()


def test_what_is_no_part_of_this_cut_is_not_taken_for_one(tmp_path: Path) -> None:
    it = cut(module(5000))
    parts = stored(tmp_path, it)
    stored(tmp_path, cut(it.data, 512))
    stored(tmp_path, cut(it.data, 1024, "none"))
    prefix = f"zlib-1024-{it.blob.parts}-"
    for name in ("00", "-1", "+1", "1_0", "²", "99", "9" * 400, "", "1 "):
        if len(name) < 200:
            (tmp_path / (prefix + name)).write_bytes(bytes(1024))
    (tmp_path / f"{prefix}1").write_bytes(b"short")
    os.truncate(tmp_path / f"{prefix}{it.blob.parts - 1}", 0)
    assert parts.here() == set(range(it.blob.parts)) - {1, it.blob.parts - 1}


def test_removing_takes_the_parts_and_leaves_what_else_lies_there(tmp_path: Path) -> None:
    parts = stored(tmp_path, cut(module(5000)))
    (tmp_path / "from-elsewhere").write_bytes(b"")
    parts.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["from-elsewhere"]


def test_bomb_is_left_at_the_declared_size(tmp_path: Path) -> None:
    """65 KB of zlib that make 64 MiB: no disk and no memory sees them."""
    deflate = zlib.compressobj(9)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    parts = [bomb[at : at + 65536] for at in range(0, len(bomb), 65536)]
    blob = Blob(Digest.of_hex("0" * 64), 1 << 20, "zlib", len(parts), 65536)
    bombed = stored(tmp_path, Cut(blob, b"", parts))
    tracemalloc.start()
    try:
        with pytest.raises(WrongBlobError, match="more than the declared 1048576 bytes"):
            bombed.decode()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "decoded").exists()


def test_data_after_the_end_of_the_zlib_data_is_not_gathered(tmp_path: Path) -> None:
    it = cut(module(2000), 1024)
    rubbish = [it.parts[0], it.parts[1].ljust(1024, b"x"), *[bytes(1024)] * 40]
    parts = stored(tmp_path, Cut(replace(it.blob, parts=len(rubbish)), b"", rubbish))
    with pytest.raises(WrongBlobError, match="go on after the end"):
        parts.decode()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda parts: [*parts[:-1], parts[-1][:-9]], "do not end where"),
        (lambda parts: [*parts[:-1], parts[-1] + b"more"], "do not end where"),
        (lambda parts: [parts[1], parts[0], *parts[2:]], "not zlib data"),
        (lambda parts: [b"\0" * len(parts[0]), *parts[1:]], "not zlib data"),
    ],
)
def test_wrong_parts_make_no_blob(tmp_path: Path, spoil: object, words: str) -> None:
    it = cut(module(5000))
    spoiled = spoil(it.parts)  # type: ignore[operator]
    with pytest.raises(WrongBlobError, match=words):
        stored(tmp_path, it._replace(parts=spoiled)).decode()
    assert not (tmp_path / "decoded").exists()


@given(
    at=st.integers(0, 4999), value=st.integers(1, 255), encoding=st.sampled_from(["none", "zlib"])
)
def test_one_changed_byte_makes_no_blob(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, encoding: Encoding
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    it = cut(module(5000), encoding=encoding)
    whole = bytearray(b"".join(it.parts))
    whole[at % len(whole)] ^= value
    parts = [bytes(whole[at : at + 1024]) for at in range(0, len(whole), 1024)]
    with pytest.raises(WrongBlobError):
        stored(folder, it._replace(parts=parts)).decode()


def test_other_blob_of_the_same_size_is_told_by_its_digest(tmp_path: Path) -> None:
    it, other = cut(module(5000), encoding="none"), cut(module(5000, seed=1), encoding="none")
    with pytest.raises(WrongBlobError, match=f"sha256:{sha256_hex(other.data)}, which is another"):
        stored(tmp_path, it._replace(parts=other.parts)).decode()


def test_part_that_cannot_be_read_is_removed_so_that_it_can_come_again(tmp_path: Path) -> None:
    it = cut(module(5000))
    parts = stored(tmp_path, it)
    path = tmp_path / f"zlib-1024-{it.blob.parts}-2"
    path.write_bytes(bytes(2000))
    with pytest.raises(TransferError, match="part 2 cannot be read again"):
        parts.decode()
    assert parts.here() == set(range(it.blob.parts)) - {2}


@pytest.mark.system
def test_full_disk_keeps_the_parts_and_leaves_no_half_blob(tmp_path: Path) -> None:
    it = cut(b"\0asm\1\0\0\0" + bytes(200_000))
    with small_disk(tmp_path / "disk", 100) as folder:
        parts = stored(folder, it)
        with pytest.raises(StoreError, match="No space left on device; free some space"):
            parts.decode()
        assert parts.here() == set(range(it.blob.parts))
        assert not (folder / "decoded").exists()
