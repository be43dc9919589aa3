"""An operator's own connection to a broker."""

from types import TracebackType
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion


class Publisher:
    """Retains messages at a broker on a loopback port; a context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="operator")

    def publish(self, topic: str, payload: bytes) -> None:
        """Returns once the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(60)

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
