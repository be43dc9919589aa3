"""Blobs at the broker: a module is compressed, cut into parts, uploaded, fetched again where a tool
needs it, and cleared at the end.

An interrupted upload continues: the tool first asks which parts the broker has. Parts are uploaded
in order, so a blob of which anything is there has its part 0, and an interrupted upload left its
beginning. A topic below `blobs` that is no part of a blob is left alone and counted.
"""

import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import LinkError, ModuleError, OperatorError
from edge_agent.fleet_protocol.deployment import Blob, Deployment, Encoding
from edge_agent.fleet_protocol.topics import MAX_PART_BYTES, FleetTopics, read_blob_part
from edge_agent.nri import events
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.broker_connection import IN_FLIGHT
from edge_agent.store import files
from edge_agent.store.digest import Digest
from edge_agent.wasm import abi
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import MAX_MODULE_BYTES, inspect

ENCODING: Encoding = "zlib"
_LEVEL = 9  # packed once, fetched by every node


class Packed(NamedTuple):
    """`digest` and `size` are the module's; `parts` are published."""

    digest: Digest
    size: int
    parts: tuple[bytes, ...]
    part_size: int = MAX_PART_BYTES
    encoding: Encoding = ENCODING

    @property
    def packed_bytes(self) -> int:
        return sum(map(len, self.parts))


def pack(wasm: bytes, part_size: int = MAX_PART_BYTES) -> Packed:
    """The same bytes give the same parts, so that an interrupted upload can go on."""
    packed = zlib.compress(wasm, _LEVEL)
    parts = tuple(packed[at : at + part_size] for at in range(0, len(packed), part_size))
    return Packed(Digest.of(wasm), len(wasm), parts, part_size)


# --- uploading


# Beside the part itself: the topic, the packet's head and properties.
PACKET_BYTES = 512
# Parts asked for at once: some brokers let no more than a MiB wait for a client.
WINDOW_PARTS = 12
# A cluster acknowledges a part before each of its members can deliver it. After the last of these
# waits the upload has failed.
PATIENCE_S = (0.4, 0.4, 2.0, 5.0)

Progress = Callable[[int, int], None]  # bytes at the broker, bytes of all parts


class Published(NamedTuple):
    """The result of an upload; `there` is the number of parts that were at the broker before."""

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
    """Publish the parts that the broker lacks; returns when the broker has all. LinkError."""
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
        # A killed broker may have lost parts that it acknowledged, and a member of a cluster
        # acknowledges parts that were not stored. A broker of MQTT 3.1.1 cannot say "not allowed":
        # it drops the part without an error.
        missing = _missing(client, names, packed.parts)
        if missing:
            time.sleep(pause_s)
            missing = _missing(client, names, packed.parts)
    if missing:
        raise LinkError(
            f"{client.url}: the broker acknowledged {names[missing[0]]}, but does not keep it."
            " Check that this operator may write there (access list), that the broker keeps"
            " retained messages, and that each member of a cluster is running"
        )
    return Published(
        Blob(packed.digest, packed.size, packed.encoding, len(packed.parts), packed.part_size),
        len(packed.parts),
        there,
        sent_bytes,
        packed.packed_bytes,
    )


def _send(
    client: BrokerClient, names: list[str], packed: Packed, missing: list[int], progress: Progress
) -> int:
    """Publish these parts, a window at a time; returns their bytes."""
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


def download(client: BrokerClient, topics: FleetTopics, blob: Blob) -> bytes:
    """The module, from its parts at the broker. OperatorError: they are not there, or are not it.

    LinkError: the broker does not answer.
    """
    if not blob.parts:
        raise OperatorError(f"{blob.digest.short}: has no parts at the broker")
    unpacker = zlib.decompressobj() if blob.encoding == "zlib" else None
    found = bytearray()
    for at in range(0, blob.parts, WINDOW_PARTS):
        window = range(at, min(at + WINDOW_PARTS, blob.parts))
        names = [topics.blob_part(blob.digest, number) for number in window]
        kept = client.retained(names)
        for name in names:
            part = kept.get(name, b"")
            if not 0 < len(part) <= blob.part_size:
                raise OperatorError(f"{name}: is not at the broker; publish the version again")
            try:
                # One byte more than there may be tells, and nothing larger is unpacked.
                left = blob.size + 1 - len(found)
                found += unpacker.decompress(part, left) if unpacker else part
            except zlib.error as error:
                raise OperatorError(f"{name}: damaged: {error}") from error
            if len(found) > blob.size:
                raise OperatorError(f"{name}: is of another module than {blob.digest.short}")
    if Digest.of(bytes(found)) != blob.digest:
        raise OperatorError(
            f"the broker's parts of {blob.digest.short} are another module; publish it again"
        )
    return bytes(found)


# --- clearing


class Stale(NamedTuple):
    """A blob at the broker that no deployment names."""

    digest: Digest
    topics: tuple[str, ...]  # of its parts, the first one last
    bytes: int


class Found(NamedTuple):
    """The topics that `clear` removes, and those that it keeps."""

    stale: list[Stale]
    foreign: int  # topics that are no part of a blob


def stale(client: BrokerClient, topics: FleetTopics, keep: Collection[Digest]) -> Found:
    """The blobs at the broker whose digests are not in `keep`."""
    firsts = client.retained((f"{topics.blobs}/+/0",))
    found, foreign = [], 0
    for name in sorted(firsts):
        part = read_blob_part(name)
        if part is None:
            foreign += 1
        elif part[0] not in keep:
            there = client.retained((f"{topics.blobs}/{part[0].hex}/+",)) | {name: firsts[name]}
            order = in_order(there)
            foreign += len(there) - len(order)
            size = sum(len(there[topic]) for topic in order)
            found.append(Stale(part[0], order, size))
    return Found(found, foreign)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The topics among `names` that are parts, as they are cleared.

    A blob is found by its part 0, which is cleared last: an interrupted clearing can continue.
    """
    parts = {name: part[1] for name in names if (part := read_blob_part(name))}
    return tuple(sorted(parts, key=lambda name: -parts[name]))


def clear(client: BrokerClient, blobs: Iterable[Stale]) -> int:
    """Clear these blobs at the broker; returns the number of parts. LinkError."""
    parts = 0
    for blob in blobs:
        for topic in blob.topics:
            client.publish(topic, b"", retain=True)
            parts += 1
    return parts


def named(*deployments: Deployment | None) -> set[Digest]:
    """The digests that deployments name."""
    return {
        digest
        for deployment in deployments
        if deployment is not None
        for entry in deployment.plugins
        for offer in entry.offers
        for digest in (offer.blob.digest, *(each.blob.digest for each in offer.codes))
    }
