"""docs/fleet-protocol-vectors.json: signed documents, and what a node makes of each.

`python -m tests.fleet.vectors` writes the file anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent import strictjson
from edge_agent.fleet import envelope
from edge_agent.fleet.deployment import PAYLOAD_TYPE
from edge_agent.fleet.keys import SigningKey
from edge_agent.store.digest import sha256_hex

FILE = Path(__file__).parents[2] / "docs" / "fleet-protocol-vectors.json"
KEY = SigningKey(bytes([1]) * 32)
STEP = 1 << 32
HIGHEST = (1 << 53) - 1


def document(generation: int, epoch: int | None = None, *plugins: object) -> bytes:
    """A payload, as an operator's tool signs it."""
    values: dict[str, Any] = {
        "kind": "edge-agent.deployment",
        "fleet": "greenhouse",
        "generation": generation,
        "issued": "2026-11-23T18:00:00Z",
        "expires": "2027-11-23T18:00:00Z",
        "plugins": list(plugins),
    }
    return strictjson.dumps(values if epoch is None else {**values, "epoch": epoch})


def known(generation: int, epoch: int = 0, payload: bytes = b"another") -> dict[str, object]:
    """What a node remembers."""
    return {"epoch": epoch, "generation": generation, "payload_sha256": sha256_hex(payload)}


def vector(
    name: str, payload: bytes, before: object, result: str, trust_version: int = 1
) -> dict[str, object]:
    """One of the file."""
    sealed = json.loads(envelope.seal(PAYLOAD_TYPE, payload, [KEY]))
    head = {"name": name, "trust_version": trust_version, "known": before, "result": result}
    return {**head, "envelope": sealed}


def generations() -> Iterator[dict[str, object]]:
    """Which document may follow which."""
    yield vector("first on a new board", document(42), None, "taken")
    yield vector("next", document(43), known(42), "taken")
    yield vector("the same again", document(42), known(42, 0, document(42)), "known")
    yield vector("older", document(41), known(42), "rollback")
    yield vector("another of the same number", document(42), known(42), "conflict")
    yield vector("as far as a step may go", document(42 + STEP), known(42), "taken")
    yield vector("further than that", document(43 + STEP), known(42), "jump")
    yield vector("as far on a new board", document(STEP), None, "taken")
    yield vector("further on a new board", document(STEP + 1), None, "jump")
    yield vector("the highest of all numbers", document(HIGHEST), known(42), "jump")
    yield vector("new epoch, counted on", document(43, 2), known(42), "taken", 2)
    yield vector("new epoch after the highest number", document(1, 2), known(HIGHEST), "taken", 2)
    yield vector("new epoch, more than a step", document(STEP + 1, 2), known(42), "jump", 2)
    yield vector("epoch of a trust set to come", document(43, 3), known(42), "gap", 2)
    yield vector("epoch of an older trust set", document(43, 2), known(42), "taken", 5)
    yield vector("older epoch, higher number", document(HIGHEST), known(1, 2), "rollback", 2)
    yield vector("next of an epoch", document(2, 2), known(1, 2), "taken", 2)


def everything() -> str:
    """The file's text."""
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in generations())
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    FILE.write_text(everything())
