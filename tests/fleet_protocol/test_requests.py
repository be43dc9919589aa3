"""What a node reads as a request, and what it answers."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import VERBS
from edge_agent.config.model import HIDDEN_BY_DEFAULT
from edge_agent.errors import RequestError
from edge_agent.fleet_protocol.requests import (
    ARGUMENTS,
    MAX_OPEN,
    MAX_REMEMBERED,
    Ledger,
    Request,
    Sealed,
    answer,
    read,
)
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.store.release import MAX_NAME_CHARS

LONGEST = "10-" + "n" * MAX_NAME_CHARS  # with .wasm a file's longest name


RECORD = {
    "plugin": "10-guard",
    "events": ["CreateContainer"],
    "count": 1000,
    "seconds": 600,
    "redact": ["labels", "annotations:secret*/[a-z]?"],
}


def request(**document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("verb", "given", "arguments"),
    [
        ("sync", {}, {}),
        ("restart", {}, {}),
        ("restart", {"plugin": "10-guard"}, {"plugin": "10-guard"}),
        ("restart", {"force": True}, {"force": True}),
        ("logs", {}, {"lines": 100, "level": "debug"}),
        ("logs", {"lines": 500, "level": "error"}, {"lines": 500, "level": "error"}),
        ("diagnose", {}, {}),
        ("release", {"plugin": "10-guard"}, {"plugin": "10-guard"}),
        ("record", {}, {"count": 200, "seconds": 60, "redact": list(HIDDEN_BY_DEFAULT)}),
        ("record", RECORD, RECORD),
        ("record", {**RECORD, "redact": []}, {**RECORD, "redact": []}),
    ],
)
def test_a_request_is_read_and_completed(
    verb: str, given: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert read(verb, request(id="a.1", arguments=given)) == Request("a.1", verb, arguments)


def test_arguments_may_be_absent_and_other_fields_are_ignored() -> None:
    assert read("sync", request(id="a", since="yesterday")) == Request("a", "sync", {})


@pytest.mark.parametrize(
    ("verb", "payload", "identity", "said"),
    [
        ("explode", request(id="a"), "", "no such request; there are sync"),
        ("sync", b"", "", "not JSON"),
        ("sync", b'{"id": "a"', "", "not JSON"),
        ("sync", b'{"id": "\xff"}', "", "not JSON in UTF-8"),
        ("sync", b"[" * 4000, "", "not JSON"),
        ("sync", b'{"id": "a"}' + b" " * 4096, "", "at most 4096"),
        ("sync", b'["a"]', "", "not a JSON object"),
        ("sync", b"{}", "", "id must be"),
        ("sync", request(id=5), "", "id must be"),
        ("sync", request(id="a b"), "", "id must be"),
        ("sync", request(id="a" * 65), "", "id must be"),
        ("sync", request(id="a", arguments=[]), "a", "arguments must be an object"),
        ("sync", request(id="a", arguments={"x": 1}), "a", "unknown argument x; it takes none"),
        ("logs", request(id="a", arguments={"line": 1}), "a", "it takes lines, level, plugin"),
        ("logs", request(id="a", arguments={"lines": 0}), "a", "lines must be a whole number"),
        ("logs", request(id="a", arguments={"lines": True}), "a", "lines must be a whole number"),
        ("logs", request(id="a", arguments={"lines": "5"}), "a", "lines must be a whole number"),
        ("logs", request(id="a", arguments={"level": "loud"}), "a", "level must be one of debug"),
        ("logs", request(id="a", arguments={"level": []}), "a", "level must be one of debug"),
        ("release", request(id="a"), "a", "plugin must be a plugin as NN-name"),
        ("release", request(id="a", arguments={"plugin": "guard"}), "a", "plugin must be"),
        ("restart", request(id="a", arguments={"plugin": "10-../x"}), "a", "plugin must be"),
        ("restart", request(id="a", arguments={"plugin": LONGEST + "n"}), "a", "plugin must be"),
        *(
            ("record", request(id="a", arguments={name: value}), "a", f"{name} must be")
            for name, value in (
                *(("count", each) for each in (0, 1001, 10**9, True, 1.5, "9")),
                *(("seconds", each) for each in (0, 601, -1, True)),
                *(("events", each) for each in ([], ["None"], "CreateContainer", [["x"]], [7])),
                ("events", ["CreateContainer"] * 15),
                *(("redact", each) for each in ("env", ["enf"], [7], ["env:a,b"], ["env:a b"])),
                *(("redact", each) for each in (["env:"], ["env:" + "x" * 129], ["env\n"])),
                ("redact", ["env"] * 17),
                ("plugin", "x --redact none"),
            )
        ),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(
    verb: str, payload: bytes, identity: str, said: str
) -> None:
    with pytest.raises(RequestError, match=said) as refusal:
        read(verb, payload)
    assert refusal.value.id == identity


def test_every_plugin_that_a_folder_can_hold_can_be_asked_for() -> None:
    found = read("restart", request(id="a", arguments={"plugin": LONGEST}))
    assert isinstance(found, Request)
    assert found.arguments == {"plugin": LONGEST}


@given(verb=st.sampled_from([*VERBS, "x"]), payload=st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(verb: str, payload: bytes) -> None:
    try:
        found = read(verb, payload)
    except RequestError:
        return
    assert isinstance(found, Sealed) or found.verb == verb


def test_an_answer_says_what_it_answers() -> None:
    told = json.loads(answer("a", "logs", "succeeded", result={"lines": ["x"]}))
    assert told == {"id": "a", "verb": "logs", "state": "succeeded", "result": {"lines": ["x"]}}
    told = json.loads(answer("a", "sync", "failed", reason="r" * 5000))
    assert told == {"id": "a", "verb": "sync", "state": "failed", "reason": "r" * 500}


def test_an_answer_that_fits_no_message_says_so() -> None:
    payload = answer("a", "logs", "succeeded", result={"lines": ["x" * MAX_MESSAGE_BYTES]})
    assert len(payload) < 200
    assert json.loads(payload)["state"] == "failed"


def test_nothing_but_verbs_takes_arguments() -> None:
    assert ARGUMENTS.keys() <= set(VERBS)


def test_a_request_that_comes_again_is_not_carried_out_again() -> None:
    ledger = Ledger()
    assert ledger.enter(Request("a", "sync", {}))
    assert not ledger.enter(Request("a", "sync", {}))
    ledger.leave(Request("a", "sync", {}))
    assert not ledger.enter(Request("a", "sync", {}))
    assert ledger.enter(Request("a", "logs", {}))  # another verb, another request


def test_a_flood_of_requests_is_bounded() -> None:
    ledger = Ledger()
    for number in range(MAX_OPEN):
        assert ledger.enter(Request(f"{number}", "sync", {}))
    for number in range(1000):
        with pytest.raises(RequestError, match="busy") as refusal:
            ledger.enter(Request(f"more-{number}", "sync", {}))
        assert refusal.value.id == f"more-{number}"
    ledger.leave(Request("0", "sync", {}))
    assert ledger.enter(Request("more-0", "sync", {}))  # refused is not seen


def test_only_the_latest_ids_are_remembered() -> None:
    ledger = Ledger()
    for number in range(MAX_REMEMBERED + 1):
        this = Request(f"{number}", "sync", {})
        assert ledger.enter(this)
        ledger.leave(this)
    assert ledger.enter(Request("0", "sync", {}))


def test_what_an_earlier_process_carried_out_is_not_carried_out_again() -> None:
    ledger = Ledger()
    ledger.remember("restart", "a")
    assert not ledger.enter(Request("a", "restart", {}))
    assert ledger.enter(Request("a", "sync", {}))


# From Python 3.12 on the recursion of C code has a limit of its own, which is higher.
NESTED = """
import sys
from edge_agent import process
from edge_agent.config.model import HIDDEN_BY_DEFAULT
from edge_agent.errors import RequestError
from edge_agent.fleet_protocol.topics import MAX_REQUEST_BYTES
from edge_agent.fleet_protocol.requests import read
from edge_agent.mqtt.link import STACK_BYTES
sys.setrecursionlimit(1_000_000)
def work():
    for begin in (b"[", b'{"a":'):
        try:
            read("sync", begin * (MAX_REQUEST_BYTES // len(begin)))
        except RequestError as error:
            print(error)
process.start(work, name="mqtt", stack_bytes=STACK_BYTES).join()
"""


def test_nested_values_do_not_overflow_the_small_stack_of_the_link() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("nested deeper")) == (0, 2)
