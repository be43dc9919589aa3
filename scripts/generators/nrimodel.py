"""proto/nri.proto as the SDKs' generators see it."""

import re
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

_PROTO = "nri.proto"
# Not for a plugin: the session with the runtime, and what an SDK makes itself.
_LEFT_OUT = frozenset({"RegisterPluginRequest", "LogRequest"})
_STATE_CHANGES = {  # what runtimes before NRI 0.12 send through StateChange
    *("RUN_POD_SANDBOX", "STOP_POD_SANDBOX", "REMOVE_POD_SANDBOX", "POST_CREATE_CONTAINER"),
    *("START_CONTAINER", "POST_START_CONTAINER", "POST_UPDATE_CONTAINER", "REMOVE_CONTAINER"),
}
NUMBERS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_INT32: "i32",
    FieldDescriptorProto.TYPE_INT64: "i64",
    FieldDescriptorProto.TYPE_UINT32: "u32",
    FieldDescriptorProto.TYPE_UINT64: "u64",
}
HEAD = "// Made by scripts/generate from proto/nri.proto.\n"


@dataclass(frozen=True)
class Nri:
    """What a plugin meets."""

    all_messages: dict[str, DescriptorProto]
    enums: list[EnumDescriptorProto]
    methods: list[MethodDescriptorProto]
    """Of a plugin."""

    @property
    def messages(self) -> list[DescriptorProto]:
        """Without those that are only a value that may be absent, OptionalInt64 and the like."""
        return [each for each in self.all_messages.values() if not is_optional(each)]

    def named(self, type_name: str) -> DescriptorProto:
        return self.all_messages[last(type_name)]

    def message(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        """Of a field that holds one; not of a map."""
        if field.type != FieldDescriptorProto.TYPE_MESSAGE:
            return None
        return self.all_messages.get(last(field.type_name))

    def event_bits(self) -> dict[str, int]:
        """The bits that subscribe to each method's event; methods that are no event have none."""
        (events,) = (enum for enum in self.enums if enum.name == "Event")
        bits = {value.name: 1 << value.number - 1 for value in events.value if value.number}
        names = [snake(method.name) for method in self.methods]
        masks = {name: bits.get(name.upper(), 0) for name in names}
        return masks | {"state_change": sum(bits[each] for each in _STATE_CHANGES)}


def read(descriptors: bytes) -> Nri:
    """From protoc's --descriptor_set_out."""
    files = FileDescriptorSet.FromString(descriptors)
    (nri,) = (file for file in files.file if file.name == _PROTO)
    (plugin,) = (service for service in nri.service if service.name == "Plugin")
    messages = [message for message in nri.message_type if message.name not in _LEFT_OUT]
    enums = [*nri.enum_type]
    for message in messages:
        enums += message.enum_type
    return Nri({message.name: message for message in messages}, enums, [*plugin.method])


def map_entry(message: DescriptorProto, field: FieldDescriptorProto) -> DescriptorProto | None:
    """A map's."""
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return nested
    return None


def is_optional(message: DescriptorProto) -> bool:
    """OptionalInt64 and the like: a value that may be absent."""
    return message.name.startswith("Optional")


def is_repeated(field: FieldDescriptorProto) -> bool:
    return field.label == FieldDescriptorProto.LABEL_REPEATED


def last(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def field_name(field: FieldDescriptorProto) -> str:
    return field.name.lower()


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
