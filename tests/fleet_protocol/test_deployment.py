"""Every check of a deployment, in the protocol's order, and every attack on each."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent import strictjson
from edge_agent.config import Limits, PluginSettings
from edge_agent.errors import RefusedError
from edge_agent.fleet_protocol import deployment, envelope, topics
from edge_agent.fleet_protocol.deployment import Blob, Deployment, Known, Offer, Rollout, accept
from edge_agent.fleet_protocol.trust import PAYLOAD_TYPE as TRUST_TYPE
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.catalogue import NOTHING_KNOWN
from edge_agent.store.release import Release
from tests.fleet_protocol.papers import (
    DEPLOYMENT,
    DIGEST,
    FLEET,
    KEYS,
    OTHER_DIGEST,
    PLUGIN,
    changed,
    sealed,
    trust,
)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


NOW = seconds("2026-11-25T00:00:00Z")


def taken(
    raw: bytes,
    *,
    trusted: TrustSet | None = None,
    known: Known = NOTHING_KNOWN,
    clock: float = NOW,
) -> Deployment | None:
    return accept(raw, fleet=FLEET, trust=trusted or trust(), known=known, clock=clock)


def refusal(raw: bytes, **options: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        taken(raw, **options)
    return caught.value


def test_a_good_document_becomes_values() -> None:
    found = taken(sealed())
    assert found is not None
    assert (found.fleet, found.generation) == (FLEET, 42)
    assert (found.issued, found.expires) == (
        seconds("2026-11-24T18:00:00Z"),
        seconds("2026-12-23T18:00:00Z"),
    )
    (entry,) = found.plugins
    assert entry.identity == "10-device-injector"
    assert entry.select == {"board": "rpi4"}
    settings = PluginSettings(
        limits=Limits(memory_bytes=16 << 20, deadline_ms=500),
        failure_policy="Ignore",
        permissions=("env", "linux.devices"),
    )
    config = "devices:\n- /dev/gpiochip0\n"
    first = Release("10", "device-injector", DIGEST, 18231, config, settings, "1.3.0")
    assert entry.offers == (
        Offer(
            first,
            blob=Blob(DIGEST, 18231, "zlib", 1, 65536),
            sources=("mqtt", "https://example.org/p.wasm", "oci://example.org/edge/p:1.3.0"),
            rollout=Rollout(10, "2026-11-23"),
        ),
        Offer(
            replace(first, digest=OTHER_DIGEST, size=70000, version="1.2.4"),
            Blob(OTHER_DIGEST, 70000, "none", 2, 65536),
            ("mqtt",),
        ),
    )


def test_what_an_entry_leaves_open_comes_from_the_node() -> None:
    values = changed("plugins.0.limits", {"memory": "1MiB"})
    found = accept(
        sealed(values),
        fleet=FLEET,
        trust=trust(),
        known=NOTHING_KNOWN,
        clock=NOW,
        defaults=Limits(deadline_ms=77, memory_bytes=5 << 20),
        report="errors",
    )
    assert found is not None
    settings = found.plugins[0].offers[0].release.settings
    assert settings.limits == Limits(memory_bytes=1 << 20, deadline_ms=77)
    assert settings.report == "errors"


def test_an_entry_has_times_and_thresholds_as_a_plugins_toml_has() -> None:
    values = changed("plugins.0.timer", "30s")
    values["plugins"][0]["pressure"] = {"every": "10s", "memory": "some 20% over 10s"}
    found = taken(sealed(values))
    assert found is not None
    settings = found.plugins[0].offers[0].release.settings
    assert settings.timer == 30.0
    assert settings.pressure == (("every", "10s"), ("memory", "some 20% over 10s"))


def test_the_same_document_again_changes_nothing() -> None:
    first = taken(sealed())
    assert first is not None
    assert taken(sealed(), known=first.known) is None
    # Signed by others, or once more: it is what is signed that counts.
    assert taken(sealed(signers=KEYS[1:2]), trusted=trust(2), known=first.known) is None


def test_the_same_document_that_has_expired_meanwhile_changes_nothing() -> None:
    first = taken(sealed())
    assert first is not None
    assert taken(sealed(), known=first.known, clock=seconds("2030-01-01T00:00:00Z")) is None


KNOWN_42 = Known(42, "00" * 32, seconds("2026-11-24T18:00:00Z"))
KNOWN_43 = Known(43, "00" * 32, seconds("2026-11-24T18:00:00Z"))

GENERATIONS: dict[str, tuple[Known, str]] = {
    "same generation with other content": (KNOWN_42, "conflict"),
    "older generation": (KNOWN_43, "rollback"),
    "much older generation": (Known(strictjson.MAX_INTEGER, "", 0.0), "rollback"),
}


@pytest.mark.parametrize(("known", "reason"), GENERATIONS.values(), ids=GENERATIONS.keys())
def test_a_generation_that_is_not_new_is_refused(known: Known, reason: str) -> None:
    assert refusal(sealed(), known=known).reason == reason


def test_a_higher_generation_is_taken() -> None:
    assert taken(sealed(changed("generation", 44)), known=KNOWN_43) is not None


TIMES: dict[str, tuple[float, float, bool]] = {
    # clock, issued of the document accepted before, expired?
    "in time": (NOW, 0.0, False),
    "expired": (seconds("2026-12-23T18:00:00Z"), 0.0, True),
    "one second before": (seconds("2026-12-23T17:59:59Z"), 0.0, False),
    "clock at 1970": (0.0, 0.0, False),
    "clock at 1970, and a later document was seen": (0.0, seconds("2027-01-01T00:00:00Z"), True),
    "clock far in the future": (4e9, 0.0, True),
}


@pytest.mark.parametrize(("clock", "issued", "expired"), TIMES.values(), ids=TIMES.keys())
def test_expiry_counts_from_the_best_known_time(clock: float, issued: float, expired: bool) -> None:
    known = Known(1, "00" * 32, issued)
    if expired:
        assert refusal(sealed(), known=known, clock=clock).reason == "expired"
    else:
        assert taken(sealed(), known=known, clock=clock) is not None


def test_a_clock_at_1970_does_not_bring_back_what_expired_before_this_agent_was_made() -> None:
    values = changed("issued", "2020-01-01T00:00:00Z")
    values["expires"] = "2020-02-01T00:00:00Z"
    assert refusal(sealed(values), clock=0.0).reason == "expired"


def _signed_as_trust() -> bytes:
    return envelope.seal(TRUST_TYPE, strictjson.dumps(DEPLOYMENT), KEYS[:1])


def _edited(**fields: object) -> bytes:
    """A good envelope with fields replaced."""
    return strictjson.dumps({**json.loads(sealed()), **fields})


def _one_key_twice() -> bytes:
    value = json.loads(sealed())
    return strictjson.dumps({**value, "signatures": value["signatures"] * 2})


def _other_payload() -> bytes:
    return _edited(payload=json.loads(sealed(changed("generation", 43)))["payload"])


SIGNATURES: dict[str, tuple[bytes, TrustSet, bool]] = {
    "one of one": (sealed(), trust(1), True),
    "one of three": (sealed(signers=KEYS[2:3]), trust(3), True),
    "two of two needed": (sealed(signers=KEYS[:2]), trust(3, 2), True),
    "more than needed": (sealed(signers=KEYS[:5]), trust(3, 2), True),
    "wrong key": (sealed(signers=KEYS[3:4]), trust(3), False),
    "no key at all": (_edited(signatures=[{"keyid": "", "sig": ""}]), trust(3), False),
    "too few keys": (sealed(signers=KEYS[:1]), trust(3, 2), False),
    "one good and one wrong": (sealed(signers=(KEYS[0], KEYS[4])), trust(3, 2), False),
    "same key twice": (_one_key_twice(), trust(3, 2), False),
    "same key signing twice": (sealed(signers=(KEYS[0], KEYS[0])), trust(3, 2), False),
    "signature of another document": (_other_payload(), trust(1), False),
    "signed as another kind": (_signed_as_trust(), trust(1), False),
    "type rewritten": (
        strictjson.dumps(
            {**json.loads(_signed_as_trust()), "payloadType": deployment.PAYLOAD_TYPE}
        ),
        trust(1),
        False,
    ),
}


@pytest.mark.parametrize(("raw", "trusted", "good"), SIGNATURES.values(), ids=SIGNATURES.keys())
def test_a_threshold_of_different_trusted_keys_must_have_signed(
    raw: bytes, trusted: TrustSet, good: bool
) -> None:
    if good:
        assert taken(raw, trusted=trusted) is not None
    else:
        assert refusal(raw, trusted=trusted).reason == "signature"


ENVELOPES: dict[str, bytes] = {
    "nothing": b"",
    "truncated": sealed()[:-1],
    "half": sealed()[: len(sealed()) // 2],
    "not UTF-8": sealed().replace(b"keyid", b"key\xffd"),
    "UTF-16": sealed().decode().encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf" + sealed(),
    "two values": sealed() + sealed(),
    "deeply nested": b"[" * 60_000,
    "deeply nested and closed": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep in an unknown field": _edited()[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a name twice": sealed()[:-1] + b',"payload":"AAAA"}',
    "a huge number": sealed()[:-1] + b',"x":' + b"9" * 30_000 + b"}",
    "NaN": sealed()[:-1] + b',"x":NaN}',
    "infinite": sealed()[:-1] + b',"x":1e999}',
    "a list": b"[]",
    "a string": b'"payload"',
    "no payload": strictjson.dumps({"payloadType": deployment.PAYLOAD_TYPE, "signatures": [{}]}),
    "payload no string": _edited(payload=1),
    "payload no base64": _edited(payload="{}"),
    "payload cut": _edited(payload="AAA"),
    "payload with a line break": _edited(payload="AAAA\nAAAA"),
    "type no string": _edited(payloadType=None),
    "no signatures": _edited(signatures=[]),
    "signatures no list": _edited(signatures={}),
    "a signature no object": _edited(signatures=["x"]),
    "a signature no base64": _edited(signatures=[{"keyid": "", "sig": "%"}]),
    "a keyid no string": _edited(signatures=[{"keyid": [], "sig": ""}]),
    "too many signatures": _edited(signatures=[{"keyid": "", "sig": ""}] * 17),
}


@pytest.mark.parametrize("raw", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_what_is_no_envelope_is_refused(raw: bytes) -> None:
    assert refusal(raw).reason == "envelope"


def test_the_size_is_checked_first() -> None:
    assert refusal(b"\xff" * (topics.MAX_MESSAGE_BYTES + 1)).reason == "oversized"
    assert refusal(b"\xff" * topics.MAX_MESSAGE_BYTES).reason == "envelope"


HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": (changed("kind", ...), "kind"),
    "unknown kind": (changed("kind", "edge-agent.deployment.v2"), "kind"),
    "kind of a trust set": (changed("kind", "edge-agent.trust"), "kind"),
    "kind no string": (changed("kind", ["edge-agent.deployment"]), "kind"),
    "no fleet": (changed("fleet", ...), "fleet"),
    "other fleet": (changed("fleet", "orchard"), "fleet"),
    "fleet in capitals": (changed("fleet", "Greenhouse"), "fleet"),
    "fleet no string": (changed("fleet", 1), "fleet"),
}


@pytest.mark.parametrize(("values", "reason"), HEADS.values(), ids=HEADS.keys())
def test_another_kind_or_fleet_is_refused(values: dict[str, Any], reason: str) -> None:
    assert refusal(sealed(values)).reason == reason


PAYLOADS: dict[str, bytes] = {
    "nothing": b"",
    "truncated": strictjson.dumps(DEPLOYMENT)[:-1],
    "not UTF-8": strictjson.dumps(DEPLOYMENT).replace(b"rpi4", b"rpi\xff"),
    "half a surrogate pair": strictjson.dumps(DEPLOYMENT).replace(b"rpi4", rb"\ud800"),
    "a list": b"[]",
    "deeply nested": b'{"a":' * 4000 + b"1" + b"}" * 4000,
    "a name twice": strictjson.dumps(DEPLOYMENT)[:-1] + b',"generation":1}',
    "a name twice deep inside": strictjson.dumps(DEPLOYMENT).replace(
        b'"index":', b'"index":"99","index":'
    ),
    "null": strictjson.dumps({**DEPLOYMENT, "note": None}),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_signed_payload_that_is_no_plain_json_is_refused(payload: bytes) -> None:
    assert refusal(sealed(payload)).reason == "malformed"


def release(**fields: object) -> dict[str, Any]:
    return changed("plugins.0.releases.1", {**PLUGIN["releases"][1], **fields})


def blob(**fields: object) -> dict[str, Any]:
    return release(blob={**PLUGIN["releases"][1]["blob"], **fields})


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "generation missing": (changed("generation", ...), "generation"),
    "generation 0": (changed("generation", 0), "generation"),
    "generation negative": (changed("generation", -1), "generation"),
    "generation a fraction": (changed("generation", 42.0), "generation"),
    "generation a string": (changed("generation", "42"), "generation"),
    "generation true": (changed("generation", True), "generation"),
    "issued missing": (changed("issued", ...), "issued"),
    "expires missing": (changed("expires", ...), "expires"),
    "expires a number": (changed("expires", 4e9), "expires"),
    "expires without a zone": (changed("expires", "2026-12-23T18:00:00"), "expires"),
    "expires in a zone": (changed("expires", "2026-12-23T18:00:00+02:00"), "expires"),
    "expires on no day": (changed("expires", "2026-11-31T18:00:00Z"), "expires"),
    "expires with other digits": (changed("expires", "2026-12-2٣T18:00:00Z"), "expires"),
    "expires before it is issued": (changed("expires", "2026-11-24T18:00:00Z"), "expires"),
    "plugins missing": (changed("plugins", ...), "plugins"),
    "plugins no list": (changed("plugins", {"a": PLUGIN}), "plugins"),
    "a plugin no object": (changed("plugins.0", "device-injector"), "plugins.0"),
    "too many plugins": (
        changed("plugins", [{**PLUGIN, "name": f"p{n}", "config": ""} for n in range(65)]),
        "plugins",
    ),
    "duplicate plugin": (changed("plugins.1", PLUGIN), "plugins.1.name"),
    "duplicate plugin, other index": (changed("plugins.1", {**PLUGIN, "index": "20"}), "plugins.1"),
    "name missing": (changed("plugins.0.name", ...), "name"),
    "name empty": (changed("plugins.0.name", ""), "name"),
    "name with a slash": (changed("plugins.0.name", "../x"), "name"),
    "name with a line": (changed("plugins.0.name", "x\n"), "name"),
    "name too long": (changed("plugins.0.name", "x" * 65), "name"),
    "name no string": (changed("plugins.0.name", 1), "name"),
    "index missing": (changed("plugins.0.index", ...), "index"),
    "index a number": (changed("plugins.0.index", 10), "index"),
    "index of one digit": (changed("plugins.0.index", "1"), "index"),
    "index of three digits": (changed("plugins.0.index", "100"), "index"),
    "index of other digits": (changed("plugins.0.index", "١٠"), "index"),
    "config no string": (changed("plugins.0.config", {}), "config"),
    "config too long": (changed("plugins.0.config", "x" * (32769)), "config"),
    "failure_policy in lower case": (changed("plugins.0.failure_policy", "fail"), "failure_policy"),
    "permission unknown": (changed("plugins.0.permissions", ["everything"]), "permissions"),
    "permissions of everything and more": (
        changed("plugins.0.permissions", ["*", "env"]),
        "permissions",
    ),
    "permissions no list": (changed("plugins.0.permissions", "env"), "permissions"),
    "permissions null": (changed("plugins.0.permissions", None), "null"),
    "report unknown": (changed("plugins.0.report", "none"), "report"),
    "limits no object": (changed("plugins.0.limits", []), "limits"),
    "limit unknown": (changed("plugins.0.limits", {"cpu": 1}), "limits.cpu"),
    "limit out of bounds": (changed("plugins.0.limits", {"memory": "9GiB"}), "limits.memory"),
    "timer without a unit": (changed("plugins.0.timer", 30), "timer"),
    "a threshold of another form": (changed("plugins.0.pressure", {"io": "20%"}), "pressure.io"),
    "limit without a unit": (changed("plugins.0.limits", {"deadline": 500}), "limits.deadline"),
    "select no object": (changed("plugins.0.select", []), "select"),
    "select unknown": (changed("plugins.0.select", {"nodes": ["a"]}), "select.nodes"),
    "label no string": (changed("plugins.0.select", {"labels": {"board": 4}}), "labels.board"),
    "label name bad": (changed("plugins.0.select", {"labels": {"a b": "c"}}), "labels"),
    "releases missing": (changed("plugins.0.releases", ...), "releases"),
    "releases empty": (changed("plugins.0.releases", []), "releases"),
    "releases too many": (
        changed(
            "plugins.0.releases",
            [{**PLUGIN["releases"][1], "version": str(number)} for number in range(9)],
        ),
        "releases",
    ),
    "a release no object": (changed("plugins.0.releases.0", 1), "releases.0"),
    "version missing": (changed("plugins.0.releases.0.version", ...), "version"),
    "version bad": (release(version="1/2"), "version"),
    "version twice": (release(version="1.3.0"), "version"),
    "percent missing": (changed("plugins.0.releases.0.rollout.percent", ...), "percent"),
    "percent 101": (changed("plugins.0.releases.0.rollout.percent", 101), "percent"),
    "percent negative": (changed("plugins.0.releases.0.rollout.percent", -1), "percent"),
    "percent a fraction": (changed("plugins.0.releases.0.rollout.percent", 0.5), "percent"),
    "seed missing": (changed("plugins.0.releases.0.rollout.seed", ...), "seed"),
    "seed empty": (changed("plugins.0.releases.0.rollout.seed", ""), "seed"),
    "seed with a zero": (changed("plugins.0.releases.0.rollout.seed", "a\0b"), "seed"),
    "rollout unknown": (changed("plugins.0.releases.0.rollout.nodes", []), "rollout.nodes"),
    "blob missing": (changed("plugins.0.releases.0.blob", ...), "blob.digest"),
    "digest missing": (changed("plugins.0.releases.0.blob.digest", ...), "digest"),
    "digest short": (blob(digest="sha256:" + "5a" * 31), "digest"),
    "digest in capitals": (blob(digest="sha256:" + "5A" * 32), "digest"),
    "digest of another kind": (blob(digest="sha512:" + "5a" * 64), "digest"),
    "digest a path": (blob(digest="sha256:../../../etc/passwd"), "digest"),
    "digest with a line": (blob(digest=DIGEST + "\n"), "digest"),
    "size missing": (changed("plugins.0.releases.0.blob.size", ...), "size"),
    "size 0": (blob(size=0), "size"),
    "size over all bounds": (blob(size=1 << 40), "size"),
    "size as text": (blob(size="70000"), "size"),
    "encoding unknown": (blob(encoding="zstd"), "encoding"),
    "parts missing": (changed("plugins.0.releases.1.blob.parts", ...), "parts"),
    "parts 0": (blob(parts=0), "parts"),
    "parts too few": (blob(parts=1), "parts"),
    "parts too many": (blob(parts=3), "parts"),
    "parts too many, packed": (blob(parts=3, encoding="zlib"), "parts"),
    "part_size missing": (changed("plugins.0.releases.1.blob.part_size", ...), "part_size"),
    "part_size tiny": (blob(part_size=1, parts=70000), "part_size"),
    "part_size huge": (blob(part_size=70000, parts=1), "part_size"),
    "sources empty": (release(sources=[]), "sources"),
    "sources no list": (release(sources="mqtt"), "sources"),
    "source unknown": (release(sources=["carrier-pigeon"]), "sources"),
    "source in clear text": (release(sources=["http://example.org/x"]), "sources"),
    "source a file": (release(sources=["file:///etc/passwd"]), "sources"),
    "source without a host": (release(sources=["https:///x"]), "sources"),
    "source with a password": (release(sources=["https://u:p@example.org/x"]), "sources"),
    "source with a line": (release(sources=["https://example.org/\r\nHost: x"]), "sources"),
    "source too long": (release(sources=["https://example.org/" + "x" * 2001]), "sources"),
    "source a registry alone": (release(sources=["oci://example.org"]), "sources"),
    "source of dots": (release(sources=["oci://example.org/../x"]), "sources"),
}


@pytest.mark.parametrize(("values", "where"), FORMS.values(), ids=FORMS.keys())
def test_a_field_of_a_wrong_form_is_refused_and_named(values: dict[str, Any], where: str) -> None:
    refused = refusal(sealed(values))
    assert refused.reason == "malformed"
    assert where in str(refused)


UNKNOWN = ("x", "plugins.0.x", "plugins.0.releases.0.x", "plugins.0.releases.0.blob.x")


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_field_is_ignored(path: str) -> None:
    plain, more = taken(sealed()), taken(sealed(changed(path, {"y": [1, 2.5, True]})))
    assert plain is not None
    assert more is not None
    assert more.plugins == plain.plugins


def test_a_document_may_end_all_plugins() -> None:
    found = taken(sealed(changed("plugins", [])))
    assert found is not None
    assert found.plugins == ()


def test_parts_may_be_left_out_where_mqtt_is_no_source() -> None:
    values = release(blob={"digest": DIGEST, "size": 9}, sources=["https://example.org:8443/a?b=c"])
    found = taken(sealed(values))
    assert found is not None
    assert found.plugins[0].offers[1].blob == Blob(DIGEST, 9)


ORDER = [
    # Each wrong in this and everything after it: the first check that fails is the one told.
    ("oversized", b"x" * 70_000),
    ("envelope", b"x"),
    ("signature", sealed({**DEPLOYMENT, "kind": "x"}, KEYS[4:5])),
    ("kind", sealed({"kind": "x", "fleet": "y", "generation": 1})),
    ("fleet", sealed({**DEPLOYMENT, "fleet": "y", "generation": 1})),
    ("rollback", sealed({**changed("plugins", 1), "generation": 1, "expires": "x"})),
    ("expired", sealed({**changed("plugins", 1), "generation": 99})),
    ("malformed", sealed({**changed("plugins", 1), "generation": 99, "expires": "x"})),
]


@pytest.mark.parametrize(("reason", "raw"), ORDER, ids=[reason for reason, _ in ORDER])
def test_checks_come_in_the_protocols_order(reason: str, raw: bytes) -> None:
    known = Known(42, "00" * 32, seconds("2028-01-01T00:00:00Z"))
    assert refusal(raw, known=known).reason == reason


def test_both_alphabets_of_base64_are_read() -> None:
    value = json.loads(sealed(changed("plugins.0.config", "\u07ff?>~\u07ff" * 5)))
    other = {**value, "payload": value["payload"].replace("+", "-").replace("/", "_")}
    assert other != value
    assert taken(strictjson.dumps(other)) == taken(strictjson.dumps(value)) != None  # noqa: E711


def test_an_operator_gets_the_bytes_to_sign_or_every_problem() -> None:
    payload = deployment.to_payload(DEPLOYMENT)
    assert deployment.parse(payload, fleet=FLEET) == taken(sealed(payload))
    bad = changed("plugins.0.index", 1)
    bad["plugins"][0]["releases"][0]["version"] = ""
    with pytest.raises(RefusedError, match=r"index: must be two digits(.|\n)*version: must be"):
        deployment.to_payload(bad)
