import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import StoreError
from edge_agent.store import files
from tests.support.smalldisk import small_disk


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program beside this one; it may die."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_write_replaces_the_content_and_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    path.chmod(0o666)
    files.write(path, b"new", 0o640)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_write_gives_the_asked_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        files.write(tmp_path / "state", b"", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o7777 == 0o644


def test_write_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "state").symlink_to(precious)
    files.write(tmp_path / "state", b"new")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "state").read_bytes() == b"new"


def test_write_killed_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from edge_agent.store import files
        with files.placing(Path(sys.argv[1])) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    assert files.remove_leftovers(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    code = """if True:
        import resource, sys
        from pathlib import Path
        from edge_agent.errors import StoreError
        from edge_agent.store import files
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write(Path(sys.argv[1]), bytes(5000))
        except StoreError as error:
            print(error)
    """
    ran = python(code, path)
    assert ran.stdout.strip() == f"{path}: cannot write: File too large", ran.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.system
def test_write_on_a_full_disk_says_so_and_keeps_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=64) as disk:
        files.write(disk / "state", b"old")
        with pytest.raises(StoreError, match=r"No space left on device; free some space"):
            files.write(disk / "state", bytes(100 << 10))
        assert (disk / "state").read_bytes() == b"old"
        assert list(disk.iterdir()) == [disk / "state"]


def test_write_into_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "state"
    with pytest.raises(StoreError, match=r"gone/state: cannot write: No such file"):
        files.write(path, b"")


def test_read_of_a_missing_file_is_none(tmp_path: Path) -> None:
    assert files.read(tmp_path / "state", 10) is None


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_read_takes_up_to_the_cap(tmp_path: Path, size: int) -> None:
    (tmp_path / "state").write_bytes(b"x" * size)
    assert files.read(tmp_path / "state", 10) == b"x" * size


def test_read_beyond_the_cap_takes_no_memory_for_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(StoreError, match=r"has 1099511627776 bytes; at most 10B are taken"):
        files.read(path, 10)


def test_read_of_a_file_that_grows_is_refused() -> None:
    # A file of the kernel states the size 0 and then has content, like one being written.
    with pytest.raises(StoreError, match="changed while it was read"):
        files.read(Path("/proc/self/status"), 10)


def test_read_of_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="is not a file"):
        files.read(tmp_path / "pipe", 10)


def test_read_of_a_folder_says_that_it_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        files.read(tmp_path, 10)


@pytest.mark.system
def test_space_is_refused_when_the_reserve_would_go(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=10 << 10) as disk:
        files.require_space(disk, 1 << 20)
        with pytest.raises(StoreError, match=r"the disk is full: 10\.0 MiB free, 3\.0 MiB needed"):
            files.require_space(disk, 3 << 20)


def test_space_of_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone: cannot ask for free space"):
        files.require_space(tmp_path / "gone", 1)


def test_folder_is_made_with_its_parents_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.make_folder(folder)
    files.make_folder(folder)
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_folder_where_a_file_stands_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StoreError, match="a: cannot make this folder: File exists"):
        files.make_folder(tmp_path / "a")
