"""A recording for the fleet, as the node makes it of a running agent's events."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from edge_agent.authors import recording
from edge_agent.config import AgentConfig, RequestsConfig
from edge_agent.control import ask
from edge_agent.fleet_protocol import recorded_parts
from edge_agent.fleet_protocol.recorded_parts import Gathered
from edge_agent.fleet_protocol.requests import checked
from edge_agent.node import fleet_recording
from edge_agent.node.requests import Job, Ticket
from edge_agent.pb import nri_pb2
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = pytest.mark.system

BENCH = "10-bench"
SECRET = "hunter2"


class Fleet:
    """Somebody who asks one board to record, and what the board answers."""

    def __init__(self, agent: Agent, runtime: SimRuntime) -> None:
        self.agent = agent
        self.runtime = runtime
        self.answers: list[dict[str, Any]] = []
        self.gathered = Gathered()
        self.room = True  # for parts
        self.hides: tuple[str, ...] = ()

    def ask(self, **arguments: object) -> threading.Thread:
        """The thread that records; it ends with the last answer."""
        job = Job(
            checked("record", "a", arguments),
            Ticket("a", "record", "topic", None),
            lambda _topic, payload, _data: self.answers.append(json.loads(payload)),
            lambda _request: None,
        )
        config = AgentConfig(
            "board-7", "greenhouse", requests=RequestsConfig(record_hides=self.hides)
        )

        def record() -> None:
            fleet_recording.record(job, config, self.agent.config_path, self._seal, self._offer)()

        thread = threading.Thread(target=record)
        thread.start()
        return thread

    def finished(self, thread: threading.Thread) -> dict[str, Any]:
        """The last answer."""
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        assert [each["state"] for each in self.answers[:-1]] == ["running"]
        return self.answers[-1]

    def begun(self, number: int = 1) -> None:
        """Wait until the agent records; this does not take what was recorded, for nothing was."""
        wait_until(
            lambda: "problem" not in ask(self.agent.control_socket, "record", take=number),
            "the agent records",
        )

    def create(self, count: int, **more: Any) -> None:
        pod = self.runtime.run_pod("pod").pod
        for number in range(count):
            assert self.runtime.create_container(pod, f"c{number}", start=False, **more).ok

    def events(self) -> list[nri_pb2.CreateContainerRequest]:
        """What the file has that came in parts."""
        self.gathered.end(self.answers[-1]["result"])
        path = self.agent.folder / "came.edgerec"
        path.write_bytes(self.gathered.joined())
        return [
            cast(nri_pb2.CreateContainerRequest, each.message()) for each in recording.read(path)
        ]

    def _seal(self, document: bytes, payload_type: str) -> bytes:
        assert payload_type == recorded_parts.PAYLOAD_TYPE
        return document[:-1] + b',"signed":{}}'

    def _offer(self, job: Job, result: dict[str, object]) -> bool:
        assert job.request.id == "a"
        if self.room:
            self.gathered.take(result)
        return self.room


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with (
        SimRuntime(tmp_path / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime,
        Agent(tmp_path, sockets=[Path(runtime.path)], plugins={BENCH: guest("bench")}) as agent,
    ):
        agent.wait_running(BENCH)
        yield Fleet(agent, runtime)


def test_what_the_configuration_hides_is_hidden_whatever_is_asked(fleet: Fleet) -> None:
    fleet.hides = ("env", "labels:secret*")
    thread = fleet.ask(plugin=BENCH, events=["CreateContainer"], count=2, redact=["args"])
    fleet.begun()
    labels = {"secret/a": SECRET, "app": "web"}
    fleet.create(3, env=[f"TOKEN={SECRET}"], labels=labels, args=["tool", f"--pass={SECRET}"])
    last = fleet.finished(thread)
    assert last["state"] == "succeeded"
    assert (last["result"]["fleet"], last["result"]["node"]) == ("greenhouse", "board-7")
    assert "signed" in last
    events = fleet.events()
    assert len(events) == 2
    for each in events:
        assert SECRET.encode() not in each.SerializeToString()
        assert list(each.container.env) == ["TOKEN=redacted"]
        assert dict(each.container.labels) == {"secret/a": "redacted", "app": "web"}
        assert list(each.container.args) == ["tool", "redacted"]


def test_nothing_is_hidden_where_node_and_request_say_so(fleet: Fleet) -> None:
    thread = fleet.ask(count=1, events=["CreateContainer"], redact=[])
    fleet.begun()
    fleet.create(1, env=["MODE=fast"])
    assert fleet.finished(thread)["state"] == "succeeded"
    assert [list(each.container.env) for each in fleet.events()] == [["MODE=fast"]]


def test_without_an_event_there_is_nothing_to_send(fleet: Fleet) -> None:
    last = fleet.finished(fleet.ask(seconds=1))
    assert (last["state"], last["reason"]) == ("failed", "no event came")


def test_a_recording_on_the_board_itself_is_not_disturbed(fleet: Fleet) -> None:
    begin = {"begin": {"count": 5}}
    assert "recording" in ask(fleet.agent.control_socket, "record", **begin)
    last = fleet.finished(fleet.ask())
    assert last["state"] == "failed"
    assert last["reason"] == "another recording runs; end it first"


def test_where_no_agent_answers_that_is_said(fleet: Fleet) -> None:
    fleet.agent.stop()
    last = fleet.finished(fleet.ask())
    assert last["state"] == "failed"
    assert "no agent listens on" in last["reason"]


def test_a_broker_that_takes_nothing_ends_the_request(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_recording, "ROOM_S", 0.2)
    fleet.room = False
    thread = fleet.ask(count=1)
    fleet.begun()
    fleet.create(1)
    last = fleet.finished(thread)
    assert last["state"] == "failed"
    assert "the broker took no part of it" in last["reason"]


def test_what_is_large_ends_by_its_size_in_parts(fleet: Fleet) -> None:
    thread = fleet.ask(count=1000, events=["CreateContainer"], seconds=600, redact=[])
    fleet.begun()
    # Over 900 KB that nothing packs smaller, in the time that the recorder needs.
    for _ in range(12):
        fleet.create(1, args=["x", base64.b64encode(os.urandom(75_000)).decode()])
    last = fleet.finished(thread)
    assert last["state"] == "succeeded"
    assert recorded_parts.MAX_BYTES * 0.8 < last["result"]["size"] <= recorded_parts.MAX_BYTES
    assert 1 <= len(fleet.events()) < 12


@pytest.mark.parametrize(
    ("child", "spare_s", "reason"),
    [
        ("import time; time.sleep(600)", 0.1, "ended by SIGKILL"),
        ("print('\\x1b[31m' * 10**6, file=sys.stderr)", 0.1, "ended by SIGKILL"),
        ("sys.exit('first\\nthe \\x1blast line')", 600.0, "the \\x1blast line"),
        ("sys.exit(3)", 600.0, "the recorder ended with 3"),
        ("print('x' * 2_000_000)", 600.0, "the recorder ended with"),
        ("pass", 600.0, "the recorder ended with 0"),
    ],
)
def test_a_child_that_fails_is_a_failure_in_words(
    child: str, spare_s: float, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_recording, "SPARE_S", spare_s)
    monkeypatch.setattr(fleet_recording, "_MAIN", child)
    answers: list[dict[str, Any]] = []
    job = Job(
        checked("record", "a", {"seconds": 1}),
        Ticket("a", "record", "topic", None),
        lambda _topic, payload, _data: answers.append(json.loads(payload)),
        lambda _request: None,
    )
    never: Callable[..., Any] = lambda *_: pytest.fail("nothing is to be sent")  # noqa: E731
    fleet_recording.record(job, AgentConfig("b"), tmp_path / "agent.toml", never, never)()
    assert answers[-1]["state"] == "failed"
    assert reason in answers[-1]["reason"]
