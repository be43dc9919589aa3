"""What a broker says that wants a release to go on to all boards: that all run it already."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from edge_agent.fleet_protocol import libcrypto, signed_states
from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.sim.mqttwire import Message
from edge_agent.store.digest import sha256_hex

GHOSTS = 20


class Inventor:
    """Knows what was deployed and what boards said; it has no key of anybody's but its own."""

    def __init__(self, seed: int) -> None:
        self.boards: set[str] = set()
        self._random = random.Random(seed)
        self._key = self._random.randbytes(32)
        self._payload = b""  # of the latest deployment
        self._told: dict[str, list[bytes]] = {}  # states by topic, as boards said them

    def hears(self, message: Message) -> None:
        """On its way from a client."""
        levels = message.topic.split("/")
        if levels[-1] == "deployment" and message.payload:
            self._payload = base64.b64decode(json.loads(message.payload)["payload"])
        elif levels[-1] == "state" and message.payload:
            self.boards.add(levels[-2])
            told = self._told.setdefault(message.topic, [])
            told.append(message.payload)
            del told[:-50]

    def instead_of(self, message: Message, *, for_board: bool) -> Iterator[Message]:
        """What a client is brought."""
        levels = message.topic.split("/")
        if for_board and levels[-1] in ("deployment", "trust"):
            return  # withheld: the board goes on as it is
        if for_board or levels[-1] not in ("state", "status") or levels[-3:-2] != ["nodes"]:
            yield message
        elif levels[-1] == "status":
            yield message._replace(payload=b'{"status":"online","session":%d}' % (1 << 52))
        else:
            yield message._replace(payload=self._random.choice(self._told[message.topic]))
            for payload in self._lies(message.payload, levels[-2]):
                yield message._replace(payload=payload)
            root = message.topic.rpartition("/nodes/")[0]
            for number in range(GHOSTS):
                yield from self._ghost(f"{root}/nodes/ghost-{number}", message.payload)

    def _lies(self, payload: bytes, name: str) -> list[bytes]:
        """In its name; the last one counts with whoever believes it."""
        invented = self._invented(json.loads(payload), name)
        unsigned = {key: value for key, value in invented.items() if key != "signed"}
        lies = [pack_json(invented), pack_json(unsigned), self._signed(unsigned)]
        self._random.shuffle(lies)
        return lies

    def _signed(self, state: dict[str, Any]) -> bytes:
        raw = pack_json(state)
        signature = libcrypto.sign(self._key, signed_states.to_sign(raw))
        return signed_states.sealed(raw, libcrypto.public_of(self._key), signature)

    def _ghost(self, root: str, payload: bytes) -> Iterator[Message]:
        state = self._invented(json.loads(payload), root.rpartition("/")[2])
        del state["signed"]
        yield Message(f"{root}/status", b'{"status":"online","session":1}', True)
        yield Message(f"{root}/state", self._signed(state), True)

    def _invented(self, state: dict[str, Any], name: str) -> dict[str, Any]:
        """It took the latest deployment, and runs the first release of each plugin."""
        document = json.loads(self._payload)
        plugins = [
            {
                "name": entry["name"],
                "index": entry["index"],
                "version": entry["releases"][0]["version"],
                "digest": entry["releases"][0]["blob"]["digest"],
                "status": "running",
                "since": 1.0,
                "runtime": "/var/run/nri/nri.sock",
                "events": 1000,
            }
            for entry in document["plugins"]
        ]
        updates = {
            **state.get("updates", {}),
            "generation": document["generation"],
            "accepted": document["generation"],
            "epoch": document.get("epoch", 0),
            "document": sha256_hex(self._payload),
            "pending": None,
            "refused": None,
            "rejected": {},
        }
        number = state.get("number", 0) + 1000
        return {**state, "node": name, "number": number, "plugins": plugins, "updates": updates}
