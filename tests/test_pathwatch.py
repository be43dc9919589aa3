"""Hints that a file may have come, gone or been replaced, on a real file system."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.loop import Loop
from edge_agent.nri.link import find_socket
from edge_agent.pathwatch import READ_BYTES, PathWatch
from tests.support.turning import turn_until


class Watched:
    """A watch with its loop; `hints` counts what it told."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop = loop
        self.hints = 0
        self.watch = PathWatch(loop, path, self._changed)

    def _changed(self) -> None:
        self.hints += 1

    def told(self) -> int:
        """Hints since the last time, once there is one."""
        turn_until(self.loop, lambda: self.hints > 0, "a hint")
        self.settle()
        hints, self.hints = self.hints, 0
        return hints

    def settle(self) -> None:
        """Take what the kernel has queued: it queues before a file operation returns."""
        done: list[bool] = []
        self.loop.call_soon(lambda: self.loop.call_soon(lambda: done.append(True)))
        turn_until(self.loop, lambda: bool(done), "the queue")


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_what_happens_to_the_file_is_told_and_what_happens_beside_it_is_not(
    loop: Loop, tmp_path: Path
) -> None:
    path = tmp_path / "nri.sock"
    watched = Watched(loop, path)
    assert watched.watch.active
    bind(path)
    assert watched.told()
    (tmp_path / "beside").touch()
    (tmp_path / "nri.sock.lock").touch()
    watched.settle()
    assert watched.hints == 0
    path.rename(tmp_path / "away")
    assert watched.told()
    bind(path)
    assert watched.told()
    path.unlink()
    assert watched.told()
    watched.watch.close()
    bind(path)
    watched.settle()
    assert watched.hints == 0


def test_folders_that_do_not_exist_yet_are_followed_downwards(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "run" / "docker" / "nri.sock"
    watched = Watched(loop, path)
    assert not watched.watch.active
    (tmp_path / "other").mkdir()
    watched.settle()
    assert watched.hints == 0
    path.parent.mkdir(parents=True)
    assert watched.told()
    assert watched.watch.active
    bind(path)
    assert watched.told()


def test_a_folder_that_is_removed_and_made_again_is_watched_again(
    loop: Loop, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "nri.sock"
    path.parent.mkdir()
    watched = Watched(loop, path)
    for away in (lambda: shutil.rmtree(path.parent), lambda: path.parent.rename(tmp_path / "old")):
        away()
        assert watched.told()
        assert not watched.watch.active
        path.parent.mkdir()
        assert watched.told()
        assert watched.watch.active
        bind(path)
        assert watched.told()


def test_a_flood_is_taken_in_pieces_and_overflows_into_a_hint(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    watched = Watched(loop, path)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"the queue takes {limit} events")
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    for _ in range(limit // 4 + 10):  # four events each: identical ones in a row would be merged
        one.rename(two)
        two.rename(one)
    turns = loop.turns
    assert watched.told()
    assert loop.turns - turns > limit * 16 // READ_BYTES  # other callbacks had their turns
    assert watched.watch.active
    bind(path)
    assert watched.told()


@pytest.mark.system
def test_a_machine_without_watches_left_is_no_error(tmp_path: Path) -> None:
    """Within a user namespace of its own the limit can be had as nothing."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom edge_agent.loop import Loop\n"
        "from edge_agent.pathwatch import PathWatch\n"
        "with Loop() as loop:\n"
        "    watch = PathWatch(loop, Path(sys.argv[1]), print)\n"
        "    print('active', watch.active)\n"
        "    watch.close()\n"
    )
    limit = "/proc/sys/user/max_inotify_instances"
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user"),
            *("sh", "-c", f'echo 0 > {limit} || exit 77; exec "$0" "$@"'),
            *(sys.executable, "-c", script, str(tmp_path / "nri.sock")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no user namespace to be had: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "active False\n"), done.stderr


# --- what tells one socket from another


@pytest.mark.system
def test_a_new_socket_is_another_even_with_the_same_inode() -> None:
    """ext4 gives the number away at once, perhaps to a file of somebody else."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # on a disk: memory has its own way
        path = Path(folder, "nri.sock")
        bind(path)
        for _ in range(100):
            one = find_socket(path)
            path.unlink()
            time.sleep(0.05)  # beyond the ticks of the clock that file systems use
            bind(path)
            two = find_socket(path)
            assert one is not None
            assert two is not None
            assert one != two
            if one.inode == two.inode:
                return
    pytest.skip("this file system gives every file a number of its own")


def test_who_may_use_a_socket_does_not_make_it_another(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    bind(path)
    found = find_socket(path)
    path.chmod(0o660)
    path.rename(tmp_path / "moved")
    (tmp_path / "moved").rename(path)
    assert find_socket(path) == found
    path.unlink()
    path.touch()
    assert find_socket(path) is None
