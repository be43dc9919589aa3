"""A protobuf message as names and texts, for people: {"memory limit": "64MiB", ...}."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from edge_agent.config.units import format_size

if TYPE_CHECKING:
    from google._upb._message import FieldDescriptor as UpbField
    from google.protobuf.descriptor import FieldDescriptor as PythonField

    FieldDescriptor = PythonField | UpbField

# Where NRI's numbers are bytes: below LinuxResources, and of one huge page size.
_BYTES = frozenset(
    f"LinuxMemory.{name}" for name in ("limit", "reservation", "swap", "kernel", "kernel_tcp")
) | {"HugepageLimit.limit"}
_KEYS = {"HugepageLimit": "page_size"}  # what tells the entries of a list apart


def leaves(message: Message | None, path: str = "") -> dict[str, str]:
    """Every value that is set, by its path of field names with spaces between.

    A message that is there but says nothing (`pids {}` sets the limit to 0) shows its
    first number; wrappers such as OptionalInt64 show what they wrap.
    """
    found: dict[str, str] = {}
    if message is None:
        return found
    for field, value in message.ListFields():
        name = f"{path} {field.name}".strip()
        if _is_map(field):
            for key in sorted(value):
                found[f"{name} {key}"] = _one(value[key])
        elif field.is_repeated:
            found.update(_list(field, name, value))
        elif field.message_type is None:
            found[name] = scalar(field, value)
        elif wrapped := _wrapped(field):
            found[name] = _wrapped_text(field, wrapped, value)
        else:
            found.update(leaves(value, name) or _first_number(value, name))
    return found


def text(message: Message) -> str:
    """A message in one short line."""
    return ", ".join(f"{name} {value}" for name, value in leaves(message).items())


def scalar(field: "FieldDescriptor", value: Any) -> str:
    """A number, a string, a truth or a word of an enumeration."""
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name if known else value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value > 0 and _qualified(field) in _BYTES:
        return format_size(value)
    return str(value)


def _list(field: "FieldDescriptor", name: str, values: Sequence[Any]) -> dict[str, str]:
    key = _KEYS.get(field.message_type.name) if field.message_type else None
    if key is None:
        return {name: "; ".join(_one(value) for value in values)}
    found = {}
    for value in values:
        entry = leaves(value)
        told = entry.pop(key, "")
        found[f"{name} {told}"] = ", ".join(entry.values())
    return found


def _one(value: Any) -> str:
    return text(value) if isinstance(value, Message) else str(value)


def _wrapped(field: "FieldDescriptor") -> "FieldDescriptor | None":
    """The only field `value` of NRI's Optional messages."""
    fields = field.message_type.fields if field.message_type else []
    return fields[0] if len(fields) == 1 and fields[0].name == "value" else None


def _wrapped_text(field: "FieldDescriptor", inner: "FieldDescriptor", value: Any) -> str:
    content = getattr(value, inner.name)
    if inner.is_repeated:
        return "; ".join(map(str, content))
    # The unit belongs to the field outside: OptionalInt64 itself has none.
    return scalar(field, content)


def _first_number(message: Message, path: str) -> dict[str, str]:
    for field in message.DESCRIPTOR.fields:
        if not field.is_repeated and field.message_type is None:
            value = getattr(message, field.name)
            if not isinstance(value, str):
                return {f"{path} {field.name}".strip(): scalar(field, value)}
    return {}


def _is_map(field: "FieldDescriptor") -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _qualified(field: "FieldDescriptor") -> str:
    owner = field.containing_type
    return f"{owner.name}.{field.name}" if owner else field.name
