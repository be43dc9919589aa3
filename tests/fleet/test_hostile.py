"""Any bytes at all: refused with a reason, or a deployment; never another exception, never slow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import strictjson
from edge_agent.errors import RefusedError
from edge_agent.fleet_protocol import deployment, envelope, topics, trust
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.store.catalogue import NOTHING_KNOWN
from tests.fleet_protocol.papers import DEPLOYMENT, FLEET, KEYS, changed, sealed
from tests.fleet_protocol.papers import trust as trusted

REASONS = {
    *("oversized", "envelope", "signature", "kind", "fleet", "rollback", "gap", "conflict"),
    *("expired", "malformed", "jump", "algorithm", "trust-expired"),
}

SECOND = changed("kind", deployment.KIND_2)
SECOND["plugins"][0]["releases"][0] |= {
    "config": "x",
    "limits": {"memory": "1MiB"},
    "rollout": {"percent": 1, "seed": "s", "nodes": ["node"], "rings": [{"board": "rpi4"}]},
}

# Everything JSON can say, with the names that mean something here among them.
WORDS = sorted(
    {
        *("kind", "fleet", "generation", "issued", "expires", "plugins", "name", "index", "select"),
        *("labels", "config", "failure_policy", "permissions", "limits", "report", "releases"),
        *("version", "rollout", "percent", "seed", "blob", "digest", "size", "encoding", "parts"),
        *("part_size", "sources", "payload", "payloadType", "signatures", "keyid", "sig", "memory"),
        *("threshold", "keys", "deadline", "epoch", "nodes", "rings"),
    }
)
NAMES = st.sampled_from(WORDS) | st.text(max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["mqtt", FLEET, "10", "2026-11-24T18:00:00Z", "Fail", "16MiB", "zlib"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


def judge(raw: bytes) -> Deployment | None:
    refused: RefusedError | None = None
    found: Deployment | None = None
    try:
        found = deployment.accept(
            raw, fleet=FLEET, trust=trusted(2), known=NOTHING_KNOWN, clock=1.8e9 - 2e6
        )
    except RefusedError as error:
        refused = error
    if refused is not None:
        assert refused.reason in REASONS
        assert len(str(refused)) < 50_000
        str(refused).encode()  # can be reported
        return None
    assert isinstance(found, Deployment)
    for labels in ({}, {"board": "rpi4"}):
        deployment.wanted(found, "node", labels)
    return found


def loosely(value: object) -> bytes:
    """JSON as Python writes it: with NaN, lone surrogates and huge numbers."""
    return json.dumps(value).encode()


@given(st.binary(max_size=400))
def test_bytes(raw: bytes) -> None:
    judge(raw)
    refused_as_trust(raw)


@given(VALUES)
def test_values_as_an_envelope(value: object) -> None:
    judge(loosely(value))
    refused_as_trust(loosely(value))


@given(VALUES)
def test_values_as_a_signed_document(value: object) -> None:
    judge(sealed(loosely(value)))


@given(st.data(), st.sampled_from([DEPLOYMENT, SECOND]))
@settings(max_examples=600)
def test_a_good_document_with_one_value_replaced(data: st.DataObject, good: dict[str, Any]) -> None:
    values = json.loads(json.dumps(good))
    at: Any = values
    while True:
        key: Any = data.draw(
            st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at)))
        )
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(VALUES)
    judge(sealed(loosely(values)))


@given(st.data())
@settings(max_examples=300)
def test_a_good_message_with_a_byte_changed_is_never_another_document(data: st.DataObject) -> None:
    raw = bytearray(sealed())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = judge(bytes(raw))
    # Only what is not signed may differ: spaces, a field that nobody reads.
    assert found is None or found == judge(sealed())


@given(st.integers(0, len(sealed())))
def test_a_good_message_that_is_cut_is_refused(length: int) -> None:
    if length < len(sealed()):
        assert judge(sealed()[:length]) is None


def refused_as_trust(raw: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        trust.rotated(raw, trusted())
    assert caught.value.reason in REASONS


@given(VALUES)
def test_values_as_a_signed_trust_set(value: object) -> None:
    raw = envelope.seal(trust.PAYLOAD_TYPE, loosely(value), KEYS[:2])
    refused_as_trust(raw)
    refused_as_trust(trust.chain([raw, raw]))


# What makes careless parsers slow. Each is as large as a message may be; a quadratic parser needs
# minutes for one of them, and the whole test run would show it.
SIZE = topics.MAX_MESSAGE_BYTES
SLOW: dict[str, bytes] = {
    "brackets": b"[" * SIZE,
    "brackets closed": b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
    "objects": (b'{"":' * (SIZE // 4)),
    "quotes": b'"' * SIZE,
    "escaped quotes": b'"' + b'\\"' * (SIZE // 2 - 1),
    "backslashes": b'"' + b"\\" * (SIZE - 1),
    "digits": b"9" * SIZE,
    "digits of a fraction": b"0." + b"9" * (SIZE - 2),
    "an exponent": b"1e" + b"9" * (SIZE - 2),
    "many numbers": b"[" + b"1," * (SIZE // 2 - 2) + b"1]",
    "many names": b"{" + b",".join(b'"%04d":1' % n for n in range(SIZE // 9 - 1)) + b"}",
    "many names, the last twice": b"{"
    + b",".join(b'"%04d":1' % (n % 7000) for n in range(7001))
    + b"}",
    "one name many times": b"{" + b",".join([b'"a":1'] * (SIZE // 6 - 1)) + b"}",
    "spaces": b" " * SIZE,
    "many signatures": b'{"payloadType":"x","payload":"","signatures":['
    + b",".join([b"{}"] * (SIZE // 3 - 30))
    + b"]}",
}


@pytest.mark.parametrize("raw", SLOW.values(), ids=SLOW.keys())
def test_what_makes_parsers_slow_is_refused(raw: bytes) -> None:
    assert len(raw) <= SIZE
    assert judge(raw) is None
    refused_as_trust(raw)


TEXTS: dict[str, str] = {
    "a source of dots": "oci://a/" + "a." * 15_000,
    "a source of dashes": "oci://a/" + "-" * 30_000,
    "a source of slashes": "oci://a" + "/a" * 15_000,
    "a host of dots": "https://" + "." * 30_000,
    "a time": "2026-11-24T18:00:00." + "0" * 30_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_text_that_makes_patterns_slow_is_refused(text: str) -> None:
    values = json.loads(json.dumps(DEPLOYMENT))
    values["plugins"][0]["releases"][0]["sources"] = [text]
    assert judge(sealed(strictjson.dumps(values))) is None
    values["expires"] = text
    assert judge(sealed(strictjson.dumps(values))) is None
