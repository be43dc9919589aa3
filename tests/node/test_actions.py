"""What requests do on the thread that answers runtimes, and what they do not do there."""

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from edge_agent.fleet_protocol.requests import Request
from edge_agent.host.crash_policy import Quarantine
from edge_agent.host.supervisor import Supervisor
from edge_agent.node.actions import Actions, LogBuffer
from edge_agent.node.requests import Job, Ticket

LATER = "subprocess"  # for `doctor` in a child


class Seen:
    """A finder that finds nothing, and notes which thread looks for what."""

    def __init__(self) -> None:
        self.threads: dict[str, threading.Thread] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        self.threads.setdefault(name, threading.current_thread())
        return None


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.delitem(sys.modules, LATER, raising=False)
    seen = Seen()
    monkeypatch.setattr(sys, "meta_path", [seen, *sys.meta_path])
    return seen


def test_diagnose_reads_no_module_on_the_thread_that_answers(tmp_path: Path, seen: Seen) -> None:
    over = threading.Event()
    job = Job(
        Request("a", "diagnose", {}),
        Ticket("a", "diagnose", "topic", None),
        lambda *_: None,
        lambda _request: over.set(),
    )
    actions = Actions(
        cast(Supervisor, None),
        LogBuffer(),
        tmp_path / "agent.toml",
        lambda _job: None,
        lambda: None,
        cast(Quarantine, None),
    )
    actions.by_verb["diagnose"](job)
    assert over.wait(120)
    assert LATER in seen.threads
    assert threading.current_thread() not in seen.threads.values()
