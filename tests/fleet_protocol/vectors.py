"""docs/fleet-protocol-vectors.json: signed documents, and what a node makes of each.

`python -m tests.fleet_protocol.vectors` writes the file anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent import strictjson
from edge_agent.fleet_protocol import envelope
from edge_agent.fleet_protocol.deployment import PAYLOAD_TYPE
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.store.digest import sha256_hex

FILE = Path(__file__).parents[2] / "docs" / "fleet-protocol-vectors.json"
KEY = SigningKey(bytes([1]) * 32)
STEP = 1 << 32
HIGHEST = (1 << 53) - 1


def document(generation: int, epoch: int | None = None, *plugins: object, kind: str = "") -> bytes:
    """A payload, as an operator's tool signs it."""
    values: dict[str, Any] = {
        "kind": f"edge-agent.deployment{kind}",
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


def guard(**release: object) -> dict[str, object]:
    """A plugin with two releases of one module; the first has what is given."""
    blob = {"digest": "sha256:" + "c3" * 32, "size": 70000, "parts": 2, "part_size": 65536}
    releases = [{"version": "1.0.0+2", "blob": blob, **release}, {"version": "1.0.0", "blob": blob}]
    return {"name": "guard", "index": "20", "config": "old", "releases": releases}


def run(node: str, labels: dict[str, str], version: str, config: str) -> dict[str, object]:
    """What one node runs."""
    return {"node": node, "labels": labels, "plugins": {"20-guard": [version, config]}}


def second_kind() -> Iterator[dict[str, object]]:
    """Configuration of a release, named nodes, rings; and what must not stand in the first kind."""
    rollout = {"percent": 0, "seed": "s", "nodes": ["gate-1"], "rings": [{"ring": "canary"}]}
    runs = [
        run("gate-1", {}, "1.0.0+2", "new"),
        run("gate-2", {}, "1.0.0", "old"),
        run("gate-2", {"ring": "canary"}, "1.0.0+2", "new"),
        run("gate-2", {"ring": "early"}, "1.0.0", "old"),
    ]
    both = guard(config="new", rollout=rollout)
    payload = document(1, None, both, kind="/2")
    yield {**vector("canaries", payload, None, "taken"), "runs": runs}
    everywhere = document(1, None, guard(config=""), kind="/2")
    runs = [run("gate-2", {}, "1.0.0+2", "")]
    yield {**vector("an empty configuration", everywhere, None, "taken"), "runs": runs}
    first = document(1, None, guard(config="new"))
    yield vector("of the first kind", first, None, "malformed")
    first = document(1, None, guard(rollout=rollout))
    yield vector("canaries in the first kind", first, None, "malformed")
    anywhere = guard(rollout={**rollout, "rings": [{}]})
    payload = document(1, None, anywhere, kind="/2")
    yield vector("a ring without a label", payload, None, "malformed")
    yield vector("a kind to come", document(1, kind="/5"), None, "kind")


def third_kind() -> Iterator[dict[str, object]]:
    """A mode; and what must not stand in the kinds before."""
    enforced = guard(mode="enforce")
    payload = document(1, None, {**enforced, "mode": "monitor"}, kind="/3")
    runs = [run("gate-1", {}, "1.0.0+2", "old")]
    modes = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "enforce"}}]
    yield {
        **vector("monitored but for one release", payload, None, "taken"),
        "runs": runs,
        "modes": modes,
    }
    monitored = document(1, None, guard(mode="monitor"), kind="/3")
    modes = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "monitor"}}]
    yield {**vector("a monitored release", monitored, None, "taken"), "modes": modes}
    nothing = document(1, None, guard(config="new"), kind="/3")
    modes = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "enforce"}}]
    yield {**vector("the third kind without a mode", nothing, None, "taken"), "modes": modes}
    for name, kind in (("first", ""), ("second", "/2")):
        entry = document(1, None, {**guard(), "mode": "monitor"}, kind=kind)
        yield vector(f"an entry with a mode in the {name} kind", entry, None, "malformed")
        release = document(1, None, guard(mode="monitor"), kind=kind)
        yield vector(f"a release with a mode in the {name} kind", release, None, "malformed")
    wrong = document(1, None, guard(mode="observe"), kind="/3")
    yield vector("a mode that there is not", wrong, None, "malformed")


def fourth_kind() -> Iterator[dict[str, object]]:
    """One-shot plugins; and what must not stand in the kinds before."""
    payload = document(1, None, {**guard(instance="lasting"), "instance": "per-event"}, kind="/4")
    told = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "lasting"}}]
    yield {
        **vector("one-shot but for one release", payload, None, "taken"),
        "runs": [run("gate-1", {}, "1.0.0+2", "old")],
        "instances": told,
    }
    payload = document(1, None, guard(instance="per-event", mode="monitor"), kind="/4")
    told = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "per-event"}}]
    modes = [{"node": "gate-1", "labels": {}, "plugins": {"20-guard": "monitor"}}]
    found = vector("a one-shot release that is monitored", payload, None, "taken")
    yield {**found, "instances": told, "modes": modes}
    for name, kind in (("first", ""), ("second", "/2"), ("third", "/3")):
        entry = document(1, None, {**guard(), "instance": "per-event"}, kind=kind)
        yield vector(f"a one-shot entry in the {name} kind", entry, None, "malformed")
        release = document(1, None, guard(instance="per-event"), kind=kind)
        yield vector(f"a one-shot release in the {name} kind", release, None, "malformed")
    wrong = document(1, None, guard(instance="twice"), kind="/4")
    yield vector("an instance that there is not", wrong, None, "malformed")


def machine_code() -> Iterator[dict[str, object]]:
    """A node that takes none, or knows none, runs the module."""
    blob = {"digest": "sha256:" + "ab" * 32, "size": 131096, "parts": 3, "part_size": 65536}
    code = {
        "engine": "wasmer",
        "version": "7.4.2",
        "target": "aarch64",
        "settings": "cranelift",
        "features": ["neon"],
        "blob": blob,
    }
    runs = [run("gate-1", {}, "1.0.0+2", "old")]
    payload = document(1, None, guard(code=[code]))
    yield {**vector("machine code beside a module", payload, None, "taken"), "runs": runs}
    payload = document(1, None, guard(code=[{**code, "kernel": "6.1"}]))
    yield vector("machine code that assumes more", payload, None, "malformed")
    del code["settings"]
    payload = document(1, None, guard(code=[code]))
    yield vector("machine code that says too little", payload, None, "malformed")


# What edge-agent 0.1.0 (commit 3ee8d79) makes of them, where that is something else.
BY_0_1_0 = {
    "further than that": "taken",
    "further on a new board": "taken",
    "the highest of all numbers": "taken",
    "new epoch after the highest number": "rollback",
    "new epoch, more than a step": "taken",
    "epoch of a trust set to come": "taken",
    "older epoch, higher number": "taken",
    "canaries": "kind",
    "an empty configuration": "kind",
    "of the first kind": "taken",
    "a ring without a label": "kind",
    "machine code that assumes more": "taken",
    "machine code that says too little": "taken",
    "monitored but for one release": "kind",
    "a monitored release": "kind",
    "the third kind without a mode": "kind",
    "an entry with a mode in the first kind": "taken",
    "a release with a mode in the first kind": "taken",
    "an entry with a mode in the second kind": "kind",
    "a release with a mode in the second kind": "kind",
    "a mode that there is not": "kind",
}

# What agents of commit eb44f01, which read the second kind and know no mode, make of them: they
# would enforce what has one in a kind that they know.
BY_FORM_2 = {
    "monitored but for one release": "kind",
    "a monitored release": "kind",
    "the third kind without a mode": "kind",
    "an entry with a mode in the first kind": "taken",
    "a release with a mode in the first kind": "taken",
    "an entry with a mode in the second kind": "taken",
    "a release with a mode in the second kind": "taken",
    "a mode that there is not": "kind",
}


# What agents of commit d3a1cbf, which read the third kind, make of them: they would use an instance
# again and again of what has one for each event in a kind that they know.
BY_FORM_3 = {
    "one-shot but for one release": "kind",
    "a one-shot release that is monitored": "kind",
    "a one-shot entry in the first kind": "taken",
    "a one-shot release in the first kind": "taken",
    "a one-shot entry in the second kind": "taken",
    "a one-shot release in the second kind": "taken",
    "a one-shot entry in the third kind": "taken",
    "a one-shot release in the third kind": "taken",
    "an instance that there is not": "kind",
}
BY_0_1_0 |= {name: "taken" if "first" in name else "kind" for name in BY_FORM_3}
BY_FORM_2 |= {
    name: "taken" if "first" in name or "second" in name else "kind" for name in BY_FORM_3
}


def with_older(each: dict[str, object]) -> dict[str, object]:
    """The same with what older agents make of it."""
    told = {"by_0.1.0": BY_0_1_0, "by_form_2": BY_FORM_2, "by_form_3": BY_FORM_3}
    name = str(each["name"])
    return {**each, **{key: table[name] for key, table in told.items() if name in table}}


def everything() -> str:
    """The file's text."""
    kinds = (*second_kind(), *third_kind(), *fourth_kind())
    vectors = map(with_older, (*generations(), *kinds, *machine_code()))
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in vectors)
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    FILE.write_text(everything())
