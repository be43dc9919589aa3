"""Clears from the broker what no deployment names any more.

A topic below `blobs` that is no part of a blob is nobody's to clear: it is left and counted.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.topics import FleetTopics, read_blob_part
from edge_agent.operator.broker import BrokerClient
from edge_agent.store.digest import Digest


class Stale(NamedTuple):
    """A blob at the broker that nobody needs."""

    digest: Digest
    topics: tuple[str, ...]  # of its parts, the first one last
    bytes: int


class Found(NamedTuple):
    """What the broker keeps that is not needed."""

    stale: list[Stale]
    foreign: int  # topics that are no part of a blob


def stale(client: BrokerClient, topics: FleetTopics, keep: Collection[Digest]) -> Found:
    """The blobs there whose digests are not in `keep`."""
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

    By part 0 a blob is found: it goes last, so that an interrupted clearing can go on.
    """
    parts = {name: part[1] for name in names if (part := read_blob_part(name))}
    return tuple(sorted(parts, key=lambda name: -parts[name]))


def clear(client: BrokerClient, blobs: Iterable[Stale]) -> int:
    """Take them from the broker; how many parts that were. LinkError."""
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
        for release in entry.releases
        for digest in (release.blob.digest, *(each.blob.digest for each in release.codes))
    }
