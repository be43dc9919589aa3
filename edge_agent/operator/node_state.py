"""One node of a fleet, as its status and state describe it. Pure.

A value in a state that has the wrong type is left out.
"""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from edge_agent.config.model import MONITOR
from edge_agent.config.units import Validity
from edge_agent.errors import KeyFormatError
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.keys import public_key
from edge_agent.fleet_protocol.reported_state import refusals
from edge_agent.fleet_protocol.topics import CUT_DIGEST_CHARS
from edge_agent.store.digest import sha256_hex

LAST_TIME = 253_402_300_799  # the year 9999
BAD_STATUSES = frozenset(("failed", "quarantined"))


class Running(NamedTuple):
    """One plugin at one runtime of a node, from its state."""

    identity: str  # NN-name
    version: str
    digest: str  # of the release that is to run
    running: str  # of the one that does
    status: str
    error: str
    events: int
    runtime: str  # its socket
    mode: str = ""  # "monitor": nothing that it answers is done
    would_adjust: int = 0  # answers; these two only in monitor mode
    would_reject: int = 0

    @property
    def monitored(self) -> str:
        """What a monitored plugin would have done, in words; "" for others."""
        if self.mode != MONITOR:
            return ""
        return f"monitored: would adjust {self.would_adjust}, reject {self.would_reject}"


class Refusal(NamedTuple):
    """Why a node refuses a document: a word (docs/fleet-protocol.md), and a text."""

    reason: str
    text: str
    generation: int  # of the deployment, where trusted keys signed it; else 0
    since: int  # Unix time, s; 0: not said (agents before 0.2)
    message: str = ""  # which message it was (fleet_protocol/deployment.message_name); "": not said

    def __str__(self) -> str:
        return f"({self.reason}{_since(self.since)}): {self.text}"


class Fetching(NamedTuple):
    """One module that a node fetches: `progress` from 0 to 1, and its last problem."""

    digest: str
    progress: float
    trouble: str


@dataclass
class Node:
    """One node; everything but the name may be empty."""

    name: str
    status: str = ""  # `online`, `offline`, `lost`
    session: int = 0
    state: Mapping[str, object] = field(default_factory=dict)
    unreadable: str = ""  # why its latest status or state cannot be read; the one before stands
    enrolled: bool = False
    unproven: str = ""  # of an enrolled node: why its state is not proven

    @property
    def proven(self) -> bool:
        """Whether its state is signed by the key that the fleet's folder has for it."""
        return self.enrolled and bool(self.state) and not self.unproven

    @property
    def key_id(self) -> str:
        """The id of the key in its state, without proof; "": none."""
        try:
            raw = binascii.a2b_base64(text(self._map("signed").get("key")), strict_mode=True)
            return public_key(raw).keyid
        except (ValueError, KeyFormatError):
            return ""

    def follows(self, deployment: Deployment) -> bool:
        """Whether the node reports that it accepted and runs exactly this deployment."""
        return (
            (self.epoch, self.accepted) == deployment.order
            and self.generation == deployment.generation
            and self.at_rest
            and self.updates.get("document") == sha256_hex(deployment.payload)
        )

    @property
    def online(self) -> bool:
        return self.status == "online"

    @property
    def labels(self) -> dict[str, str]:
        labels = self._map("labels")
        return {key: value for key, value in labels.items() if isinstance(value, str)}

    @property
    def agent(self) -> str:
        return text(self.state.get("agent"))

    @property
    def architecture(self) -> str:
        """In the form of `uname -m`."""
        return text(self.state.get("architecture"))

    @property
    def engine(self) -> tuple[str, str, str]:
        """Name, version and settings; these only from agents since 0.2."""
        engine = self._map("engine")
        return tuple(text(engine.get(key)) for key in ("name", "version", "settings"))  # type: ignore[return-value]

    @property
    def takes_code(self) -> bool:
        """Whether it accepts machine code of a deployment."""
        return self.updates.get("compiled") == "accept"

    @property
    def without_code(self) -> dict[str, str]:
        """Plugins that the node compiled although there is machine code, and why."""
        told = self.updates.get("code")
        items = told.items() if isinstance(told, Mapping) else ()
        return {str(name)[:100]: text(reason) for name, reason in items if reason}

    @property
    def plugins(self) -> list[Running]:
        return [_running(each) for each in maps(self.state.get("plugins"))]

    @property
    def updates(self) -> Mapping[str, object]:
        return self._map("updates")

    @property
    def generation(self) -> int:
        """Of the deployment that this node runs; 0: none."""
        return count(self.updates.get("generation"))

    @property
    def accepted(self) -> int:
        """The highest generation that this node accepted in `epoch`; 0: none."""
        told = self.updates.get("accepted")
        return self.generation if told is None else count(told)

    @property
    def at_rest(self) -> bool:
        """Whether it fetches nothing for a deployment that it accepted."""
        return self.updates.get("pending") is None

    @property
    def epoch(self) -> int:
        """That `accepted` is counted in; 0 for nodes that know no epochs."""
        return count(self.updates.get("epoch"))

    @property
    def form(self) -> int:
        """The highest form of a deployment that this node reads."""
        return max(1, count(self.updates.get("form")))

    @property
    def refused(self) -> dict[str, Refusal]:
        """The documents that it refuses at present: `deployment`, `trust`."""
        return {
            kind: Refusal(
                text(told.get("reason")),
                text(told.get("text")),
                count(told.get("generation")),
                count(told.get("since")),
                text(told.get("message")),
            )
            for kind, told in refusals(self.updates)
        }

    @property
    def expires(self) -> int:
        """When the deployment that it runs ends, in seconds of Unix time; 0: not said."""
        return count(self.updates.get("expires"))

    @property
    def expired(self) -> bool:
        """Whether the deployment that it runs has expired, by its own clock."""
        return self.updates.get("expired") is True

    @property
    def rejected(self) -> dict[str, str]:
        """Digests and setups that this node will not run again, each with the reason."""
        rejected = self.updates.get("rejected"), self.updates.get("quarantined")
        return {
            digest: text(reason) or "no reason said"
            for each in rejected
            for digest, reason in (each.items() if isinstance(each, Mapping) else ())
        }

    @property
    def fetching(self) -> list[Fetching]:
        """The modules that this node fetches."""
        return [
            Fetching(
                text(each.get("digest")), _share(each.get("progress")), text(each.get("trouble"))
            )
            for each in maps(self.updates.get("fetching"))
        ]

    @property
    def trust_version(self) -> int:
        """The version of the key set that this node trusts; 0: not reported."""
        trust = self.updates.get("trust")
        return count(trust.get("version")) if isinstance(trust, Mapping) else 0

    @property
    def trust_expired(self) -> bool:
        """Whether the set of keys that it believes has expired, by its own clock."""
        trust = self.updates.get("trust")
        return isinstance(trust, Mapping) and trust.get("expired") is True

    @property
    def certificate(self) -> Validity | None:
        """The validity of its certificate for the broker; None: none, or not reported."""
        told = self._map("certificate")
        issued, expires = count(told.get("issued")), count(told.get("expires"))
        return Validity(issued, expires) if 0 < expires <= LAST_TIME else None

    def runs(self, digest: str, version: str = "") -> bool:
        """Whether this release runs at every runtime that it is for, and passed its probation.

        `version` tells releases of one module apart, which differ in their configuration.
        """
        found = [
            each
            for each in self.plugins
            if each.status != "skipped"
            and (
                (same(digest, each.digest) and version in ("", each.version))
                or (same(digest, each.running) and not same(digest, each.digest))
            )
        ]
        return bool(found) and all(
            each.status == "running" and same(digest, each.running) for each in found
        )

    def waits_for_a_runtime(self, digest: str) -> bool:
        """Whether this release is here, and none of its container runtimes is connected."""
        found = [each.status for each in self.plugins if same(digest, each.digest)]
        return bool(found) and set(found) <= {"waiting", "skipped"}

    def progress_of(self, digest: str) -> str:
        """The progress of a release that does not run here yet, in a word."""
        for fetching in self.fetching:
            if fetching.digest == digest:
                return "fetching"
        for each in self.plugins:
            if same(digest, each.digest):
                return each.status
        return "to come"

    def failure(self, digest: str, setup: str = "") -> str | None:
        """Why this release failed here; None: it has not.

        `setup` names it with its configuration (`Release.setup`).
        """
        for key in (digest, setup):
            if key in self.rejected:
                return self.rejected[key]
        for each in self.plugins:
            if same(digest, each.digest) and each.status in BAD_STATUSES:
                return each.error or each.status
        return None

    def _map(self, key: str) -> Mapping[str, object]:
        value = self.state.get(key)
        return value if isinstance(value, Mapping) else {}


def _since(seconds: int) -> str:
    """For people; "" for a time that is none."""
    try:
        when = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return f" since {when:%Y-%m-%d %H:%M} UTC" if seconds else ""


def same(digest: str, told: str) -> bool:
    """Whether a node reports this digest, which a large state cuts (docs/mqtt.md)."""
    return len(told) >= CUT_DIGEST_CHARS and digest.startswith(told)


def _running(entry: Mapping[str, object]) -> Running:
    name, index = text(entry.get("name")), text(entry.get("index"))
    digest = text(entry.get("digest"))
    return Running(
        identity=f"{index}-{name}" if index else name,
        version=text(entry.get("version")),
        digest=digest,
        running=text(entry.get("running")) or digest,
        status=text(entry.get("status")),
        error=text(entry.get("error")),
        events=count(entry.get("events")),
        runtime=text(entry.get("runtime")),
        mode=text(entry.get("mode")),
        would_adjust=count(entry.get("would_adjust")),
        would_reject=count(entry.get("would_reject")),
    )


def maps(value: object) -> list[Mapping[str, object]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def text(value: object) -> str:
    return value[:2000] if isinstance(value, str) else ""


def count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _share(value: object) -> float:
    return min(1.0, max(0.0, value)) if isinstance(value, int | float) else 0.0
