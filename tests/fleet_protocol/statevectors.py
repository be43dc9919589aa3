"""docs/fleet-states-vectors.json: signed states, and what an operator's tool makes of each.

`python -m tests.fleet_protocol.statevectors` writes the file anew. The node is `board-7` of the
fleet `greenhouse`, its key that of 32 bytes of 1; another key is 32 bytes of 2.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent.fleet_protocol import libcrypto
from edge_agent.fleet_protocol.signed_states import PAYLOAD_TYPE

FILE = Path(__file__).parents[2] / "docs" / "fleet-states-vectors.json"
SEED, OTHER = bytes([1]) * 32, bytes([2]) * 32
STATE: dict[str, Any] = {
    "session": 7,
    "fleet": "greenhouse",
    "number": 3,
    "time": 1795456800,
    "agent": "0.2.0",
    "node": "board-7",
    "labels": {"place": "h\u00e4user"},
    "plugins": [],
}


def pae(payload: bytes) -> bytes:
    """DSSE's, written out."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def text(state: dict[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":")).encode()


def signed(state: dict[str, Any], seed: bytes = SEED, **member: str) -> str:
    """As the page describes it, without the code of the agent's that makes messages."""
    body = text(state)
    told = {
        "key": base64.b64encode(libcrypto.public_of(seed)).decode(),
        "sig": base64.b64encode(libcrypto.sign(seed, pae(body))).decode(),
    }
    last = json.dumps({"signed": {**member, **told}}, separators=(",", ":"))
    return body.decode()[:-1] + "," + last[1:]


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in STATE.items() if name not in names}


def vectors() -> Iterator[tuple[str, str, str]]:
    """Name, message, result."""
    good = signed(STATE)
    yield "good", good, "signed"
    yield "a clock that stands in 1970", signed({**STATE, "time": 5}), "signed"
    yield (
        "a state of an agent of before",
        text(without("fleet", "number", "time")).decode(),
        ("unsigned"),
    )
    yield "another key", signed(STATE, OTHER), "key"
    key = base64.b64encode(libcrypto.public_of(SEED)).decode()
    other = base64.b64encode(libcrypto.public_of(OTHER)).decode()
    yield (
        "another key that calls itself this one",
        signed(STATE, OTHER).replace(other, key),
        ("signature"),
    )
    yield "one byte changed", good.replace('"agent":"0.2.0"', '"agent":"0.2.1"'), "signature"
    yield "another node", signed({**STATE, "node": "board-8"}), "node"
    yield "another fleet", signed({**STATE, "fleet": "shed"}), "fleet"
    yield "no fleet", signed(without("fleet")), "fleet"
    yield "no number", signed(without("number")), "form"
    yield "a number that is a text", signed({**STATE, "number": "3"}), "form"
    yield "a signature cut short", good[:-6] + '"}}', "form"
    sig = good.rpartition('"sig":"')[2].removesuffix('"}}')
    short = base64.b64encode(base64.b64decode(sig)[:63]).decode()
    yield "a signature of 63 bytes", good.replace(sig, short), "signature"
    yield "an empty signature", good.replace(sig, ""), "form"
    yield "an algorithm to come", signed(STATE, algorithm="ml-dsa-65"), "algorithm"
    yield "its algorithm named", signed(STATE, algorithm="ed25519"), "signed"
    yield "written anew with spaces", json.dumps(json.loads(good)), "unsigned"
    yield "with a member behind", good[:-1] + ',"plugins":[{}]}', "form"
    yield "with a space behind", good + " ", "form"
    yield "signed twice", good[:-1] + signed(STATE)[len(text(STATE)) - 1 :], "signature"


def everything() -> str:
    """The file's text."""
    rows = [
        {"name": name, "result": result, "message": message} for name, message, result in vectors()
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    FILE.write_text(everything())
