"""JSON that has one meaning only: what a signature covers must not be read in two ways. Pure.

I-JSON (RFC 7493): UTF-8, no object with the same name twice, no number that a double cannot
hold, no lone surrogate; and nothing nested deeper than any document of the fleet is.
"""

import json
import re
from typing import NoReturn

# A deployment needs 7; a parser's recursion must fit the small stacks of the agent's threads.
MAX_DEPTH = 16
# The whole numbers that every JSON parser keeps exact (RFC 7493, 2.2).
MAX_INTEGER = (1 << 53) - 1

# A string as a whole (closed or not, so that no text is read twice), or a bracket.
_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def loads(data: bytes, *, null: bool = True) -> object:
    """The value of a JSON text. Raises ValueError, with what is wrong, for anything else.

    The caller has bounded the length. Without `null` there must be none: it must not be
    a way to leave out what restricts.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    _check_depth(text)
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    _check_value(value, null)
    return value


def dumps(value: object) -> bytes:
    """The value as one line of JSON, the same for equal values."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode()


def _check_depth(text: str) -> None:
    depth = 0
    for found in _STRUCTURE.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif found[0] in "]}":
            depth -= 1


def _check_value(value: object, null: bool) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no character") from None
    elif isinstance(value, list):
        for item in value:
            _check_value(item, null)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_value(name, null)
            _check_value(item, null)
    elif value is None and not null:
        raise ValueError("null, which no field can be")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"an object names {name[:40]!a} twice")
        found[name] = value
    return found


def _integer(text: str) -> int:
    # The length first: Python's time to read digits grows with their square.
    if len(text) > 17 or abs(number := int(text)) > MAX_INTEGER:
        raise ValueError("a whole number beyond 2**53 - 1")
    return number


def _float(text: str) -> float:
    number = float(text)
    if number - number != 0:  # infinite
        raise ValueError("a number that is too large")
    return number


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
