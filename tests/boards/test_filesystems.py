"""A file system is made of a folder, and what is damaged is found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boards.filesystems import FILESYSTEMS, PATH, Filesystem

SIZE, HEAD = 128 << 20, 512


@pytest.fixture(params=sorted(FILESYSTEMS))
def filesystem(request: pytest.FixtureRequest) -> Filesystem:
    found = FILESYSTEMS[request.param]
    for program in found.programs():
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"{found.package} is not installed: no {program}")
    return found


@pytest.fixture
def disk(filesystem: Filesystem, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hostname").write_text("board\n")
    made = tmp_path / "disk"
    with made.open("wb") as file:
        file.truncate(SIZE)
    filesystem.write(root, made)
    return made


def code(filesystem: Filesystem, disk: Path) -> int:
    words = filesystem.checking(disk)
    words[0] = shutil.which(words[0], path=PATH) or words[0]
    return subprocess.run(words, capture_output=True, check=False).returncode


def test_it_is_whole_whatever_lies_in_the_first_sector(filesystem: Filesystem, disk: Path) -> None:
    with disk.open("r+b") as file:
        file.write(b"x" * HEAD)
    assert code(filesystem, disk) == 0


def test_damage_is_found(filesystem: Filesystem, disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(HEAD)
        file.write(bytes(8 << 20))
    assert code(filesystem, disk) != 0
