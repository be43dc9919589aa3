"""What is remembered of creations: bounded, whatever plugins and runtimes send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_agent.host import creations
from edge_agent.host.creations import Creations, Finding
from edge_agent.loop import Loop
from edge_agent.nri.session import Call, RuntimeInfo
from edge_agent.pb import nri_pb2
from edge_agent.store.release import PluginId

DATA = Path(__file__).parents[1] / "data"
REQUEST = (DATA / "containerd-2.1.9-create_container_request.bin").read_bytes()
CONTAINERD = RuntimeInfo("containerd", "1.7.24", "", 2000, tells_timeouts=False)


class House:
    """Creations whose worker does its jobs when it is told to."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.jobs: list[Callable[[], None]] = []
        self.told: list[tuple[str, Finding]] = []
        self.creations = Creations(loop, self.jobs.append)

    def tell(self, identity: str, finding: Finding) -> None:
        self.told.append((identity, finding))

    def reply(self, container: str, identity: str = "10-a", size: int = 0, pids: int = 7) -> None:
        request = nri_pb2.CreateContainerRequest.FromString(REQUEST)
        request.container.id = container
        response = nri_pb2.CreateContainerResponse()
        response.adjust.linux.resources.pids.limit = pids
        response.adjust.annotations[identity] = "x" * size
        call = Call(1, "CreateContainer", "", request.SerializeToString(), 2.0)
        reply = response.SerializeToString()
        self.creations.replied(self.tell, PluginId(identity), CONTAINERD, call, reply)

    def show(self, container: str, *, state_change: bool = True) -> None:
        message = nri_pb2.StateChangeEvent if state_change else nri_pb2.PostCreateContainerRequest
        payload = message(container=nri_pb2.Container(id=container)).SerializeToString()
        call = Call(1, "PostCreateContainer", "", payload, 2.0, state_change)
        self.creations.created(CONTAINERD, call)

    def work(self) -> list[tuple[str, str]]:
        """(plugin, kind) of what came of all jobs."""
        while self.jobs:
            self.jobs.pop(0)()
        self.loop.call_soon(self.loop.stop)
        self.loop.run()
        told, self.told = self.told, []
        return [(identity, finding.kind) for identity, finding in told]


def test_each_reply_is_looked_at_once_when_the_container_is_shown() -> None:
    with Loop() as loop:
        for state_change in (False, True):
            house = House(loop)
            house.reply("c1")
            house.reply("c1", "20-b", pids=0)
            house.show("c1", state_change=state_change)
            house.show("c1", state_change=state_change)  # to the second plugin
            assert ("10-a", "dropped") in house.work()
            house.show("c1", state_change=state_change)
            assert house.work() == []


def test_the_oldest_creations_are_forgotten() -> None:
    with Loop() as loop:
        house = House(loop)
        for number in range(creations.MAX_OPEN + 1):
            house.reply(f"c{number}")
        house.show("c0")
        assert house.work() == []
        house.show("c1")
        assert house.work() == [("10-a", "dropped")]


def test_large_replies_are_remembered_within_a_bound() -> None:
    with Loop() as loop:
        house = House(loop)
        house.reply("large", size=creations.MAX_BYTES)
        house.show("large")
        assert house.work() == []
        for number in range(8):
            house.reply(f"c{number}", size=creations.MAX_BYTES // 4)
        house.show("c0")
        assert house.work() == []
        house.show("c7")
        assert house.work() == [("10-a", "dropped")]


def test_a_worker_that_is_busy_is_not_given_more_than_it_can_hold() -> None:
    with Loop() as loop:
        house = House(loop)
        size = creations.MAX_WAITING_BYTES // 8
        for number in range(20):
            house.reply(f"c{number}", size=size)
            house.show(f"c{number}")
        assert 5 <= len(house.jobs) <= 8
        assert len(house.work()) <= 8
        house.reply("later", size=size)
        house.show("later")
        assert house.work() == [("10-a", "dropped")]


def test_bytes_that_are_no_message_are_passed_over() -> None:
    with Loop() as loop:
        house = House(loop)
        for payload in (b"", b"\xff" * 20, REQUEST[:-1]):
            for event in ("CreateContainer", "PostCreateContainer"):
                call = Call(1, event, "", payload, 2.0)
                house.creations.replied(house.tell, PluginId("10-a"), CONTAINERD, call, b"\xff\xff")
                house.creations.created(CONTAINERD, call)
                assert house.creations.rejected("90-v", call, "because") in ([], ["10-a"])
        house.work()
        house.reply("c1")
        house.show("c1")
        assert ("10-a", "dropped") in house.work()


def test_a_second_attempt_with_the_same_id_clashes_with_nothing() -> None:
    with Loop() as loop:
        house = House(loop)
        house.reply("c1", "10-a")
        house.reply("c1", "10-a")
        assert house.jobs == []
