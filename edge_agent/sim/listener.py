"""Somebody who listens to a node over MQTT and keeps what it said.

paho is imported here for once outside edge_agent/mqtt: this is another program's part,
played in the same process.
"""

import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.fleet_protocol.topics import NodeTopics

SUBSCRIBE_TIMEOUT_S = 10.0

Record = dict[str, Any]
"""One result or log record of the fleet protocol, from a node with `encoding = "json"`."""


class Listener:
    """A context manager: connected and subscribed from entering to leaving."""

    def __init__(self, port: int, topics: NodeTopics) -> None:
        self.results: list[Record] = []
        self.logs: list[Record] = []
        self.states: list[Record] = []
        self.statuses: list[str] = []
        self.messages = 0
        self.bytes = 0
        self._port = port
        self._topics = topics
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        node = topics.status.split("/")[-2]
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"listener-{node}",
            clean_session=False,  # what is said while it is not connected comes later
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(t, 1) for t in topics])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._heard(
            message.topic, bytes(message.payload)
        )

    def __enter__(self) -> "Listener":
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        if not self._subscribed.wait(SUBSCRIBE_TIMEOUT_S):
            raise TimeoutError("the embedded broker did not take a subscription")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Whether `condition()` became true in time; it is asked after every message."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout_s))

    def about(self, pod: str, event: str = "") -> list[Record]:
        """The results of one pod's events, or of one event of it, in their order."""
        return [
            record
            for record in list(self.results)
            if record.get("pod", {}).get("name") == pod and event in ("", record["event"])
        ]

    def gaps(self) -> list[int]:
        """The numbers of results between the first and the last that did not arrive."""
        seen = {record["seq"] for record in list(self.results)}
        return sorted(set(range(1, max(seen, default=0) + 1)) - seen)

    def _heard(self, topic: str, payload: bytes) -> None:
        document = json.loads(payload) if payload else {}
        with self._changed:
            self.messages += 1
            self.bytes += len(payload)
            if topic == self._topics.results:
                self.results += [record for record in document["records"] if "seq" in record]
            elif topic == self._topics.logs:
                self.logs += [record for record in document["records"] if "seq" in record]
            elif topic == self._topics.state:
                self.states.append(document)
            elif topic == self._topics.status:
                self.statuses.append(document["status"])
            self._changed.notify_all()
