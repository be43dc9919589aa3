"""What the fleet's part is asked for, while it cannot come to it."""

from pathlib import Path

from edge_agent.config import AgentConfig, UpdatesConfig
from edge_agent.loop import Loop
from edge_agent.node.updates import MAX_ASKED, Updates
from edge_agent.store.release import PluginId


def test_what_is_asked_for_again_and_again_waits_once_and_does_not_fill_memory(
    tmp_path: Path,
) -> None:
    config = AgentConfig(
        node="board", state_dir=tmp_path, updates=UpdatesConfig(trust_dir=tmp_path)
    )
    with Loop() as loop:
        # Not started, it is as one whose disk hangs.
        updates = Updates(loop, config, None, lambda *_: None, lambda: None, lambda: None)
        assert all(updates.sync() for _ in range(1000))
        taken = [
            updates.unquarantine(PluginId(f"10-{number}"), lambda _: None) for number in range(1000)
        ]
        assert taken.count(True) < MAX_ASKED
        assert len(updates._worker._calls) == MAX_ASKED
        assert updates.sync()
