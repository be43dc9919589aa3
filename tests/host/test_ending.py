"""How a process ended, told from what it left; and whom that is held against."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.host.crash_marker import Cause, Left, Suspect, Verdict, cause, excuse, held
from edge_agent.store.digest import Digest

DIGEST = Digest.of_hex("ab" * 32)
# A process that looks back, goes to work, says what it found, and waits to be killed.
LIFE = """
import json, sys
from pathlib import Path
from edge_agent.host.crash_marker import look_back
from edge_agent.host.crash_marker import *
marker = CrashMarker()
found = look_back(marker, Path(sys.argv[1]), lambda: [Path("a")] * int(sys.argv[2]))
if sys.argv[3].startswith("works"):
    mark = marker.enter("10-a", Digest.of_hex("ab" * 32))
    if sys.argv[3] == "works by code":
        mark.runs_code()
    marker.memory[LOOP] = mark.index
print(json.dumps(found), flush=True)
sys.stdin.readline()
if sys.argv[3] == "ends":
    marker.close()
"""


def life(folder: Path, does: str, number: int = 0, damaged: int = 0) -> Verdict:
    """One process in this folder: what it found; it dies of signal `number` if there is one."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIFE, folder / "control", str(damaged), does],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    if number:
        process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    suspects, excuse = json.loads(said)
    return Verdict([Suspect(*each) for each in suspects], excuse)


FAULTS = [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT]


@pytest.mark.parametrize("number", FAULTS, ids=lambda each: each.name)
def test_a_fault_during_a_call_is_held_against_the_plugin(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert life(tmp_path, "works", number) == Verdict([])
    assert life(tmp_path, "ends") == Verdict([Suspect("10-a", DIGEST)])
    assert life(tmp_path, "ends") == Verdict([])


def test_a_fault_that_a_damaged_file_explains_is_not(tmp_path: Path) -> None:
    life(tmp_path, "works", signal.SIGBUS)
    found = life(tmp_path, "ends", damaged=1)
    assert found.suspects == [Suspect("10-a", DIGEST)]
    assert "was damaged on the disk" in found.excuse


def test_only_a_fault_is_held_against_the_fleets_machine_code(tmp_path: Path) -> None:
    life(tmp_path, "works by code", signal.SIGSEGV)
    assert life(tmp_path, "ends") == Verdict([Suspect("10-a", DIGEST, by_code=True)])
    code, module = Suspect("10-a", DIGEST, by_code=True), Suspect("10-a", DIGEST)
    for why in Cause:
        assert held([code], why) == [code if why is Cause.FAULT else module]


@pytest.mark.system
@pytest.mark.usefixtures("nobody_is_killed_for_memory")
def test_a_kill_from_outside_is_not_and_no_file_is_looked_at(tmp_path: Path) -> None:
    life(tmp_path, "works", signal.SIGKILL)
    found = life(tmp_path, "ends", damaged=1)
    assert (found.suspects, found.excuse) == (
        [Suspect("10-a", DIGEST)],
        "it was killed from outside",
    )


def test_a_fault_between_two_calls_is_nobodys(tmp_path: Path) -> None:
    life(tmp_path, "rests", signal.SIGSEGV)
    assert life(tmp_path, "ends") == Verdict([])


@pytest.mark.parametrize(
    ("fault", "before", "now", "found"),
    [
        ("Fatal Python error: Bus error", 3, 4, Cause.FAULT),
        ("Fatal Python error: Bus error", None, None, Cause.FAULT),
        ("", 3, 4, Cause.OUT_OF_MEMORY),
        ("", 3, 3, Cause.OUTSIDE),
        ("", 0, 0, Cause.OUTSIDE),
        (None, 3, 3, Cause.UNKNOWN),
        ("", None, 3, Cause.UNKNOWN),
        ("", 3, None, Cause.UNKNOWN),
    ],
)
def test_why_a_process_died(
    fault: str | None, before: int | None, now: int | None, found: Cause
) -> None:
    assert cause(Left([], before, now), fault) is found


@pytest.mark.parametrize("why", Cause)
def test_only_a_kill_from_outside_and_damage_excuse(why: Cause) -> None:
    assert bool(excuse(why, 0)) is (why is Cause.OUTSIDE)
    assert excuse(why, 1)


@pytest.mark.parametrize("kind", ["folder", "link", "noise"])
def test_what_lies_in_the_place_of_the_faults_is_harmless(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "control.fault", tmp_path / "precious"
    precious.write_text("precious")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(precious)
    else:
        path.write_bytes(bytes(range(256)) * 8192)  # more than is read
    life(tmp_path, "works", signal.SIGSEGV)
    assert life(tmp_path, "ends") == Verdict([Suspect("10-a", DIGEST)])
    assert precious.read_text() == "precious"
