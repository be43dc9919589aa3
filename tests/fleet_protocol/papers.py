"""Documents of a fleet, good and bad, for tests."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent import strictjson
from edge_agent.fleet_protocol import deployment, envelope
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.digest import Digest

FLEET = "greenhouse"
# Fixed, so that a failing test fails again.
KEYS = tuple(SigningKey(bytes([number]) * 32) for number in range(1, 6))
DIGEST = Digest.of_hex("5a" * 32)
OTHER_DIGEST = Digest.of_hex("c3" * 32)

PLUGIN: dict[str, Any] = {
    "name": "device-injector",
    "index": "10",
    "select": {"labels": {"board": "rpi4"}},
    "config": "devices:\n- /dev/gpiochip0\n",
    "failure_policy": "Ignore",
    "permissions": ["env", "linux.devices"],
    "limits": {"memory": "16MiB", "deadline": "500ms"},
    "releases": [
        {
            "version": "1.3.0",
            "rollout": {"percent": 10, "seed": "2026-11-23"},
            "blob": {
                "digest": DIGEST,
                "size": 18231,
                "encoding": "zlib",
                "parts": 1,
                "part_size": 65536,
            },
            "sources": ["mqtt", "https://example.org/p.wasm", "oci://example.org/edge/p:1.3.0"],
        },
        {
            "version": "1.2.4",
            "blob": {"digest": OTHER_DIGEST, "size": 70000, "parts": 2, "part_size": 65536},
        },
    ],
}
DEPLOYMENT: dict[str, Any] = {
    "kind": "edge-agent.deployment",
    "fleet": FLEET,
    "generation": 42,
    "issued": "2026-11-24T18:00:00Z",
    "expires": "2026-12-23T18:00:00Z",
    "plugins": [PLUGIN],
}


def trust(number: int = 1, threshold: int = 1, version: int = 1) -> TrustSet:
    """The first `number` of KEYS."""
    return TrustSet(FLEET, version, threshold, tuple(key.public for key in KEYS[:number]))


def changed(path: str, value: object, base: Mapping[str, Any] = DEPLOYMENT) -> dict[str, Any]:
    """A copy with the field at `path` ("plugins.0.name") set; `...` removes it."""
    values = copy.deepcopy(dict(base))
    at: Any = values
    *outer, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for part in outer:
        at = at[part]
    if value is ...:
        del at[last]
    elif isinstance(at, list) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return values


def sealed(
    values: Mapping[str, Any] | bytes = DEPLOYMENT, signers: Sequence[SigningKey] = KEYS[:1]
) -> bytes:
    """The envelope around a deployment, or around any bytes."""
    payload = values if isinstance(values, bytes) else strictjson.dumps(values)
    return envelope.seal(deployment.PAYLOAD_TYPE, payload, signers)
