"""What requests do on the thread that answers runtimes, and what they do not do there."""

import json
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from edge_agent.errors import RequestError
from edge_agent.fleet_protocol.requests import Request
from edge_agent.host.crash_policy import Quarantine
from edge_agent.host.supervisor import Supervisor
from edge_agent.node.actions import Actions, LogBuffer
from edge_agent.node.requests import Job, Ticket
from tests.support.wait import TIMEOUT_S

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


def made(record: Callable[[Job], Callable[[], None]], config: Path = Path("agent.toml")) -> Actions:
    return Actions(
        cast(Supervisor, None),
        LogBuffer(),
        config,
        lambda _job: None,
        lambda: None,
        cast(Quarantine, None),
        record,
    )


def test_diagnose_reads_no_module_on_the_thread_that_answers(tmp_path: Path, seen: Seen) -> None:
    over = threading.Event()
    job = Job(
        Request("a", "diagnose", {}),
        Ticket("a", "diagnose", "topic", None),
        lambda *_: None,
        lambda _request: over.set(),
    )
    actions = made(lambda _job: pytest.fail("no recording"), tmp_path / "agent.toml")
    actions.by_verb["diagnose"](job)
    assert over.wait(120)
    assert LATER in seen.threads
    assert threading.current_thread() not in seen.threads.values()


def test_one_recording_at_a_time_on_a_thread_of_its_own_and_the_next_after_its_answer() -> None:
    go_on, begun = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def job(identity: str) -> Job:
        return Job(
            Request(identity, "record", {}),
            Ticket(identity, "record", "topic", None),
            lambda _topic, payload, _data: answers.put(payload),
            lambda _request: None,
        )

    def record(job: Job) -> Callable[[], None]:
        threads.append(threading.current_thread())
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        return job.succeeded

    actions = made(record)
    for number in range(3):
        begun.clear()
        go_on.clear()
        actions.by_verb["record"](job(str(number)))
        assert begun.wait(TIMEOUT_S)
        with pytest.raises(RequestError, match="another recording for the fleet runs here"):
            actions.by_verb["record"](job("x"))
        go_on.set()
        assert json.loads(answers.get(timeout=TIMEOUT_S))["id"] == str(number)
    assert threading.current_thread() not in threads
