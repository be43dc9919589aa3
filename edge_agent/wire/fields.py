"""Which fields a serialized protobuf message has, without decoding it (protobuf, Encoding).

A message of 4 MiB can hold two million empty ones: decoding it takes seconds and hundreds
of MB with protobuf's pure-Python backend, all of it on the thread that answers runtimes.
Here the length of a field is enough to step over it, and the steps are counted.
"""

from collections.abc import Collection

MAX_FIELDS = 8192  # ours: two for each container of a large node; some ms at most
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are not of proto3

Path = tuple[int, ...]
"""Field numbers from the outside to the inside."""


def field_paths(message: bytes, nested: Collection[Path]) -> tuple[set[Path], bool]:
    """The paths of all fields, also of those within the messages at `nested`; whether that
    is all: False with more than MAX_FIELDS fields. ValueError: this is no message.
    """
    found: set[Path] = set()
    left = MAX_FIELDS
    inside: list[tuple[Path, int, int]] = [((), 0, len(message))]
    while inside:
        outer, at, end = inside.pop()
        while at < end:
            if not left:
                return found, False
            left -= 1
            # Written out where one byte says it, as most do: two calls for each field otherwise.
            if (tag := message[at]) < 0x80:
                at += 1
            else:
                tag, at = _varint(message, at)
            number, kind = tag >> 3, tag & 7
            if kind == _BYTES and at < end and message[at] < 0x80:
                begin = at + 1
                at = begin + message[at]
            else:
                begin, at = _value(message, at, kind)
            if at > end or not number:
                raise ValueError("a field that ends outside of its message, or has no number")
            path = (*outer, number)
            found.add(path)
            if path in nested:
                if kind != _BYTES:
                    raise ValueError("a message that is not written as one")
                inside.append((path, begin, at))
    return found, True


def nested_bytes(message: bytes, path: Path) -> bytes | None:
    """The first string or message at `path`, without what stands beside it; None: there is none,
    or it comes after MAX_FIELDS others. ValueError: this is no message."""
    at, end = 0, len(message)
    left = MAX_FIELDS
    for number in path:
        while True:
            if at >= end or not left:
                return None
            left -= 1
            tag, at = _varint(message, at)
            begin, at = _value(message, at, tag & 7)
            if at > end:
                raise ValueError("a field that ends outside of its message")
            if tag >> 3 == number and tag & 7 == _BYTES:
                at, end = begin, at
                break
    return message[at:end]


def _value(message: bytes, at: int, kind: int) -> tuple[int, int]:
    """Where the value of a field begins and ends, perhaps beyond the message."""
    if kind == _BYTES:
        size, at = _varint(message, at)
        return at, at + size
    if kind == _VARINT:
        return at, _varint(message, at)[1]
    if kind not in (_FIXED64, _FIXED32):
        raise ValueError(f"a field of wire type {kind}")
    return at, at + (8 if kind == _FIXED64 else 4)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    if at < len(message) and message[at] < 0x80:  # nearly all
        return message[at], at + 1
    value = 0
    for shift, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a number that does not end")
