"""docs/fleet-protocol.md: its examples are what this agent does."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

import pytest

from edge_agent import VERBS
from edge_agent.config.model import MAX_HIDDEN
from edge_agent.config.table import MAX_ENTRIES
from edge_agent.errors import RefusedError
from edge_agent.fleet import plan
from edge_agent.fleet.transfer import fetch, parts, web
from edge_agent.fleet_protocol import (
    deployment,
    envelope,
    form,
    recorded_parts,
    requests,
    signed_requests,
    signed_states,
    topics,
    trust,
)
from edge_agent.fleet_protocol.form import Blob, max_encoded_bytes
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.fleet_protocol.topics import MAX_PART_BYTES, MIN_PART_BYTES
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.catalogue import NOTHING_KNOWN
from edge_agent.store.digest import NO_DIGEST
from edge_agent.wasm.engine import FUEL_RULES
from tests.fleet.test_hostile import REASONS
from tests.support.fleetnode import Board
from tests.support.shelf import Shelf

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fleet-protocol.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
_, TRUST, DEPLOYMENT, SECOND, THIRD, FOURTH, CODE, SIGNED, REQUEST, ANSWER, *_REST = EXAMPLES
*PARTS, SEALED, PAYLOAD, ENVELOPE = _REST
KEY = SigningKey(bytes([1]) * 32)
TRUSTED = TrustSet("greenhouse", 1, 1, (KEY.public,))


def test_the_deployment_of_the_page_is_one() -> None:
    found = deployment.parse(deployment.to_payload(json.loads(DEPLOYMENT)), fleet="greenhouse")
    assert found.plugins[0].identity == "10-device-injector"
    offered = found.plugins[0].offers[0].release
    assert offered.settings.permissions == ("mounts", "env", "linux.devices")
    assert len(found.plugins[0].offers) == 2


def test_the_deployment_of_the_second_kind_of_the_page_is_one() -> None:
    values = json.loads(SECOND)
    found = deployment.parse(deployment.to_payload(values), fleet="greenhouse")
    (canary,) = (each.release for each in deployment.wanted(found, "gate-1", {}).values())
    (other,) = (each.release for each in deployment.wanted(found, "gate-2", {}).values())
    labels = {"ring": "canary", "board": "rpi4"}
    (ring,) = (each.release for each in deployment.wanted(found, "gate-2", labels).values())
    assert (canary.config, canary.settings.permissions) == ("memory: 32MiB", ("linux.resources",))
    assert (other.config, other.settings.permissions) == ("memory: 64MiB", None)
    assert ring == canary
    assert canary.setup != other.setup
    assert deployment.kind_of(values["plugins"]) == values["kind"]
    assert deployment.kind_of(json.loads(DEPLOYMENT)["plugins"]) == deployment.KIND
    assert f"`rings`, at most {form.MAX_RINGS} tables" in PAGE
    assert f"`nodes`, at most {MAX_ENTRIES} names" in PAGE


def test_the_deployment_of_the_third_kind_of_the_page_is_one() -> None:
    values = json.loads(THIRD)
    found = deployment.parse(deployment.to_payload(values), fleet="greenhouse")
    [entry] = found.plugins
    assert [(each.release.version, each.release.settings.mode) for each in entry.offers] == [
        ("1.2.0+enforce", "enforce"),
        ("1.2.0", "monitor"),
    ]
    assert deployment.kind_of(values["plugins"]) == values["kind"]
    for kind in (deployment.KIND, deployment.KIND_2):
        with pytest.raises(RefusedError, match="third kind only"):
            deployment.to_payload({**values, "kind": kind})


def test_the_deployment_of_the_fourth_kind_of_the_page_is_one() -> None:
    values = json.loads(FOURTH)
    [entry] = deployment.parse(deployment.to_payload(values), fleet="greenhouse").plugins
    assert [each.release.settings.instance for each in entry.offers] == ["per-event"]
    assert deployment.kind_of(values["plugins"]) == values["kind"]
    for kind in (deployment.KIND, deployment.KIND_2, deployment.KIND_3):
        with pytest.raises(RefusedError, match="fourth kind only"):
            deployment.to_payload({**values, "kind": kind})


def test_the_machine_code_of_the_page_is_some() -> None:
    values = json.loads(DEPLOYMENT)
    values["plugins"][0]["releases"][0]["code"] = json.loads(CODE)
    found = deployment.parse(deployment.to_payload(values), fleet="greenhouse")
    (file,) = found.plugins[0].offers[0].codes
    assert (file.code.target, file.code.features, file.sources) == ("aarch64", ("neon",), ("mqtt",))
    assert f"a list `code` of at most {form.MAX_CODES} tables" in PAGE
    assert f"at most {form.MAX_FEATURES}, of the same form" in PAGE
    assert f",fuel={FUEL_RULES}` behind it" in PAGE


def test_the_trust_set_of_the_page_is_one() -> None:
    found = trust.parse(TRUST.encode(), "greenhouse")
    assert found == TrustSet("greenhouse", 2, 1, (KEY.public,))


def test_the_example_to_try_is_right() -> None:
    pem = re.search(r"( *-----BEGIN PRIVATE.*?END PRIVATE KEY-----)", PAGE, re.DOTALL)
    assert pem is not None
    key = SigningKey.from_pem(re.sub("(?m)^ +", "", pem[1]))
    assert key.public == KEY.public
    assert f"key id is `{key.public.keyid}`" in PAGE
    assert len(PAYLOAD) == 146
    before = envelope.pae(deployment.PAYLOAD_TYPE, PAYLOAD.encode()).removesuffix(PAYLOAD.encode())
    assert f"`{before.decode()}`" in PAGE
    assert envelope.seal(deployment.PAYLOAD_TYPE, PAYLOAD.encode(), [key]).decode() == ENVELOPE
    found = deployment.accept(
        ENVELOPE.encode(), fleet="greenhouse", trust=TRUSTED, known=NOTHING_KNOWN, clock=0.0
    )
    assert found is not None
    assert found.payload == PAYLOAD.encode()


def test_the_places_of_the_page_are_right() -> None:
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for seed, node, place in rows:
        assert deployment.place(seed, node) == int(place)


def test_every_reason_is_told_and_no_other() -> None:
    table = PAGE.split("### What a node checks", 1)[1].split("###", 1)[0]
    words = {
        word
        for line in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
        for word in re.findall(r"`([\w-]+)`", line)
    }
    assert words == REASONS


def test_the_numbers_of_the_page_are_those_in_force() -> None:
    for text in (
        f"above {topics.MAX_MESSAGE_BYTES:,} bytes",
        f"1 to {envelope.MAX_SIGNATURES} signatures",
        f"1 to {trust.MAX_KEYS} different keys",
        f"at most {trust.MAX_CHAIN}, so",
        f"0 to {form.MAX_PLUGINS};",
        f"1 to {form.MAX_RELEASES}, with",
        f"at most {form.MAX_CONFIG_CHARACTERS:,} characters",
        f"{form.MIN_BLOB_BYTES} bytes to {form.MAX_BLOB_BYTES >> 20} MiB",
        f"1 to {form.MAX_PARTS:,} parts of {MIN_PART_BYTES} to {MAX_PART_BYTES:,} bytes",
    ):
        assert text in PAGE, text
    for size in (8, 255, 256, 1 << 28):
        assert max_encoded_bytes(size, "zlib") == size + size // 256 + 1024
        assert max_encoded_bytes(size, "none") == size
    assert typing.get_args(form.Encoding) == ("none", "zlib")
    assert Blob(NO_DIGEST, 0).encoding == "none"


def test_the_page_tells_how_this_agent_fetches() -> None:
    pauses = ", ".join(f"{pause:.0f}" for pause in parts.PAUSES_S[:-1])
    for text in (
        f"at most {parts.WINDOW_PARTS} part topics",
        f"asks again {pauses} and {parts.PAUSES_S[-1]:.0f} s after {parts.IDLE_S:.0f} s",
        f"source {web.SETUP_S / 60:.0f} minutes and a second for each KiB",
        f"up to {fetch.TRIES} times in a row",
        f"another module {fetch.WRONG_LIMIT} times",
        f"after {fetch.PAUSE_MIN_S:.0f} s, doubled each time up to an hour",
        f"the latest {plan.MAX_REPORTED}:",
    ):
        assert text in PAGE, text
    assert web.SLOWEST_BYTES_PER_S == 1024
    assert (fetch.PAUSE_MAX_S, fetch.WRONG_PAUSE_S) == (3600, 86_400)


def test_the_page_names_what_updates_in_the_state_holds(tmp_path: Path) -> None:
    table = PAGE.split("### What a node reports", 1)[1].split("##", 1)[0]
    named = {
        word
        for line in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
        for word in re.findall(r"`(\w+)`", line)
    }
    assert named == Board(tmp_path, Shelf()).start().status().keys()


def test_the_requests_of_the_page_are_those_that_are_read() -> None:
    plain = requests.read("restart", REQUEST.encode())
    assert plain == requests.Request("8f1c", "restart", json.loads(REQUEST)["arguments"])
    assert (
        requests.answer("8f1c", "restart", "running")
        == json.dumps(json.loads(ANSWER), separators=(",", ":")).encode()
    )
    sealed = requests.read("restart", SEALED.encode())
    assert isinstance(sealed, requests.Sealed)
    to = signed_requests.Addressed("greenhouse", "board-7", "restart")
    request, _ = signed_requests.accept(sealed, to, [KEY.public], 0.0, {})
    assert request == plain._replace(signers=(KEY.public.keyid,))
    assert json.loads(envelope.read(SEALED.encode()).payload) == json.loads(SIGNED)
    section = PAGE.partition("## Requests")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\| ", section, re.MULTILINE)
    told = {
        verb: set(re.findall(r"`(lines|level|plugin|force|events|count|seconds|redact)`", words))
        for verb, words in rows
    }
    assert told == {verb: set(requests.ARGUMENTS.get(verb, {})) for verb in VERBS}
    for number, words in (
        (topics.MAX_REQUEST_BYTES, "at most {} bytes"),
        (requests.MAX_REMEMBERED, "one of the last {}"),
        (requests.MAX_OPEN, "({} at a time)"),
        (requests.MAX_LINES, "1 to {}"),
        (requests.MAX_RECORDED, "1 to {}, 200"),
        (requests.MAX_RECORD_S, "1 to {}, 60"),
        (MAX_HIDDEN, "at most {} rules"),
        (recorded_parts.MAX_PARTS, "at most {} parts"),
        (f"{recorded_parts.PART_BYTES:,}", "at most {} bytes in base64"),
        (f"{recorded_parts.MAX_BYTES:,}", "more than {} bytes"),
        (signed_requests.MAX_VALID_S // 3600, "at most {} h after"),
        (signed_requests.MAX_SEEN, "the {} ids that expire last"),
    ):
        assert words.format(number) in section
    assert section.count("`accepted`") == section.count("`succeeded`") == 1
    assert set(typing.get_args(requests.State)) <= set(re.findall(r"`(\w+)`", section))


def test_the_recording_of_the_page_is_sent_as_it_says() -> None:
    part, last = map(json.loads, PARTS)
    sent = requests.answer("8f1c", "record", "running", result=recorded_parts.part(0, b"x"))
    assert {**json.loads(sent), "result": None} == {**part, "result": None}
    assert part["result"].keys() == recorded_parts.part(0, b"x").keys()
    whole = recorded_parts.whole("greenhouse", "board-7", 3, 130211, NO_DIGEST)
    assert last["result"] == {**whole, "digest": "sha256:..."}
    document = requests.answer("8f1c", "record", "succeeded", result=whole)
    sealed = json.loads(signed_states.sealed(document, bytes(32), bytes(64)))
    assert sealed.keys() == last.keys()
    assert sealed["signed"].keys() == last["signed"].keys()
    assert f"`{recorded_parts.PAYLOAD_TYPE}`" in PAGE
