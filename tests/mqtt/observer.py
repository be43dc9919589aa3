"""What a fleet operator's program sees: a subscriber with a session that the broker keeps."""

import json
import threading
from collections.abc import Iterable
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.wait import TIMEOUT_S, wait_until


class Message(NamedTuple):
    """As it arrived."""

    topic: str
    payload: bytes
    retained: bool

    @property
    def leaf(self) -> str:
        """The topic's last level."""
        return self.topic.rpartition("/")[2]


class Observer:
    """Subscribes to everything on a broker; a context manager."""

    def __init__(
        self, port: int, name: str = "observer", user: tuple[str, str] | None = None
    ) -> None:
        self._messages: list[Message] = []
        self._subscribed = threading.Event()
        self._port = port
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        if user is not None:
            self._client.username_pw_set(*user)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _userdata, message: self._messages.append(
            Message(message.topic, bytes(message.payload), message.retain)
        )

    def __enter__(self) -> "Observer":
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._subscribed.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def messages(self, leaf: str) -> list[Message]:
        """Those whose topic ends in `leaf`, in order of arrival."""
        return [message for message in list(self._messages) if message.leaf == leaf]

    def documents(self, leaf: str) -> list[dict[str, object]]:
        """The JSON documents there."""
        return [json.loads(message.payload) for message in self.messages(leaf)]

    def statuses(self) -> list[object]:
        """The words of the status messages."""
        return [document["status"] for document in self.documents("status")]

    def batches(self, leaf: str = "results") -> list[dict[str, object]]:
        """The MessagePack batches there."""
        return [msgpack.unpackb(message.payload) for message in self.messages(leaf)]

    def records(self, leaf: str = "results") -> list[dict[str, object]]:
        """All records, as they came: with duplicates and gaps."""
        return [record for batch in self.batches(leaf) for record in _records(batch)]

    def wait_for_status(self, *words: str) -> None:
        """Wait until these are the last words."""
        wait_until(
            lambda: self.statuses()[-len(words) :] == list(words),
            f"the status becomes {words}",
        )

    def wait_for_numbers(self, numbers: Iterable[int], leaf: str = "results") -> None:
        """Wait until each number has come, in a record or in a gap."""
        wanted = set(numbers)
        wait_until(lambda: wanted <= accounted(self.records(leaf)), f"{leaf} up to {max(wanted)}")


def _records(batch: dict[str, object]) -> list[dict[str, object]]:
    records = batch["records"]
    assert isinstance(records, list)
    return records


def accounted(records: Iterable[dict[str, object]]) -> set[int]:
    """The numbers that records and gaps stand for."""
    numbers: set[int] = set()
    for record in records:
        gap = record.get("gap")
        if isinstance(gap, dict):
            numbers.update(range(gap["from"], gap["to"] + 1))
        else:
            assert isinstance(record["seq"], int)
            numbers.add(record["seq"])
    return numbers


def deduplicated(records: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """As a consumer keeps them: the first of each number, gaps left out."""
    seen: dict[object, dict[str, object]] = {}
    for record in records:
        if "gap" not in record:
            seen.setdefault(record["seq"], record)
    return list(seen.values())
