"""What the host keeps on the disk when the agent is killed, the power goes or the disk fails."""

from __future__ import annotations

from pathlib import Path

from edge_agent.config import PluginSettings
from edge_agent.host.crash_marker import Suspect
from edge_agent.host.crash_policy import CrashPolicy
from edge_agent.host.pluginstates import PluginStates
from edge_agent.loop import Loop
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release
from tests.support.faults import survives

OLD, NEW = b"old" * 1000, b"new" * 1000
DIGEST = Digest.of_hex("ab" * 32)


def states(loop: Loop, root: Path) -> PluginStates:
    """Whose jobs are done at once, on this thread."""
    found = PluginStates(loop, root / "plugin-state", lambda job: job())
    found.begin()
    return found


def put(root: Path, value: bytes) -> None:
    with Loop() as loop:
        kept = states(loop, root)
        kept.of(PluginId("10-a")).put("key", value)
        kept.close()


def read(root: Path) -> bytes | None:
    with Loop() as loop:
        return states(loop, root).of(PluginId("10-a")).get("key")


def judge_files(root: Path) -> None:
    left = {path.name for path in (root / "plugin-state").iterdir()}
    assert left <= {"10-a.state"}


def test_a_plugins_state_is_old_or_new(tmp_path: Path) -> None:
    def judge(root: Path) -> None:
        assert read(root) in (OLD, NEW)
        judge_files(root)
        put(root, b"later")
        assert read(root) == b"later"

    def done(root: Path) -> None:
        assert read(root) == NEW

    counts = survives(
        tmp_path, lambda root: put(root, OLD), lambda root: put(root, NEW), judge, done=done
    )
    assert min(counts.values()) > 4


def test_a_removed_plugins_state_is_whole_or_gone(tmp_path: Path) -> None:
    def forget(root: Path) -> None:
        with Loop() as loop:
            states(loop, root).forget(PluginId("10-a"))

    def judge(root: Path) -> None:
        assert read(root) in (OLD, None)

    def done(root: Path) -> None:
        assert read(root) is None

    counts = survives(tmp_path, lambda root: put(root, OLD), forget, judge, done=done)
    assert min(counts.values()) > 1


def test_a_crash_is_counted_or_not_and_those_before_stay(tmp_path: Path) -> None:
    before, now = Suspect("10-a", DIGEST), Suspect("20-b", DIGEST)

    def release(index: str, name: str) -> Release:
        return Release(index, name, DIGEST, 1, "", PluginSettings())

    def begin(root: Path, *suspects: Suspect) -> CrashPolicy:
        quarantine = CrashPolicy(root / "crashes", lambda job: job())
        quarantine.begin(suspects)
        return quarantine

    def prepare(root: Path) -> None:
        for _ in range(2):
            begin(root, before)
        begin(root, now)

    def judge(root: Path) -> None:
        assert begin(root).why(release("10", "a"))

    def done(root: Path) -> None:
        assert begin(root).why(release("20", "b"))

    counts = survives(tmp_path, prepare, lambda root: begin(root, now), judge, done=done)
    assert min(counts.values()) > 4
