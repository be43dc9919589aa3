"""How the set of trusted keys changes, and how it cannot be changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from edge_agent import strictjson
from edge_agent.errors import KeyFormatError, RefusedError
from edge_agent.fleet_protocol import deployment, envelope, keys, trust
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.fleet_protocol.trust import TrustSet
from tests.fleet_protocol.papers import FLEET, KEYS

A, B, C, D, E = KEYS


def keyset(version: int, threshold: int, *signers: SigningKey, fleet: str = FLEET) -> TrustSet:
    return TrustSet(fleet, version, threshold, tuple(key.public for key in signers))


def sealed(
    value: TrustSet | bytes,
    *signers: SigningKey,
    payload_type: str = trust.PAYLOAD_TYPE,
) -> bytes:
    payload = value if isinstance(value, bytes) else trust.to_payload(value)
    return envelope.seal(payload_type, payload, signers)


ONE = keyset(1, 1, A)
TWO_OF_THREE = keyset(4, 2, A, B, C)


def test_a_set_goes_into_a_document_and_back() -> None:
    assert trust.parse(trust.to_payload(TWO_OF_THREE), FLEET) == TWO_OF_THREE


TAKEN: dict[str, tuple[TrustSet, TrustSet, Sequence[SigningKey]]] = {
    "key replaced": (ONE, keyset(2, 1, B), (A, B)),
    "key added": (ONE, keyset(2, 1, A, B), (A,)),
    "threshold raised": (ONE, keyset(2, 2, A, B), (A, B)),
    "threshold lowered": (TWO_OF_THREE, keyset(5, 1, A, B), (A, B)),
    "all replaced": (TWO_OF_THREE, keyset(5, 1, D, E), (B, C, E)),
    "more signers than needed": (ONE, keyset(2, 1, B), (A, B, C, D)),
}


@pytest.mark.parametrize(("before", "after", "signers"), TAKEN.values(), ids=TAKEN.keys())
def test_a_set_signed_by_the_old_and_the_new_keys_is_taken(
    before: TrustSet, after: TrustSet, signers: Sequence[SigningKey]
) -> None:
    assert trust.rotated(sealed(after, *signers), before) == after
    assert trust.rotated(trust.chain([sealed(after, *signers)]), before) == after


def _changed(**fields: object) -> bytes:
    return strictjson.dumps({**json.loads(trust.to_payload(keyset(2, 1, B))), **fields})


PEM = keys.public_pem(B.public)
REFUSED: dict[str, tuple[TrustSet, bytes, str]] = {
    "new keys alone": (ONE, sealed(keyset(2, 1, B), B), "signature"),
    "old keys alone": (ONE, sealed(keyset(2, 1, B), A), "signature"),
    "neither": (ONE, sealed(keyset(2, 1, B), C), "signature"),
    "too few old": (TWO_OF_THREE, sealed(keyset(5, 1, D), A, D), "signature"),
    "too few new": (ONE, sealed(keyset(2, 2, B, C), A, B), "signature"),
    "same old key twice": (TWO_OF_THREE, sealed(keyset(5, 1, D), A, A, D), "signature"),
    "signed as a deployment": (
        ONE,
        sealed(keyset(2, 1, B), A, B, payload_type=deployment.PAYLOAD_TYPE),
        "signature",
    ),
    "a version skipped": (ONE, sealed(keyset(3, 1, B), A, B), "gap"),
    "an older version": (TWO_OF_THREE, sealed(keyset(3, 1, D), A, B, D), "rollback"),
    "the same version, other keys": (ONE, sealed(keyset(1, 1, A, B), A, B), "conflict"),
    "other fleet": (ONE, sealed(keyset(2, 1, B, fleet="orchard"), A, B), "fleet"),
    "kind of a deployment": (ONE, sealed(_changed(kind=deployment.KIND), A, B), "kind"),
    "no kind": (ONE, sealed(_changed(kind=1), A, B), "kind"),
    "version a string": (ONE, sealed(_changed(version="2"), A, B), "malformed"),
    "version true": (ONE, sealed(_changed(version=True), A, B), "malformed"),
    "threshold 0": (ONE, sealed(_changed(threshold=0), A, B), "malformed"),
    "threshold above the keys": (ONE, sealed(_changed(threshold=2), A, B), "malformed"),
    "no keys": (ONE, sealed(_changed(keys=[]), A, B), "malformed"),
    "keys no list": (ONE, sealed(_changed(keys=PEM), A, B), "malformed"),
    "a key no text": (ONE, sealed(_changed(keys=[1]), A, B), "malformed"),
    "a key damaged": (ONE, sealed(_changed(keys=[PEM[:-40]]), A, B), "malformed"),
    "a private key": (ONE, sealed(_changed(keys=[B.to_pem()]), A, B), "malformed"),
    "a key twice": (ONE, sealed(_changed(keys=[PEM, PEM]), A, B), "malformed"),
    "too many keys": (ONE, sealed(_changed(keys=[PEM] * 17), A, B), "malformed"),
    "not JSON": (ONE, sealed(b"{", A, B), "malformed"),
    "a list": (ONE, sealed(b"[]", A, B), "malformed"),
    "an empty chain": (ONE, b"[]", "envelope"),
    "a chain of rubbish": (ONE, b"[1]", "envelope"),
    "a long chain": (ONE, b"[" + b"{}," * 64 + b"{}]", "envelope"),
    "not a chain": (ONE, b"null", "envelope"),
    "truncated": (ONE, sealed(keyset(2, 1, B), A, B)[:-1], "envelope"),
    "oversized": (ONE, b" " * 65_537, "oversized"),
}


@pytest.mark.parametrize(("before", "raw", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_any_other_set_is_refused(before: TrustSet, raw: bytes, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        trust.rotated(raw, before)
    assert caught.value.reason == reason
    if not raw.startswith(b"["):
        with pytest.raises(RefusedError):
            trust.rotated(trust.chain([raw]), before)


STEPS = [
    sealed(keyset(2, 1, B), A, B),
    sealed(keyset(3, 2, B, C), B, C),
    sealed(keyset(4, 1, D), B, C, D),
]


@pytest.mark.parametrize("missed", range(3))
def test_a_node_that_was_away_follows_the_chain(missed: int) -> None:
    current = [keyset(1, 1, A), keyset(2, 1, B), keyset(3, 2, B, C)][missed]
    assert trust.rotated(trust.chain(STEPS), current) == keyset(4, 1, D)
    assert trust.rotated(trust.chain(STEPS[missed:]), current) == keyset(4, 1, D)


def test_the_newest_set_again_changes_nothing() -> None:
    assert trust.rotated(trust.chain(STEPS), keyset(4, 1, D)) is None
    assert trust.rotated(STEPS[0], keyset(2, 1, B)) is None


def test_an_old_chain_changes_nothing_and_is_told() -> None:
    with pytest.raises(RefusedError) as caught:
        trust.rotated(trust.chain(STEPS[:2]), keyset(4, 1, D))
    assert caught.value.reason == "signature"


def test_a_chain_is_followed_as_far_as_it_is_good() -> None:
    forged = sealed(keyset(3, 1, E), E)
    assert trust.rotated(trust.chain([STEPS[0], forged]), ONE) == keyset(2, 1, B)
    # and from there on the forgery is told
    with pytest.raises(RefusedError):
        trust.rotated(trust.chain([STEPS[0], forged]), keyset(2, 1, B))


def test_a_missing_step_ends_the_chain() -> None:
    assert trust.rotated(trust.chain([STEPS[0], STEPS[2]]), ONE) == keyset(2, 1, B)


BAD_SETS: dict[str, dict[str, Any]] = {
    "no keys": {"keys": ()},
    "a key twice": {"keys": (A.public, A.public)},
    "too many": {"keys": tuple(keys.public_key(bytes([n]) * 32) for n in range(17))},
    "threshold 0": {"threshold": 0},
    "threshold above": {"threshold": 2},
    "version 0": {"version": 0},
}


@pytest.mark.parametrize("fields", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_a_set_that_could_check_nothing_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(KeyFormatError):
        TrustSet(**{"fleet": FLEET, "version": 1, "threshold": 1, "keys": (A.public,), **fields})


def test_what_was_accepted_is_in_force_until_the_files_are_replaced() -> None:
    newest = keyset(2, 1, B)
    payload = trust.to_payload(newest).decode()
    assert trust.in_force(ONE, "", "") == ONE
    assert trust.in_force(ONE, payload, trust.name(ONE)) == newest
    assert trust.in_force(keyset(1, 1, C), payload, trust.name(ONE)) == keyset(1, 1, C)
