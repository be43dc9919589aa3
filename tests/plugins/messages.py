"""Random NRI messages, from their descriptors."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .guest import Guest, GuestError

MAX_DEPTH = 5  # of messages in messages; deeper ones stay empty
MAX_ITEMS = 3  # of a repeated field


def integers(bits: int, signed: bool) -> SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.sampled_from([0, 1, 127, 128, high]) | st.integers(low, high)


SCALARS: dict[int, SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=12) | st.text("x", min_size=128, max_size=200),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=12),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: integers(32, signed=True),
    FieldDescriptor.TYPE_INT64: integers(64, signed=True),
    FieldDescriptor.TYPE_UINT32: integers(32, signed=False),
    FieldDescriptor.TYPE_UINT64: integers(64, signed=False),
}


def scalar(field: FieldDescriptor) -> SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.type]


@st.composite
def messages(draw: DrawFn, kind: type[Message], depth: int = MAX_DEPTH) -> Message:
    """A message of this type with some of its fields set."""
    message = kind()
    if not kind.DESCRIPTOR.fields:
        return message
    choices: list[Any] = list(kind.DESCRIPTOR.fields)
    fields = st.lists(st.sampled_from(choices), unique_by=lambda field: field.name, max_size=6)
    for field in draw(fields):
        _fill(draw, message, field, depth)
    return message


def _fill(draw: DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    inner = field.message_type
    target = getattr(message, field.name)
    if inner is not None and inner.GetOptions().map_entry:
        key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
        for _ in range(draw(st.integers(0, MAX_ITEMS))):
            if value.message_type is None:
                target[draw(scalar(key))] = draw(scalar(value))
            elif depth:
                drawn = draw(messages(GetMessageClass(value.message_type), depth - 1))
                target[draw(scalar(key))].CopyFrom(drawn)
    elif inner is not None and field.is_repeated:
        for _ in range(draw(st.integers(0, MAX_ITEMS)) if depth else 0):
            target.append(draw(messages(GetMessageClass(inner), depth - 1)))
    elif inner is not None:
        target.SetInParent()
        if depth:
            target.CopyFrom(draw(messages(GetMessageClass(inner), depth - 1)))
    elif field.is_repeated:
        target.extend(draw(st.lists(scalar(field), max_size=MAX_ITEMS)))
    else:
        setattr(message, field.name, draw(scalar(field)))


def told(guest: Guest, method: str, request: bytes) -> str:
    """The error's text; empty if it answered. There is no third way, above all no trap."""
    try:
        guest.call(method, request)
    except GuestError as error:
        return str(error) or "an error of no text"
    return ""
