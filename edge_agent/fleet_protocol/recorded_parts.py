"""A recording of events on its way from a node to who asked for it. Pure.

It is too large for one message, so each part is an answer of its own, and the last answer says
what all parts together are (docs/fleet-protocol.md, "A recording"):

    {"id": "8f1c", "verb": "record", "state": "running", "result": {"part": 0, "data": "<base64>"}}
    {"id": "8f1c", "verb": "record", "state": "succeeded",
     "result": {"fleet": "greenhouse", "node": "board-7", "parts": 3, "size": 130211,
                "digest": "sha256:..."}, "signed": {"key": "...", "sig": "..."}}

The last answer is signed as the node's state is, under another type; the id, which the asker made
up, keeps an old answer from passing for a new one.
"""

import binascii
from collections.abc import Mapping
from typing import Any

from edge_agent.fleet_protocol import signed_states
from edge_agent.fleet_protocol.keys import PublicKey
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.store.digest import Digest

PAYLOAD_TYPE = "application/vnd.edge-agent.recording+json"
# In base64 64,000 of the 65,536 that a message has; the rest is for the answer around it.
PART_BYTES = 48_000
MAX_PARTS = 16  # ours: what a board and a broker can spare for one request
MAX_BYTES = PART_BYTES * MAX_PARTS


def part(number: int, data: bytes) -> dict[str, object]:
    """The result of the answer with part `number`, from 0."""
    return {"part": number, "data": binascii.b2a_base64(data, newline=False).decode()}


def whole(fleet: str, node: str, parts: int, size: int, digest: Digest) -> dict[str, object]:
    """The result of the last answer; `digest` is that of all `size` bytes."""
    return {"fleet": fleet, "node": node, "parts": parts, "size": size, "digest": digest}


class Gathered:
    """The parts of one recording as they come. ValueError: a node that breaks the rules.

    A part may come twice (QoS 1). Never holds more than MAX_BYTES.
    """

    def __init__(self) -> None:
        self._parts: dict[int, bytes] = {}
        self._whole: tuple[int, int, str] | None = None  # parts, size, digest

    def take(self, result: Mapping[str, Any]) -> None:
        """A part."""
        number, data = result.get("part"), result.get("data")
        if type(number) is not int or not 0 <= number < MAX_PARTS or not isinstance(data, str):
            raise ValueError("a part of the recording is none")
        raw = binascii.a2b_base64(data, strict_mode=True)
        if len(raw) > PART_BYTES:
            raise ValueError("a part of the recording is too large")
        if self._parts.setdefault(number, raw) != raw:
            raise ValueError(f"part {number} of the recording came twice, with other bytes")

    def end(self, result: object) -> None:
        """The last answer's result."""
        told = result if isinstance(result, Mapping) else {}
        parts, size, digest = told.get("parts"), told.get("size"), told.get("digest")
        if (
            type(parts) is not int
            or not 1 <= parts <= MAX_PARTS
            or type(size) is not int
            or not isinstance(digest, str)
        ):
            raise ValueError("the last answer does not say what the recording is")
        self._whole = parts, size, digest

    @property
    def missing(self) -> list[int]:
        """The parts that did not come, once the last answer has."""
        return sorted({*range(self._whole[0] if self._whole else 0)} - self._parts.keys())

    def joined(self) -> bytes:
        """The recording, once the last answer has come."""
        assert self._whole is not None
        parts, size, digest = self._whole
        if self.missing:
            raise ValueError(f"parts {self.missing} of the recording did not come; ask again")
        data = b"".join(self._parts[number] for number in range(parts))
        if len(data) != size or Digest.of(data) != digest:
            raise ValueError("the parts are not those of the recording that the last answer names")
        return data


def check(message: bytes, values: Mapping[str, Any], key: PublicKey, fleet: str, node: str) -> None:
    """UnprovenError unless the owner of `key` signed this last answer for this fleet and node.

    `values` are the message's; who asks has compared their id with that of the request.
    """
    signed_states.read(message).check(key, PAYLOAD_TYPE)
    result = values.get("result")
    told = result if isinstance(result, Mapping) else {}
    for name, wanted in (("fleet", fleet), ("node", node)):
        if told.get(name) != wanted:
            raise UnprovenError(name, f"it is signed for another {name} than {wanted}")
