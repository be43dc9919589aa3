"""JSON that has one meaning only."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import strictjson
from edge_agent.strictjson import MAX_DEPTH, MAX_INTEGER, dumps, loads

GOOD: dict[str, tuple[bytes, object]] = {
    "an object": (b'{"b": [1, 2.5, true, null, "\\u00fc"]}', {"b": [1, 2.5, True, None, "ü"]}),
    "the largest number": (b"9007199254740991", MAX_INTEGER),
    "the smallest": (b"-9007199254740991", -MAX_INTEGER),
    "brackets in a string": (b'"' + b"[" * 99 + b'"', "[" * 99),
    "a quote in a string": (b'["\\"[[[[[[[[[[[[[[[[[[[["]', ['"[[[[[[[[[[[[[[[[[[[[']),
    "a backslash at a string's end": (b'["\\\\", "[[[[[[[[[[[[[[[[[["]', ["\\", "[" * 18]),
    "a pair of surrogates": (b'"\\ud83d\\ude00"', "\U0001f600"),
    "as deep as it may be": (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
}


@pytest.mark.parametrize(("data", "value"), GOOD.values(), ids=GOOD.keys())
def test_plain_json_is_read(data: bytes, value: object) -> None:
    assert loads(data) == (json.loads(data) if value is None else value)


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "two values": (b"1 2", "not JSON"),
    "a comma too many": (b"[1,]", "not JSON"),
    "a control character": (b'"\x01"', "not JSON"),
    "not UTF-8": (b'"\xff"', "not UTF-8 at byte 1"),
    "an overlong form": (b'"\xc0\x80"', "not UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8"),
    "UTF-16": ("1".encode("utf-16"), "not UTF-8"),
    "UTF-32": ("1".encode("utf-32-le"), "not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf1", "not JSON"),
    "half a pair": (b'["\\ud800"]', "surrogate"),
    "half a pair as a name": (b'{"\\udc00": 1}', "surrogate"),
    "a name twice": (b'{"a":1,"b":2,"a":1}', "names 'a' twice"),
    "a name twice, escaped": (b'{"a":1,"\\u0061":1}', "names 'a' twice"),
    "too large a number": (b"9007199254740992", "whole number"),
    "a number of many digits": (b"1" * 5000, "whole number"),
    "too large a fraction": (b"1e309", "too large"),
    "NaN": (b"NaN", "NaN is not JSON"),
    "infinity": (b"-Infinity", "is not JSON"),
    "too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
    "too deep, mixed": (b'{"a":[' * 9 + b"1" + b"]}" * 9, "nested deeper"),
    "too deep after a string": (b'["\\\\"' + b",[" * 30, "nested deeper"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD.keys())
def test_anything_else_is_refused_with_its_reason(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loads(data)


def test_null_can_be_refused_wherever_it_is() -> None:
    assert loads(b'{"a":[null]}') == {"a": [None]}
    for data in (b"null", b"[null]", b'{"a":{"b":null}}'):
        with pytest.raises(ValueError, match="null"):
            loads(data, null=False)


def test_depth_is_found_before_a_small_stack_is_full() -> None:
    """The agent's threads have stacks that a parser's recursion would fill."""
    said: list[str] = []

    def read() -> None:
        try:
            loads(b"[" * 60_000)
        except ValueError as error:
            said.append(str(error))

    before = threading.stack_size(64 << 10)
    try:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert said == [f"nested deeper than {MAX_DEPTH}"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_is_read(value: object) -> None:
    try:
        assert loads(dumps(value)) == value
    except ValueError as error:
        assert "nested deeper" in str(error)  # noqa: PT017


@given(st.binary())
def test_any_bytes_are_read_as_python_does_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except ValueError:
        return
    assert value == json.loads(data)


def test_equal_values_are_written_alike() -> None:
    assert dumps({"b": 1, "a": "ü"}) == dumps({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        strictjson.dumps(float("nan"))
