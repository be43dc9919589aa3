"""Who was at work when a process died, as the next one reads it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host import crash_marker as module
from edge_agent.host.crash_marker import (
    ENTRIES,
    FILE_BYTES,
    LOADER,
    LOOP,
    MAX_IDENTITY_BYTES,
    NOBODY,
    CrashMarker,
    Suspect,
    oom_kills,
)
from edge_agent.store.digest import Digest
from edge_agent.store.files import boot_id
from edge_agent.store.release import PluginId
from tests.support.smalldisk import small_disk

DIGEST = Digest.of_hex("ab" * 32)
OTHER = Digest.of_hex("cd" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "running"


def begun(path: Path) -> CrashMarker:
    marker = CrashMarker()
    assert marker.open(path) is None
    return marker


def left(path: Path) -> list[Suspect]:
    found = CrashMarker().open(path)
    return found.suspects if found is not None else []


def busy(path: Path) -> bytearray:
    """The content that a process leaves which died in a guest's call."""
    marker = begun(path)
    marker.memory[LOOP] = marker.enter(PluginId("10-a"), DIGEST).index
    return bytearray(path.read_bytes())


def test_a_first_start_finds_nobody(path: Path) -> None:
    assert left(path) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_between_two_calls_nobody_is_at_work(path: Path) -> None:
    marker = begun(path)
    mark = marker.enter(PluginId("10-a"), DIGEST)
    marker.memory[LOOP] = mark.index
    marker.memory[LOOP] = NOBODY
    assert left(path) == []


@pytest.mark.parametrize("slot", [LOOP, LOADER])
def test_who_is_in_a_slot_is_told_once(path: Path, slot: int) -> None:
    marker = begun(path)
    marker.enter(PluginId("10-a"), OTHER)
    marker.memory[slot] = marker.enter(PluginId("20-b"), DIGEST).index
    assert left(path) == [Suspect("20-b", DIGEST)]
    assert left(path) == []


def test_two_threads_may_be_at_work(path: Path) -> None:
    marker = begun(path)
    marker.memory[LOOP] = marker.enter(PluginId("20-b"), DIGEST).index
    marker.memory[LOADER] = marker.enter(PluginId("10-a"), DIGEST).index
    assert left(path) == [Suspect("10-a", DIGEST), Suspect("20-b", DIGEST)]


def test_one_plugin_on_both_threads_counts_once(path: Path) -> None:
    marker = begun(path)
    marker.memory[LOOP] = marker.enter(PluginId("10-a"), DIGEST).index
    marker.memory[LOADER] = marker.enter(PluginId("10-a"), DIGEST).index
    assert left(path) == [Suspect("10-a", DIGEST)]


def test_machine_code_of_the_fleets_is_told_from_what_was_compiled_here(path: Path) -> None:
    marker = begun(path)
    mark, other = marker.enter(PluginId("10-a"), DIGEST), marker.enter(PluginId("10-a"), DIGEST)
    before = mark.index
    mark.runs_code()
    marker.memory[LOADER] = mark.index
    marker.memory[LOOP] = other.index
    assert mark.index != other.index == before
    assert left(path) == [Suspect("10-a", DIGEST), Suspect("10-a", DIGEST, by_code=True)]
    mark.close()
    other.close()
    assert marker.enter(PluginId("20-b"), DIGEST).index == before  # both entries are free again


def test_an_orderly_end_leaves_nobody_whatever_a_thread_still_does(path: Path) -> None:
    marker = begun(path)
    mark = marker.enter(PluginId("10-a"), DIGEST)
    marker.close()
    marker.memory[LOADER] = mark.index
    assert left(path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_what_a_killed_process_wrote_is_there(path: Path, number: signal.Signals) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from edge_agent.host.crash_marker import *\n"
        "marker = CrashMarker(); marker.open(Path(sys.argv[1]))\n"
        "marker.memory[LOOP] = marker.enter('10-a', Digest.of_hex('ab' * 32)).index\n"
        "os.kill(os.getpid(), int(sys.argv[2]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path, str(int(number))], check=False)
    assert done.returncode == -number
    assert left(path) == [Suspect("10-a", DIGEST)]


def test_a_process_that_was_killed_at_rest_is_told_from_one_that_ended(path: Path) -> None:
    begun(path)
    found = CrashMarker().open(path)
    assert found is not None
    assert found.suspects == []
    ended = CrashMarker()
    ended.open(path)
    ended.close()
    assert CrashMarker().open(path) is None


def test_kills_of_the_out_of_memory_killer_are_counted_from_its_beginning(path: Path) -> None:
    now = oom_kills()
    if now is None:
        pytest.skip("needs Linux 4.13: /proc/vmstat has no oom_kill")
    begun(path)
    found = CrashMarker().open(path)
    assert found is not None
    assert found.oom_kills is not None
    assert found.oom_kills_now is not None
    assert now <= found.oom_kills <= found.oom_kills_now


def test_a_file_of_an_agent_that_did_not_count_them_is_read(path: Path) -> None:
    content = busy(path)
    content[48:56] = bytes(8)
    path.write_bytes(content)
    found = CrashMarker().open(path)
    assert found is not None
    assert (found.suspects, found.oom_kills) == ([Suspect("10-a", DIGEST)], None)


def test_another_boot_says_nothing(path: Path) -> None:
    content = busy(path)
    at = content.index(boot_id().encode())
    content[at : at + 8] = b"00000000"
    path.write_bytes(content)
    assert left(path) == []


def test_a_kernel_without_a_boot_id_says_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "boot_id", lambda: "")
    busy(path)
    assert left(path) == []


def test_entries_are_used_again(path: Path) -> None:
    marker = begun(path)
    for number in range(3 * ENTRIES):
        mark = marker.enter(PluginId(f"10-n{number}"), DIGEST)
        assert mark.index == 1
        mark.close()
    marker.memory[LOOP] = marker.enter(PluginId("10-last"), OTHER).index
    assert left(path) == [Suspect("10-last", OTHER)]


def test_instances_of_one_plugin_share_an_entry_until_the_last_is_closed(path: Path) -> None:
    marker = begun(path)
    one, two = marker.enter(PluginId("10-a"), DIGEST), marker.enter(PluginId("10-a"), DIGEST)
    assert one.index == two.index
    one.close()
    assert marker.enter(PluginId("20-b"), DIGEST).index != two.index
    two.close()
    assert marker.enter(PluginId("30-c"), DIGEST).index == two.index


def test_a_full_table_takes_nobody_else(path: Path) -> None:
    marker = begun(path)
    indexes = {marker.enter(PluginId(f"10-n{number}"), DIGEST).index for number in range(ENTRIES)}
    assert indexes == set(range(1, ENTRIES + 1))
    more = marker.enter(PluginId("20-more"), DIGEST)
    assert more.index == NOBODY
    more.close()
    marker.memory[LOOP] = ENTRIES
    assert left(path) == [Suspect(f"10-n{ENTRIES - 1}", DIGEST)]


def test_a_long_name_is_cut(path: Path) -> None:
    marker = begun(path)
    marker.memory[LOOP] = marker.enter(PluginId.of("10", "n" * 300), DIGEST).index
    [suspect] = left(path)
    assert suspect.identity == "10-" + "n" * (MAX_IDENTITY_BYTES - 3)


@given(st.binary(max_size=200), st.integers(0, FILE_BYTES - 1))
def test_whatever_is_in_the_file_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "running"
    content = busy(path)
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    found = left(path)
    assert len(found) <= 2
    assert path.stat().st_size == FILE_BYTES
    path.write_bytes(noise)
    assert left(path) == []


def test_slots_that_name_empty_entries_name_nobody(path: Path) -> None:
    content = busy(path)
    content[LOOP] = content[LOADER] = 200
    path.write_bytes(content)
    assert left(path) == []


@pytest.mark.parametrize("kind", ["fifo", "link", "large"])
def test_what_is_no_file_of_ours_is_replaced(path: Path, tmp_path: Path, kind: str) -> None:
    content = busy(tmp_path / "other")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "precious")
        (tmp_path / "precious").write_bytes(b"precious")
    else:
        with path.open("wb") as file:
            file.write(content)
            file.truncate(1 << 40)  # a hole: nothing may read it all
    assert left(path) == []
    assert path.is_file()
    assert not path.is_symlink()
    if kind == "link":
        assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.system
def test_a_file_of_another_user_is_not_believed(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: gives a file away")
    busy(path)
    os.chown(path, 12345, 12345)
    assert left(path) == []


def test_a_folder_in_its_place_costs_the_memory_of_a_crash_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    marker = begun(path)
    marker.memory[LOOP] = marker.enter(PluginId("10-a"), DIGEST).index
    assert "cannot be told from others" in caplog.text


@pytest.mark.system
def test_a_full_disk_does_not_end_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store into a page that the disk has no room for is a SIGBUS."""
    with small_disk(tmp_path / "disk", 16) as disk:
        marker = begun(disk / "running")
        marker.memory[:] = b"\xff" * FILE_BYTES
        assert "cannot be told from others" in caplog.text
