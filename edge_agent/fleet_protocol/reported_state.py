"""What a node says of itself in its `state`: the one place that names the keys. Pure.

The node builds these (agent, host/supervisor, fleet/updater) and the operator's view reads them, so
neither can mean another form. docs/mqtt.md and docs/fleet-protocol.md tell others what the keys
mean. A reader takes nothing for granted: the node may be of another version, or lie.
"""

from collections.abc import Iterator, Mapping
from typing import NotRequired, TypedDict


class Refusal(TypedDict):
    """The latest document of one kind that is not taken."""

    reason: str  # a word: `signature`, `rollback`, ... (docs/fleet-protocol.md)
    text: str
    count: int  # refused in a row, for whatever reasons
    since: int  # Unix time, s: when it was refused for this reason first
    generation: int | None  # what it says of itself, where trusted keys signed it
    message: str  # which one it was (deployment.message_name), signed or not


class TrustState(TypedDict, total=False):
    """The trusted keys; `trouble` alone where there are none."""

    version: int
    threshold: int
    keys: list[str]
    issued: int  # Unix time, s; these three only where the set expires
    expires: int
    expired: bool
    trouble: str
    refused: Refusal | None


class FetchState(TypedDict):
    """A module on its way here."""

    digest: str
    progress: float  # 0 to 1
    source: str
    trouble: str


class UpdatesState(TypedDict):
    """`updates` in the state."""

    generation: int  # of the deployment that runs; 0: none
    accepted: int
    epoch: int
    document: str  # SHA-256 in hex of the accepted deployment's payload; "": none
    form: int
    pending: int | None
    expires: int | None  # Unix time, s, of the deployment that runs
    expired: bool
    refused: Refusal | None
    trust: TrustState
    fetching: list[FetchState]
    rejected: dict[str, str]
    quarantined: dict[str, str]
    compiled: str  # "accept" or "refuse": of the fleet's machine code
    code: dict[str, str]  # NN-name: "" where the fleet's machine code is here, or why not
    trouble: str


class PluginState(TypedDict, total=False):
    """One plugin at one runtime, in `plugins` of the state."""

    name: str
    index: str
    version: str
    digest: str
    running: str
    status: str
    failure_policy: str
    reason: str
    refusing: bool
    since: float
    runtime: str
    events: int
    failures: dict[str, int]
    restarts: int
    latency_ms: Mapping[str, float]
    memory_bytes: int
    not_carried: list[str]
    error: str


class CertificateState(TypedDict):
    """Of the one that the node connects to the broker with. Unix time, s."""

    issued: int
    expires: int


class State(TypedDict):
    """The whole; `session`, `fleet`, `number` and `time` are added where it is published, and
    `signed` (fleet_protocol/signed_states)."""

    agent: str
    node: str
    labels: dict[str, str]
    architecture: str
    engine: Mapping[str, str]
    runtimes: list[dict[str, object]]
    plugins: list[PluginState]
    updates: NotRequired[UpdatesState]
    certificate: NotRequired[CertificateState]
    uptime_s: int


def refusals(updates: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Of `updates`: `deployment` and `trust`, each with what may be a Refusal."""
    trust = updates.get("trust")
    places = (("deployment", updates), ("trust", trust if isinstance(trust, Mapping) else {}))
    for kind, place in places:
        refused = place.get("refused")
        if isinstance(refused, Mapping) and refused:
            yield kind, refused
