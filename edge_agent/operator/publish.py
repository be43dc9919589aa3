"""Puts a plugin's module onto the broker, part by part, where every node can fetch it.

An upload that was interrupted goes on: what the broker has already is asked for first. Parts go
up in order, so that a blob of which anything is there has its part 0, and what an interrupted
upload left is its beginning.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import LinkError, ModuleError, OperatorError
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.fleet_protocol.topics import FleetTopics
from edge_agent.nri import events
from edge_agent.operator.blobs import Packed, pack
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.broker_connection import IN_FLIGHT
from edge_agent.store import files
from edge_agent.wasm import abi
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import MAX_MODULE_BYTES, inspect

# Beside the part itself: the topic, the packet's head and properties.
PACKET_BYTES = 512
# Asked for at once: what brokers let wait for a client is a MiB in some.
WINDOW_PARTS = 12
# Brokers that are a cluster acknowledge before each of their members gives it back. After the last
# of these waits the upload has failed.
PATIENCE_S = (0.4, 0.4, 2.0, 5.0)

Progress = Callable[[int, int], None]  # bytes at the broker, bytes of all parts


class Published(NamedTuple):
    """What an upload came to; `there` parts were at the broker before."""

    blob: Blob
    parts: int
    there: int
    sent_bytes: int
    packed_bytes: int


def read_module(path: Path) -> bytes:
    """A module that nodes can host. ModuleError names the file and what is wrong."""
    wasm = files.read(path, MAX_MODULE_BYTES)
    if wasm is None:
        raise ModuleError(f"{path}: no such file")
    try:
        info = inspect(wasm)
        check_imports(
            info, HostServices(GuestLog(lambda *_: None, 0, 0), PluginState()).functions()
        )
        if not events.servable(abi.methods(info)):
            raise ModuleError("it can serve no event: it exports none of the methods for them")
    except ModuleError as error:
        raise ModuleError(f"{path}: {error}; `edge-agent plugin check {path}` says more") from error
    return wasm


def upload(
    client: BrokerClient,
    topics: FleetTopics,
    packed: Packed,
    progress: Progress = lambda _done, _all: None,
) -> Published:
    """Bring the parts to the broker that it lacks; returns when it has them all. LinkError."""
    largest = max(map(len, packed.parts)) + PACKET_BYTES
    if largest > client.max_packet_bytes:
        raise OperatorError(
            f"{client.url}: the broker takes {client.max_packet_bytes} bytes at once, {largest} are"
            " needed: raise its maximum packet size (mosquitto: max_packet_size)"
        )
    names = [topics.blob_part(packed.digest, number) for number in range(len(packed.parts))]
    missing = _missing(client, names, packed.parts)
    there, sent_bytes = len(names) - len(missing), 0
    for pause_s in PATIENCE_S:
        if not missing:
            break
        sent_bytes += _send(client, names, packed, missing, progress)
        # A broker that was killed may have forgotten what it had acknowledged, and a member of a
        # cluster acknowledges what was not stored. MQTT 3.1.1 has no word for "not allowed": such
        # a broker drops it and says nothing.
        missing = _missing(client, names, packed.parts)
        if missing:
            time.sleep(pause_s)
            missing = _missing(client, names, packed.parts)
    if missing:
        raise LinkError(
            f"{client.url}: the broker acknowledged {names[missing[0]]}, but does not keep it: may"
            " this operator write there (access list), does it keep retained messages, and is each"
            " member there if it is a cluster?"
        )
    return Published(
        Blob(packed.digest, packed.size, packed.encoding, len(packed.parts), packed.part_size),
        len(packed.parts),
        there,
        sent_bytes,
        packed.packed_bytes,
    )


def publish(
    client: BrokerClient,
    topics: FleetTopics,
    wasm: bytes,
    progress: Progress = lambda _done, _all: None,
) -> Published:
    """`pack` and `upload` in one."""
    return upload(client, topics, pack(wasm), progress)


def _send(
    client: BrokerClient, names: list[str], packed: Packed, missing: list[int], progress: Progress
) -> int:
    """Publish these parts, a window at a time; their bytes."""
    whole, todo = packed.packed_bytes, sum(len(packed.parts[number]) for number in missing)
    done = whole - todo
    progress(done, whole)
    waiting: deque[tuple[int, int]] = deque()  # packet ids, with the bytes behind them

    def acknowledged(most: int) -> None:
        nonlocal done
        while len(waiting) > most:
            packet_id, size = waiting.popleft()
            client.wait(packet_id)
            done += size
            progress(done, whole)

    for number in missing:
        acknowledged(IN_FLIGHT - 1)
        part = packed.parts[number]
        waiting.append((client.send(names[number], part, retain=True), len(part)))
    acknowledged(0)
    return todo


def _missing(client: BrokerClient, names: list[str], parts: tuple[bytes, ...]) -> list[int]:
    """The parts to send: asks window by window, up to the first that is not all there."""
    for at in range(0, len(names), WINDOW_PARTS):
        window = range(at, min(at + WINDOW_PARTS, len(names)))
        kept = client.retained(names[number] for number in window)
        missing = [number for number in window if kept.get(names[number]) != parts[number]]
        if missing:
            return [*missing, *range(window.stop, len(names))]
    return []
