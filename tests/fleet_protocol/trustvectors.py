"""docs/fleet-trust-vectors.json: sets of trusted keys that expire or have several algorithms.

`python -m tests.fleet_protocol.trustvectors` writes the file anew.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent import strictjson
from edge_agent.fleet_protocol import deployment, envelope, keys, trust
from edge_agent.fleet_protocol.keys import Signer, SigningKey
from tests.fleet_protocol.p256 import P256Key
from tests.fleet_protocol.vectors import document

FILE = Path(__file__).parents[2] / "docs" / "fleet-trust-vectors.json"
TIME = "2026-11-23T18:00:00Z"
ONE, TWO = (SigningKey(bytes([number]) * 32) for number in (1, 2))
OTHER = P256Key(1 << 200)


class ToCome:
    """A key of an algorithm that nobody knows yet."""

    def __init__(self, number: int) -> None:
        self._key = SigningKey(bytes([number]) * 32)
        self.public = keys.parse_named("to-come", keys.public_pem(self._key.public))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


LATER = ToCome(9)


def trust_set(version: int, threshold: int, *of: Signer, **more: object) -> dict[str, Any]:
    """The document."""
    made = trust.TrustSet("greenhouse", version, threshold, tuple(key.public for key in of))
    return {**json.loads(trust.to_payload(made)), **more}


def link(value: dict[str, Any], *signers: Signer) -> dict[str, Any]:
    """It in its envelope."""
    raw = envelope.seal(trust.PAYLOAD_TYPE, strictjson.dumps(value), signers)
    return dict(json.loads(raw))


def signed(*signers: Signer) -> dict[str, Any]:
    """A deployment, always the same one."""
    return dict(json.loads(envelope.seal(deployment.PAYLOAD_TYPE, document(1), signers)))


def vector(
    name: str,
    before: dict[str, Any],
    chain: Sequence[dict[str, Any]],
    result: int | str,
    deployed: dict[str, Any],
    deployment_result: str,
) -> dict[str, Any]:
    """One of the file."""
    head = {"name": name, "before": before, "result": result}
    told = {"deployment_result": deployment_result, "deployment": deployed}
    return {**head, **told, "chain": list(chain)}


WHILE = {"issued": "2026-01-01T00:00:00Z", "expires": "2028-01-01T00:00:00Z"}
OVER = {"issued": "2025-01-01T00:00:00Z", "expires": "2026-11-23T18:00:00Z"}


def expiring() -> Iterator[dict[str, Any]]:
    """Sets that expire."""
    first, over = trust_set(1, 1, ONE), trust_set(1, 1, ONE, **OVER)
    again = link(trust_set(2, 1, ONE, **WHILE), ONE)
    yield vector("no end", first, [], 1, signed(ONE), "taken")
    yield vector("a while left", trust_set(1, 1, ONE, **WHILE), [], 1, signed(ONE), "taken")
    yield vector("over", over, [], 1, signed(ONE), "trust-expired")
    yield vector("over, and renewed by itself", over, [again], 2, signed(ONE), "taken")
    handed = [link(trust_set(2, 1, TWO, **WHILE), ONE, TWO)]
    yield vector("over, and handed on", over, handed, 2, signed(TWO), "taken")
    foreign = [link(trust_set(2, 1, TWO, **WHILE), TWO)]
    yield vector("over, and nobody's", over, foreign, "signature", signed(TWO), "signature")
    chain = [link(trust_set(2, 1, ONE, **OVER), ONE), link(trust_set(3, 1, ONE, **WHILE), ONE)]
    yield vector("one on the way is over", first, chain, 3, signed(ONE), "taken")
    yield vector("the last is over", first, chain[:1], 2, signed(ONE), "trust-expired")
    said = [link(trust_set(1, 1, ONE, **OVER), ONE)]
    yield vector("said of the node's files", first, said, 1, signed(ONE), "trust-expired")
    longer = [link(trust_set(1, 1, ONE, **WHILE), ONE)]
    yield vector("said otherwise", over, longer, "conflict", signed(ONE), "trust-expired")
    half = {"expires": WHILE["expires"]}
    alone = [link(trust_set(2, 1, ONE, **half), ONE)]
    yield vector("an end without a beginning", first, alone, "malformed", signed(ONE), "taken")
    turned = {"issued": WHILE["expires"], "expires": WHILE["issued"]}
    yield vector(
        *("the end before the beginning", first, [link(trust_set(2, 1, ONE, **turned), ONE)]),
        *("malformed", signed(ONE), "taken"),
    )


def algorithms() -> Iterator[dict[str, Any]]:
    """Keys of another algorithm, and one that nobody knows."""
    first, both = trust_set(1, 1, ONE), trust_set(2, 1, ONE, OTHER)
    chain = [link(both, ONE), link(trust_set(3, 1, OTHER), OTHER)]
    yield vector("another algorithm beside", first, chain[:1], 2, signed(OTHER), "taken")
    yield vector("another algorithm instead", first, chain, 3, signed(OTHER), "taken")
    yield vector("the old one afterwards", first, chain, 3, signed(ONE), "signature")
    two = trust_set(2, 2, ONE, OTHER)
    yield vector("one of each must sign", two, [], 2, signed(ONE, OTHER), "taken")
    yield vector("one of each, and one did", two, [], 2, signed(OTHER), "signature")
    for name, algorithm in (("no", None), ("another", "ed25519")):
        changed = signed(OTHER)
        changed["signatures"][0] |= {"algorithm": algorithm}
        if algorithm is None:
            del changed["signatures"][0]["algorithm"]
        yield vector(f"a signature of {name} algorithm", both, [], 2, changed, "signature")
    plain = {**both, "keys": [keys.public_pem(OTHER.public)]}
    yield vector(
        "a key without its algorithm", first, [link(plain, ONE)], "malformed", signed(ONE), "taken"
    )
    beside = trust_set(2, 1, ONE, LATER)
    yield vector("one to come beside", first, [link(beside, ONE)], 2, signed(ONE), "taken")
    yield vector("one to come signs too", beside, [], 2, signed(LATER, ONE), "taken")
    yield vector("one to come signs alone", beside, [], 2, signed(LATER), "algorithm")
    instead = [link(trust_set(2, 1, LATER), ONE, LATER)]
    yield vector("one to come instead", first, instead, "algorithm", signed(ONE), "taken")
    needed = [link(trust_set(2, 2, ONE, LATER), ONE, LATER)]
    yield vector("one to come is needed", first, needed, "algorithm", signed(ONE), "taken")


# What edge-agent 0.1.0 (commit 3e1b8fc) makes of chain and deployment, where that is something
# else. A word alone: it refuses `before` already.
BY_0_1_0: dict[str, list[int | str] | str] = {
    "over": [1, "taken"],
    "the last is over": [2, "taken"],
    "said of the node's files": [1, "taken"],
    "said otherwise": [1, "taken"],
    "an end without a beginning": [2, "taken"],
    "the end before the beginning": [2, "taken"],
    "another algorithm beside": ["malformed", "signature"],
    "another algorithm instead": ["signature", "signature"],
    "the old one afterwards": ["signature", "taken"],
    "one of each must sign": "malformed",
    "one of each, and one did": "malformed",
    "a signature of no algorithm": "malformed",
    "a signature of another algorithm": "malformed",
    "one to come beside": ["malformed", "taken"],
    "one to come signs too": "malformed",
    "one to come signs alone": "malformed",
    "one to come instead": ["malformed", "taken"],
    "one to come is needed": ["malformed", "taken"],
}


def everything() -> str:
    """The file's text."""
    found = []
    for each in (*expiring(), *algorithms()):
        older = BY_0_1_0.get(each["name"])
        found.append(each if older is None else {**each, "by_0.1.0": older})
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in found)
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    FILE.write_text(everything())
