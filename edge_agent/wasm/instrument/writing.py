"""A module put together again, with what its functions refer to for their limits."""

from typing import NamedTuple

from edge_agent.wasm.engine import FUEL_EXPORT
from edge_agent.wasm.instrument.binary import (
    BYTES,
    MAXIMUM_BYTES,
    named,
    section,
    signed,
    unsigned,
)
from edge_agent.wasm.instrument.shape import MAX_PAGES, Export, Parts, Section, Type
from edge_agent.wasm.module import CORE_VERSION, MAGIC

# An engine's own limit is 3; the others become functions that call the first.
_NAMES_OF_A_FUNCTION = 3
_GROW = Type("i", "i")
# memory.grow of more than there can be is refused here: an engine may add first.
_GROW_BODY = bytes.fromhex("00 2000 41ffff03 4b 047f 417f 05 2000 4000 0b 0b")
_NO_BODY = b"\0\x00\x0b"  # unreachable


class Instrumented(NamedTuple):
    """A module that counts its fuel. `maximum_at`: where its memory's maximum is written."""

    wasm: bytes
    maximum_at: int


def write(parts: Parts) -> Instrumented:
    """Put the module together, with its fuel and what goes with it."""
    # Behind all others, so that no number changes: globals, types and functions.
    fuel_entry = b"\x7e\x01\x42" + signed((1 << 63) - 1) + b"\x0b"
    grow_type = len(parts.types)
    functions = [*parts.functions[parts.imported :], grow_type]
    bodies = [*parts.bodies, _GROW_BODY if parts.memory else _NO_BODY]
    exports = _forwarded(parts, functions, bodies)
    exports.append(Export(FUEL_EXPORT.encode(), 3, len(parts.globals)))
    minimum, maximum = parts.memory or (0, 1)
    limit = MAX_PAGES if maximum is None else maximum
    memory = b"\x01" + unsigned(minimum) + unsigned(limit, MAXIMUM_BYTES)

    before = [
        MAGIC + CORE_VERSION,
        _type_section(parts.types),
        parts.imports,
        section(Section.FUNCTION, len(functions), b"".join(map(unsigned, functions))),
    ]
    if parts.table is not None:
        before.append(section(Section.TABLE, 1, b"\x70\0" + unsigned(parts.table)))
    before.append(section(Section.MEMORY, 1, memory))
    after = [
        section(Section.GLOBAL, len(parts.globals) + 1, parts.initial + fuel_entry),
        section(
            Section.EXPORT,
            len(exports),
            b"".join(named(one.name) + bytes([one.kind]) + unsigned(one.number) for one in exports),
        ),
    ]
    if parts.start is not None:
        number = unsigned(parts.start)
        after.append(bytes([Section.START]) + unsigned(len(number)) + number)
    after += [
        section(Section.ELEMENT, *parts.elements),
        section(Section.CODE, len(bodies), b"".join(unsigned(len(one)) + one for one in bodies)),
        section(Section.DATA, *parts.data),
    ]
    maximum_at = sum(map(len, before)) - MAXIMUM_BYTES
    return Instrumented(b"".join([*before, *after]), maximum_at)


def _type_section(own: list[Type]) -> bytes:
    def encoded(letters: str) -> bytes:
        return unsigned(len(letters)) + b"".join(BYTES[one] for one in letters)

    types = [*own, _GROW]
    entries = [b"\x60" + encoded(kind.params) + encoded(kind.results) for kind in types]
    return section(Section.TYPE, len(types), b"".join(entries))


def _forwarded(parts: Parts, functions: list[int], bodies: list[bytes]) -> list[Export]:
    """The exports, with functions added where one has more names than an engine takes."""
    names: dict[int, int] = {}
    exports = []
    for one in parts.exports:
        if one.kind == 0:
            names[one.number] = names.get(one.number, 0) + 1
            if names[one.number] > _NAMES_OF_A_FUNCTION or one.number < parts.imported:
                kind = parts.functions[one.number]
                params = range(len(parts.types[kind].params))
                call = b"\x10" + unsigned(one.number) + b"\x0b"
                bodies.append(b"\0" + b"".join(b"\x20" + unsigned(at) for at in params) + call)
                functions.append(kind)
                one = one._replace(number=parts.imported + len(functions) - 1)
        exports.append(one)
    return exports
