"""The generated part of plugins/sdk-rust, from the descriptors of proto/nri.proto: messages as they
are read (`NameView`) and made (`Name`), the trait `Plugin`, and its methods by name."""

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
)

from scripts.generators.nrimodel import (
    HEAD,
    NUMBERS,
    Nri,
    field_name,
    is_optional,
    is_repeated,
    last,
    map_entry,
    snake,
)

_KEYWORDS = frozenset({"type"})
# What the SDK makes itself.
_LEFT_OUT = frozenset({"ConfigureResponse", "FailurePolicy"})


def sources(nri: Nri) -> dict[str, str]:
    """File name below plugins/sdk-rust/src -> text."""
    kinds = _Kinds(nri)
    lines = [
        HEAD,
        "use crate::view::{enumeration, Map, Repeated, Value, View};",
        "use crate::wire::{Buf, Content, Fault};",
        "use crate::{bail, head, Result};",
        "",
        *_macros(),
    ]
    for enum in nri.enums:
        lines += _enum(enum)
    lines.append(f"enumeration! {{ {' '.join(enum.name for enum in nri.enums)} }}\n")
    for message in nri.messages:
        if message.name not in _LEFT_OUT:
            lines += _message(kinds, message)
    lines += _plugin(kinds)
    return {"nri.rs": "\n".join(lines), "events.rs": _events(nri)}


class _Kinds:
    """The types of fields."""

    def __init__(self, nri: Nri) -> None:
        self.nri = nri

    def read(self, field: FieldDescriptorProto) -> str:
        """The type of one value, as it is read."""
        if field.type == FieldDescriptorProto.TYPE_STRING:
            return "&'a str"
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            return last(field.type_name)
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            return f"{last(field.type_name)}View<'a>"
        return NUMBERS[field.type]

    def written(self, field: FieldDescriptorProto, name: str) -> tuple[str, str]:
        """The type of one value, as it is given; the statement that puts `name` into `to`."""
        if field.type == FieldDescriptorProto.TYPE_STRING:
            return "&str", f"to.put_bytes({field.number}, {name}.as_bytes())"
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            return last(field.type_name), f"to.put_number({field.number}, {name}.0 as u64)"
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            return f"&{last(field.type_name)}", f"to.put_message({field.number}, &{name}.0)"
        kind = NUMBERS[field.type]
        return kind, f"to.put_number({field.number}, {name}{'' if kind == 'u64' else ' as u64'})"


def _macros() -> Iterator[str]:
    yield """\
macro_rules! message {
    ($name:ident $view:ident) => {
        #[derive(Clone, Copy)]
        pub struct $view<'a>(View<'a>);

        impl<'a> $view<'a> {
            pub fn new(bytes: &'a [u8], fault: &'a Fault) -> Self { Self(View::new(bytes, fault)) }
            pub fn bytes(self) -> &'a [u8] { self.0.bytes() }
        }

        impl<'a> Value<'a> for $view<'a> {
            fn read(content: Content<'a>, fault: &'a Fault) -> Option<Self> {
                View::read(content, fault).map(Self)
            }
            fn zero(fault: &'a Fault) -> Self { Self(View::zero(fault)) }
        }

        #[derive(Clone, Debug, Default)]
        pub struct $name(Buf);

        impl $name {
            pub const fn new() -> Self { Self(Buf::new()) }
            pub fn from_buf(buf: Buf) -> Self { Self(buf) }
            pub fn buf(&self) -> &Buf { &self.0 }
            pub fn into_buf(self) -> Buf { self.0 }
            pub fn view(&self) -> $view<'_> { $view(View::of(&self.0)) }
        }

        impl From<$view<'_>> for $name {
            fn from(view: $view<'_>) -> Self {
                let mut buf = Buf::new();
                buf.put(view.bytes());
                Self(buf)
            }
        }
    };
}
"""


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield "#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]"
    yield f"pub struct {enum.name}(pub i32);"
    yield ""
    yield "#[allow(non_upper_case_globals)]"
    yield f"impl {enum.name} {{"
    for value in enum.value:
        yield f"    pub const {value.name}: Self = Self({value.number});"
    yield "}"
    yield ""


def _message(kinds: _Kinds, message: DescriptorProto) -> Iterator[str]:
    yield f"message! {{ {message.name} {message.name}View }}"
    yield ""
    if not message.field:
        return
    yield f"impl<'a> {message.name}View<'a> {{"
    for field in message.field:
        yield from (f"    {line}" for line in _reader(kinds, message, field))
    yield "}"
    yield ""
    yield f"impl {message.name} {{"
    for field in message.field:
        yield from (f"    {line}" for line in _writer(kinds, message, field))
    yield "}"
    yield ""


def _reader(kinds: _Kinds, message: DescriptorProto, field: FieldDescriptorProto) -> Iterator[str]:
    name, number = field_name(field), field.number
    get = f"r#{name}" if name in _KEYWORDS else name
    entry, other = map_entry(message, field), kinds.nri.message(field)
    if entry is not None:
        key, value = entry.field
        kind = f"Map<'a, {kinds.read(key)}, {kinds.read(value)}>"
        yield f"pub fn {get}(self) -> {kind} {{ self.0.map({number}) }}"
    elif is_repeated(field):
        kind = f"Repeated<'a, {kinds.read(field)}>"
        yield f"pub fn {get}(self) -> {kind} {{ self.0.all({number}) }}"
    elif other is not None and is_optional(other):
        (value,) = other.field
        if is_repeated(value):
            kind = f"Repeated<'a, {kinds.read(value)}>"
            yield f"pub fn {get}(self) -> {kind} {{ self.0.one::<View>({number}).all(1) }}"
        else:
            kind = f"Option<{kinds.read(value)}>"
            yield f"pub fn {get}(self) -> {kind} {{ self.0.optional({number}) }}"
    else:
        yield f"pub fn {get}(self) -> {kinds.read(field)} {{ self.0.one({number}) }}"
        if other is not None:
            yield f"pub fn has_{name}(self) -> bool {{ self.0.has({number}) }}"


def _writer(kinds: _Kinds, message: DescriptorProto, field: FieldDescriptorProto) -> Iterator[str]:
    name, entry, other = field_name(field), map_entry(message, field), kinds.nri.message(field)
    one = name.removesuffix("s") if is_repeated(field) else name
    pair = entry or (other if other is not None and other.name == "KeyValue" else None)
    if pair is not None:
        key, value = pair.field
        (key_type, put_key), (value_type, put_value) = (
            kinds.written(each, each.name) for each in (key, value)
        )
        yield f"pub fn add_{one}(&mut self, key: {key_type}, value: {value_type}) -> &mut Self {{"
        yield "    let mut to = Buf::new();"
        yield f"    {put_key};"
        yield f"    {put_value};"
        yield f"    self.0.put_message({field.number}, &to);"
    elif other is not None and is_optional(other):
        (inner,) = other.field
        kind, put = kinds.written(inner, "value")
        if is_repeated(inner):
            kind, put = f"&[{kind}]", f"for value in values {{ {put}; }}"
            yield f"pub fn set_{name}(&mut self, values: {kind}) -> &mut Self {{"
        else:
            put += ";"
            yield f"pub fn set_{name}(&mut self, value: {kind}) -> &mut Self {{"
        yield "    let mut to = Buf::new();"
        yield f"    {put}"
        yield f"    self.0.put_message({field.number}, &to);"
    else:
        verb = "add" if is_repeated(field) else "set"
        kind, put = kinds.written(field, "value")
        yield f"pub fn {verb}_{one}(&mut self, value: {kind}) -> &mut Self {{"
        yield f"    {put.replace('to.', 'self.0.', 1)};"
    yield "    self"
    yield "}"


def _plugin(kinds: _Kinds) -> Iterator[str]:
    yield "/// A plugin: what it does not answer changes nothing. [`crate::plugin!`] exports it."
    yield "#[allow(unused_variables)]"
    yield "pub trait Plugin: Default {"
    yield "    /// Without it the plugin has no settings, and refuses some."
    yield "    fn configure(&mut self, request: ConfigureRequestView<'_>) -> Result<()> {"
    yield "        if !request.config().is_empty() {"
    text = '"this plugin has no settings, not even {}"'
    yield f"            bail!({text}, head(request.config(), 40));"
    yield "        }"
    yield "        Ok(())"
    yield "    }"
    for method in kinds.nri.methods:
        if method.name != "Configure":
            yield ""
            yield f"    fn {_signature(kinds, method)} {{"
            yield f"        Ok({_reply(kinds, method, '()', '{}::new()')})"
            yield "    }"
    yield "}"
    yield ""
    yield "/// The methods by name, as the host calls them."
    yield "#[doc(hidden)]"
    yield "pub mod methods {"
    yield "    use super::*;"
    yield ""
    yield "    pub fn configure<P: Plugin>("
    yield "        plugin: &mut P, request: View<'_>, events: i32,"
    yield "    ) -> Result<Buf> {"
    yield "        plugin.configure(ConfigureRequestView(request))?;"
    yield "        let mut reply = Buf::new();"
    yield "        reply.put_number(2, events as u64);"
    yield "        Ok(reply)"
    yield "    }"
    for method in kinds.nri.methods:
        if method.name != "Configure":
            yield ""
            yield from (f"    {line}" for line in _method(kinds, method))
    yield "}"
    yield ""
    yield '#[cfg(not(target_arch = "wasm32"))]'
    yield "impl<P: Plugin> crate::testing::Harness<P> {"
    yield "    /// Configures the plugin. Of all methods the error is the text of the error reply."
    yield (
        "    pub fn configure(&mut self, config: &str)"
        " -> core::result::Result<(), alloc::string::String> {"
    )
    yield "        let mut request = ConfigureRequest::new();"
    yield "        request.set_config(config);"
    yield "        let request = request.buf().bytes();"
    yield (
        "        self.call(|plugin, request| methods::configure(plugin, request, 0), request)"
        ".map(drop)"
    )
    yield "    }"
    for method in kinds.nri.methods:
        if method.name != "Configure":
            yield ""
            yield from (f"    {line}" for line in _tried(kinds, method))
    yield "}"
    yield ""


def _signature(kinds: _Kinds, method: MethodDescriptorProto) -> str:
    reply = _reply(kinds, method, "()", "{}")
    asked = kinds.nri.named(method.input_type)
    request = f", request: {asked.name}View<'_>" if asked.field else ""
    return f"{snake(method.name)}(&mut self{request}) -> Result<{reply}>"


def _method(kinds: _Kinds, method: MethodDescriptorProto) -> Iterator[str]:
    name, asked = snake(method.name), kinds.nri.named(method.input_type)
    request, given = ("request", f"{asked.name}View(request)") if asked.field else ("_", "")
    yield f"pub fn {name}<P: Plugin>(plugin: &mut P, {request}: View<'_>) -> Result<Buf> {{"
    if method.name == "Synchronize":
        # A host that hands over the parts of a split synchronisation wants each part's mark back.
        yield "    let request = SynchronizeRequestView(request);"
        yield "    let mut reply = plugin.synchronize(request)?;"
        yield "    reply.set_more(request.more());"
        yield "    Ok(reply.0)"
    else:
        convert = _reply(kinds, method, "|()| Buf::new()", "|reply| reply.0")
        yield f"    plugin.{name}({given}).map({convert})"
    yield "}"


def _tried(kinds: _Kinds, method: MethodDescriptorProto) -> Iterator[str]:
    name, asked = snake(method.name), kinds.nri.named(method.input_type)
    reply = _reply(kinds, method, "()", "{}")
    request = f", request: &{asked.name}" if asked.field else ""
    yield (
        f"pub fn {name}(&mut self{request})"
        f" -> core::result::Result<{reply}, alloc::string::String> {{"
    )
    given = "request.buf().bytes()" if asked.field else "&[]"
    convert = _reply(kinds, method, "drop", "{}")
    yield f"    self.call(methods::{name}, {given}).map({convert})"
    yield "}"


def _reply(kinds: _Kinds, method: MethodDescriptorProto, empty: str, full: str) -> str:
    """Of a method whose reply has no fields, or has some."""
    reply = kinds.nri.named(method.output_type)
    return full.format(reply.name) if reply.field else empty


def _events(nri: Nri) -> str:
    """The bits that subscribe to each method's event."""
    lines = [
        HEAD + "//! The bits that subscribe to the events of methods; 0: it is no event.",
        "#![allow(non_upper_case_globals)]",
        "",
    ]
    for name, mask in nri.event_bits().items():
        if name != "configure":
            lines.append(f"pub const {name}: i32 = {mask:#x};")
    return "\n".join(lines) + "\n"
