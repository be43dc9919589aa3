import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from edge_agent.errors import ModuleError, StoreError
from edge_agent.store.digest import NO_DIGEST, Digest
from edge_agent.store.files import Reading
from edge_agent.wasm.module import MAX_MODULE_BYTES, inspect
from edge_agent.wasm.modulefile import identify, inspect_file
from tests.support.assembler import section
from tests.support.costly import costly_module
from tests.wasm.lab import GUESTS, guest

MODULES = sorted(GUESTS.rglob("*.wasm"))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "10-bench.wasm"
    path.write_bytes(guest("bench"))
    return path


def sha256(wasm: bytes) -> Digest:
    return Digest.of_hex(hashlib.sha256(wasm).hexdigest())


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_a_file_is_and_says_the_same_as_its_bytes(path: Path) -> None:
    wasm = path.read_bytes()
    assert identify(path) == (sha256(wasm), len(wasm))
    assert inspect_file(path, sha256(wasm)) == inspect(wasm)


@pytest.mark.parametrize("size", [0, 3, 16 << 10, (16 << 10) + 1, 100_000])
def test_sections_that_are_skipped_are_part_of_the_digest(tmp_path: Path, size: int) -> None:
    wasm = guest("bench") + section(0, b"\x01x" + os.urandom(size))
    path = tmp_path / "module.wasm"
    path.write_bytes(wasm)
    assert inspect_file(path, sha256(wasm)) == inspect(wasm)
    path.write_bytes(wasm[:-1] + bytes([wasm[-1] ^ 1]))
    with pytest.raises(ModuleError, match="changed while it was read"):
        inspect_file(path, sha256(wasm))


def test_a_file_that_is_another_by_now_is_said_before_what_is_wrong_with_it(module: Path) -> None:
    digest, _ = identify(module)
    module.write_bytes(b"half of something")
    with pytest.raises(ModuleError, match="changed while it was read"):
        inspect_file(module, digest)
    with pytest.raises(ModuleError, match="not a Wasm module"):
        inspect_file(module, identify(module)[0])


@pytest.mark.parametrize("change", [-100, 100])
def test_a_file_that_is_cut_or_grows_under_the_reader_is_refused(
    module: Path, change: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, size = identify(module)
    before = Reading.read

    def read(self: Reading, count: int) -> bytes:
        os.truncate(module, size + change)
        return before(self, count)

    monkeypatch.setattr(Reading, "read", read)
    with pytest.raises(StoreError, match=r"10-bench\.wasm: changed while it was read"):
        inspect_file(module, digest)
    os.truncate(module, size)
    with pytest.raises(StoreError, match=r"10-bench\.wasm: changed while it was read"):
        identify(module)


def test_a_file_that_is_gone_or_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone\.wasm: is gone"):
        identify(tmp_path / "gone.wasm")
    with pytest.raises(StoreError, match=r"gone\.wasm: is gone"):
        inspect_file(tmp_path / "gone.wasm", NO_DIGEST)
    huge = tmp_path / "huge.wasm"
    huge.touch()
    os.truncate(huge, MAX_MODULE_BYTES + 1)
    with pytest.raises(StoreError, match="at most 64MiB are taken"):
        identify(huge)


def test_a_module_of_many_megabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    path.write_bytes(costly_module(200, 2000))
    assert path.stat().st_size > 8_000_000
    tracemalloc.start()
    try:
        digest, _ = identify(path)
        inspect_file(path, digest)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
