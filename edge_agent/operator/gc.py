"""Clears from the broker what no deployment names any more."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from edge_agent.fleet.deployment import Deployment
from edge_agent.mqtt.topics import FleetTopics
from edge_agent.operator.broker import BrokerClient


class Stale(NamedTuple):
    """A blob at the broker that nobody needs."""

    hex: str
    topics: tuple[str, ...]  # of its parts, the first one last
    bytes: int


def stale(client: BrokerClient, topics: FleetTopics, keep: Collection[str]) -> list[Stale]:
    """The blobs there whose digests ("sha256:HEX") are not in `keep`."""
    firsts = client.retained((f"{topics.blobs}/+/0",))
    found = []
    for name in sorted(firsts):
        hexadecimal = name.split("/")[-2]
        if f"sha256:{hexadecimal}" in keep:
            continue
        parts = client.retained((f"{topics.blobs}/{hexadecimal}/+",)) | {name: firsts[name]}
        # By part 0 it is found: it goes last, so that an interrupted clearing can go on.
        order = sorted(parts, key=lambda topic: -int(topic.rpartition("/")[2] or 0))
        found.append(Stale(hexadecimal, tuple(order), sum(map(len, parts.values()))))
    return found


def clear(client: BrokerClient, blobs: Iterable[Stale]) -> int:
    """Take them from the broker; how many parts that were. LinkError."""
    parts = 0
    for blob in blobs:
        for topic in blob.topics:
            client.publish(topic, b"", retain=True)
            parts += 1
    return parts


def named(*deployments: Deployment | None) -> set[str]:
    """The digests that deployments name."""
    return {
        release.blob.digest
        for deployment in deployments
        if deployment is not None
        for entry in deployment.plugins
        for release in entry.releases
    }
