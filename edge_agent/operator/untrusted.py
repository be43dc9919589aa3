"""Decodes messages of nodes and the broker into bounded values. Pure.

Every document of a node is decoded here and nowhere else, so that one board cannot end a command
for the whole fleet. The returned values can be walked, printed, stored and encoded as JSON without
a further check of depth, digits or text.
"""

import json
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]

from edge_agent.strictjson import MAX_INTEGER

# A node's messages have at most 64 KiB, the protocol's limit; this leaves room for later versions.
MAX_BYTES = 256 << 10
# A batch of results needs 6: batch, records, record, reports, report, value.
MAX_DEPTH = 16
# A full message of the smallest records that nodes write has some 10,000.
MAX_VALUES = 50_000
# Of MAX_INTEGER. The length is checked first: Python's time to read digits grows with their
# square, and beyond 4,300 it refuses.
MAX_DIGITS = 17


class UnreadableError(ValueError):
    """Why a document cannot be read."""


def read_object(payload: bytes) -> dict[str, Any]:
    """A JSON object. UnreadableError for anything else."""
    _check_size(payload)
    try:
        value = json.loads(payload, parse_int=_integer, parse_constant=_constant)
    except RecursionError:
        raise UnreadableError(f"nested deeper than {MAX_DEPTH}") from None
    except UnreadableError:
        raise
    except ValueError as error:
        raise UnreadableError(f"not JSON: {error}") from None
    return _object(value)


def read_batch(payload: bytes) -> dict[str, Any]:
    """A batch in either encoding, with its list of `records`. UnreadableError."""
    if payload.lstrip()[:1] == b"{":
        batch = read_object(payload)
    else:
        _check_size(payload)
        try:
            value = msgpack.unpackb(payload, strict_map_key=True, unicode_errors="surrogateescape")
        except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            # "Unpack failed: error = -1" is all that the library says of some.
            raise UnreadableError(f"not MessagePack: {error or type(error).__name__}") from None
        batch = _object(value)
    if not isinstance(batch.get("records"), list):
        raise UnreadableError("no batch: it has no list of records")
    return batch


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_BYTES:
        raise UnreadableError(f"{len(payload)} bytes, at most {MAX_BYTES} are read")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableError(f"a {type(value).__name__}, not an object")
    left = [MAX_VALUES]
    checked: dict[str, Any] = _checked(value, 1, left)
    return checked


def _checked(value: object, depth: int, left: list[int]) -> Any:
    """The same value of plain types only; `left` counts down over the whole document."""
    left[0] -= 1
    if left[0] < 0:
        raise UnreadableError(f"more than {MAX_VALUES} values")
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | bytes):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise UnreadableError("a whole number beyond 2**53 - 1")
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise UnreadableError("a number that is infinite or none")
        return value
    if depth > MAX_DEPTH:
        raise UnreadableError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_checked(item, depth + 1, left) for item in value]
    if isinstance(value, dict):
        return {_key(name): _checked(item, depth + 1, left) for name, item in value.items()}
    raise UnreadableError(f"a {type(value).__name__}, which no message of the fleet has")


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise UnreadableError("an object with a name that is no text")
    return _text(name)


def _text(text: str) -> str:
    """Half a surrogate pair, as from a file's name that is no UTF-8, is written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise UnreadableError("a whole number beyond 2**53 - 1")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is no number of JSON")
