"""Doctor's findings as the answer to a request."""

import json
import threading
from pathlib import Path
from typing import Any

from edge_agent.fleet_protocol.requests import Request
from edge_agent.node import actions
from edge_agent.node.requests import Job, Ticket


class Answers:
    def __init__(self) -> None:
        self.states: list[str] = []
        self.last: dict[str, Any] = {}
        self.over = threading.Event()

    def publish(self, _topic: str, payload: bytes, _correlation: bytes | None) -> None:
        self.last = json.loads(payload)
        self.states.append(self.last["state"])
        if self.last["state"] != "running":
            self.over.set()


def diagnose(config: Path) -> Answers:
    answers = Answers()
    ticket = Ticket("a", "diagnose", "topic", None)
    job = Job(Request("a", "diagnose", {}), ticket, answers.publish, lambda _request: None)
    job.running()
    actions.examine(job, config)
    assert answers.over.wait(actions.DIAGNOSIS_TIMEOUT_S + 30)
    return answers


def test_the_answer_is_what_doctor_finds_here(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'plugin_dir = "nowhere"\ncontrol_socket = "{tmp_path}/control"\n')
    answers = diagnose(config)
    assert answers.states == ["running", "succeeded"]
    subjects = {finding["subject"] for finding in answers.last["result"]["findings"]}
    assert len(subjects) > 3
    assert str(tmp_path / "nowhere") in json.dumps(answers.last["result"])


def test_a_doctor_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(actions, "DIAGNOSIS_TIMEOUT_S", 0.5)
    monkeypatch.setattr(actions, "_MAIN", "import time; time.sleep(600)")
    answers = diagnose(tmp_path / "agent.toml")
    assert answers.states == ["running", "failed"]
    assert "SIGKILL" in answers.last["reason"]


def test_a_doctor_that_says_nothing_sensible_is_a_failure(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(actions, "_MAIN", "print('well')")
    assert diagnose(tmp_path / "agent.toml").states == ["running", "failed"]
