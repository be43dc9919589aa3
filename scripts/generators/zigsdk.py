"""The generated part of plugins/sdk-zig, from the descriptors of proto/nri.proto: a struct for each
message with the fields' numbers, enumerations, and what each method takes and answers."""

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
)

from scripts.generators import nrimodel
from scripts.generators.nrimodel import (
    Nri,
    field_name,
    is_optional,
    is_repeated,
    last,
    map_entry,
    snake,
)


def source(nri: Nri) -> str:
    """plugins/sdk-zig/nri.zig."""
    lines = [
        nrimodel.HEAD + "",
        'const Entry = @import("message.zig").Entry;',
        "",
    ]
    for enum in nri.enums:
        lines += _enum(enum)
    for message in nri.messages:
        lines += _message(nri, message)
    lines += _methods(nri)
    return "\n".join(lines) + "\n"


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"pub const {enum.name} = enum(i32) {{"
    for value in enum.value:
        yield f"    {value.name} = {value.number},"
    yield "    _,"
    yield "};"
    yield ""


def _message(nri: Nri, message: DescriptorProto) -> Iterator[str]:
    yield f"pub const {message.name} = struct {{"
    for field in message.field:
        kind, absent = _field(nri, message, field)
        yield f"    {field_name(field)}: {kind} = {absent},"
    if message.field:
        yield ""
    numbers = ", ".join(str(field.number) for field in message.field)
    if len(message.field) > 1:
        numbers = f" {numbers} "
    yield f"    pub const numbers = [_]u32{{{numbers}}};"
    yield "};"
    yield ""


def _field(nri: Nri, message: DescriptorProto, field: FieldDescriptorProto) -> tuple[str, str]:
    """A field's type, and what stands for its absence."""
    entry, other = map_entry(message, field), nri.message(field)
    if entry is not None:
        key, value = (_one(each)[0] for each in entry.field)
        return f"[]const Entry({key}, {value})", "&.{}"
    if is_repeated(field):
        return f"[]const {_one(field)[0]}", "&.{}"
    if other is not None and is_optional(other):
        (inner,) = other.field
        kind = _one(inner)[0]
        return f"?[]const {kind}" if is_repeated(inner) else f"?{kind}", "null"
    kind, absent = _one(field)
    return (f"?{kind}", "null") if other is not None else (kind, absent)


def _one(field: FieldDescriptorProto) -> tuple[str, str]:
    """The type of one value, and its zero."""
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return "[]const u8", '""'
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        return last(field.type_name), "@fromBackingInt(0)"
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        return last(field.type_name), ".{}"
    kind = nrimodel.NUMBERS[field.type]
    return kind, "false" if kind == "bool" else "0"


def _methods(nri: Nri) -> Iterator[str]:
    names = [snake(method.name) for method in nri.methods]
    yield "/// What the host calls; a plugin's functions have these names."
    yield "pub const Method = enum {"
    for name in names:
        yield f"    {name},"
    yield "};"
    yield ""
    for function, types, told in (
        ("RequestOf", [method.input_type for method in nri.methods], "What a method is asked."),
        ("ReplyOf", [method.output_type for method in nri.methods], "What a method answers."),
    ):
        yield f"/// {told}"
        yield f"pub fn {function}(comptime method: Method) type {{"
        yield "    return switch (method) {"
        for name, kind in zip(names, types, strict=True):
            yield f"        .{name} => {last(kind)},"
        yield "    };"
        yield "}"
        yield ""
    yield "/// The bits that subscribe to a method's event; 0: it is no event."
    yield "pub fn eventsOf(method: Method) i32 {"
    yield "    return switch (method) {"
    for name, mask in nri.event_bits().items():
        yield f"        .{name} => {mask:#x},"
    yield "    };"
    yield "}"
