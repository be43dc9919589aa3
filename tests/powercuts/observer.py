"""What a node tells its broker, and what the broker keeps of its fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from tests.boards.fleet import NODE, FleetSide
from tests.powercuts.cutlog import Told
from tests.support.fleetbroker import FLEET, Peer
from tests.support.wait import wait_until

ABOUT_ALL = f"edge/v1/{FLEET}"
ABOUT_NODE = f"{ABOUT_ALL}/nodes/{NODE}"


class Observer:
    """Hears all that the node tells; a context manager. Its session outlives the broker."""

    def __init__(self, fleet: FleetSide, length: Callable[[], int]) -> None:
        """`length` is that of the log of writes, in bytes."""
        self.told: list[Told] = []
        self._length = length
        self._peer = Peer(fleet.broker, "operator", "observer", keep_s=3600, heard=self._hear)
        self._peer.subscribe(f"{ABOUT_NODE}/#")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.told.append(Told(self._length(), topic.removeprefix(f"{ABOUT_NODE}/"), payload))


def said_goodbye(told: Sequence[Told]) -> bool:
    return any(each.topic == "status" and b"offline" in each.payload for each in told)


def retained(fleet: FleetSide) -> dict[str, bytes]:
    """The fleet's deployment as the broker has it now, by its topic."""
    found: dict[str, bytes] = {}
    peer = Peer(fleet.broker, "operator", heard=found.__setitem__)
    peer.subscribe(f"{ABOUT_ALL}/deployment")
    wait_until(lambda: found, "the deployment")
    peer.close()
    return found


def retain(fleet: FleetSide, documents: Mapping[str, bytes]) -> None:
    peer = Peer(fleet.broker, "operator")
    for topic, payload in documents.items():
        assert peer.publish(topic, payload, retain=True) in ("Success", "No matching subscribers")
    peer.close()
