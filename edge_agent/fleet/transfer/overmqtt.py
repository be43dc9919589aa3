"""A blob in parts that are retained at the broker, each to be asked for and stored by itself."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from edge_agent.errors import WrongBlobError
from edge_agent.fleet.transfer.partfiles import PartFiles
from edge_agent.fleet.transfer.window import Window
from edge_agent.fleet_protocol.deployment import Blob


class BrokerPort(Protocol):
    """What this room needs of the link to the broker. Neither waits; both are idempotent."""

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        """Have what is retained there sent, also after the next connection; with `anew` once more
        where it was sent before."""

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """No longer."""


class OverMqtt:
    """One try to get `blob` from the broker."""

    def __init__(
        self, blob: Blob, folder: Path, topic: Callable[[int], str], broker: BrokerPort, now: float
    ) -> None:
        """`topic` is that of a part. StoreError."""
        self._blob = blob
        self._topic = topic
        self._broker = broker
        self._files = PartFiles(folder, blob)
        self._window = Window(blob, self._files.here(), now)

    @property
    def due(self) -> float:
        """When `step` must be called at the latest."""
        return self._window.due

    @property
    def progress(self) -> float:
        """How much of the blob is here, 0 to 1."""
        return self._window.count / self._blob.parts

    def step(self, now: float) -> Path | None:
        """The blob once it is here. TransferError, WrongBlobError, StoreError."""
        if dropped := self._window.tick(now):
            self._broker.unsubscribe(map(self._topic, dropped))
        if new := self._window.ask(now):
            self._broker.subscribe(map(self._topic, new))
        if not self._window.done:
            return None
        try:
            return self._files.decode()
        except WrongBlobError:
            self._files.remove()  # which of them is wrong nobody can tell
            raise

    def take(self, number: int, data: bytes, now: float) -> None:
        """A part came. TransferError if it cannot be one of this blob, StoreError."""
        if self._window.wants(number, len(data)):
            self._files.store(number, data)
            self._window.stored(number, now)
            self._broker.unsubscribe([self._topic(number)])

    def close(self) -> None:
        """Ask for nothing more; what came stays on the disk."""
        self._broker.unsubscribe(map(self._topic, sorted(self._window.asked)))
