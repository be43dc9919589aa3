"""What of a deployment one node runs. Pure."""

from collections.abc import Collection, Mapping

from edge_agent.fleet_protocol.deployment import Deployment, Offer, PluginEntry, Rollout
from edge_agent.store.digest import sha256_hex
from edge_agent.store.release import PluginId, Release


def matches(entry: PluginEntry, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels has all that the entry selects."""
    return _has(labels, entry.select)


def place(seed: str, node: str) -> int:
    """A node's place in a rollout, 0 to 99, the same everywhere and for ever.

    SHA-256 over the seed, a zero byte and the node's name, both in UTF-8; its first 8 bytes,
    read as an unsigned big-endian number; the remainder by 100.
    """
    return int(sha256_hex(f"{seed}\0{node}".encode())[:16], 16) % 100


def chosen(rollout: Rollout | None, node: str, labels: Mapping[str, str] = {}) -> bool:
    """Whether a release is for this node: named, in a ring, or by its place.

    A higher percentage, another ring and more names only add nodes.
    """
    if rollout is None or node in rollout.nodes or place(rollout.seed, node) < rollout.percent:
        return True
    return any(_has(labels, ring) for ring in rollout.rings)


def wanted(
    deployment: Deployment,
    node: str,
    labels: Mapping[str, str],
    rejected: Collection[str] = (),
) -> dict[PluginId, Offer]:
    """By identity (NN-name): the first release that is for this node and not rejected by it.

    `rejected` holds digests ("sha256:HEX") and setups (`Release.setup`). A plugin
    without such a release is left out.
    """
    found: dict[PluginId, Offer] = {}
    for entry in deployment.plugins:
        if not matches(entry, labels):
            continue
        for offer in entry.offers:
            if chosen(offer.rollout, node, labels) and not _held(offer.release, rejected):
                found[entry.identity] = offer
                break
    return found


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


def _held(release: Release, rejected: Collection[str]) -> bool:
    # A setup costs a digest: too much for each of thousands of nodes, and most reject nothing.
    return bool(rejected) and (release.digest in rejected or release.setup in rejected)
