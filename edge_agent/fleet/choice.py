"""What of a deployment one node runs. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from edge_agent.fleet.deployment import Deployment, PluginEntry, Release, Rollout
from edge_agent.store.catalogue import setup_key
from edge_agent.store.digest import sha256_hex


class Choice(NamedTuple):
    """A plugin and the release of it that this node is to run."""

    entry: PluginEntry
    release: Release


def matches(entry: PluginEntry, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels has all that the entry selects."""
    return all(labels.get(name) == value for name, value in entry.select.items())


def place(seed: str, node: str) -> int:
    """A node's place in a rollout, 0 to 99, the same everywhere and for ever.

    SHA-256 over the seed, a zero byte and the node's name, both in UTF-8; its first 8 bytes,
    read as an unsigned big-endian number; the remainder by 100.
    """
    return int(sha256_hex(f"{seed}\0{node}".encode())[:16], 16) % 100


def chosen(rollout: Rollout | None, node: str) -> bool:
    """Whether a release is for this node. A higher percentage only adds nodes."""
    return rollout is None or place(rollout.seed, node) < rollout.percent


def wanted(
    deployment: Deployment,
    node: str,
    labels: Mapping[str, str],
    rejected: Collection[str] = (),
) -> dict[str, Choice]:
    """By identity (NN-name): the first release that is for this node and not rejected by it.

    `rejected` holds digests ("sha256:HEX") and setups (`catalogue.setup_key`). A plugin
    without such a release is left out.
    """
    found = {}
    for entry in deployment.plugins:
        if not matches(entry, labels):
            continue
        for release in entry.releases:
            if chosen(release.rollout, node) and not _held(entry, release, rejected):
                found[entry.identity] = Choice(entry, release)
                break
    return found


def _held(entry: PluginEntry, release: Release, rejected: Collection[str]) -> bool:
    digest = release.blob.digest
    # A setup's key is costly, for who asks for thousands of nodes, and most reject nothing.
    return bool(rejected) and (
        digest in rejected or setup_key(digest, entry.config, entry.settings) in rejected
    )
