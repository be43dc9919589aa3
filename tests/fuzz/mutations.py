"""Hostile changes of a module's bytes."""

import random

from edge_agent.wasm.module import MAGIC

_HEADER = 8
_TRICKY = (0, 1, 0x0B, 0x40, 0x7F, 0x80, 0xFC, 0xFD, 0xFF)


def mutated(wasm: bytes, chance: random.Random) -> bytes:
    """`wasm` with a few changes, of which one at least does something."""
    changed = wasm
    for _ in range(chance.choice((1, 1, 2, 4))):
        changed = chance.choice(_WAYS)(changed, chance)
    return changed if changed != wasm else wasm[:-1]


def _flip(wasm: bytes, chance: random.Random) -> bytes:
    data = bytearray(wasm)
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _overwrite(wasm: bytes, chance: random.Random) -> bytes:
    data = bytearray(wasm)
    if data:
        data[chance.randrange(len(data))] = chance.choice((*_TRICKY, chance.randrange(256)))
    return bytes(data)


def _insert(wasm: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(wasm) + 1)
    more = bytes(chance.choice(_TRICKY) for _ in range(chance.randrange(1, 5)))
    return wasm[:at] + more + wasm[at:]


def _remove(wasm: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(wasm) + 1)
    return wasm[:at] + wasm[at + chance.randrange(1, 9) :]


def _cut(wasm: bytes, chance: random.Random) -> bytes:
    return wasm[: chance.randrange(len(wasm) + 1)]


def _enlarge(wasm: bytes, chance: random.Random) -> bytes:
    """A number of five bytes over what is there: sizes and counts without end."""
    at = chance.randrange(len(wasm) + 1)
    last = chance.choice((0x07, 0x0F, 0x7F, 0x80))
    return wasm[:at] + bytes((0xFF, 0xFF, 0xFF, 0xFF, last)) + wasm[at + 1 :]


def _rearrange(wasm: bytes, chance: random.Random) -> bytes:
    """Sections swapped, doubled or left out."""
    parts = _sections(wasm)
    if not parts:
        return wasm
    at, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    way = chance.randrange(3)
    if way == 0:
        parts[at], parts[other] = parts[other], parts[at]
    elif way == 1:
        parts.insert(other, parts[at])
    else:
        del parts[at]
    return wasm[:_HEADER] + b"".join(parts)


def _within(wasm: bytes, chance: random.Random) -> bytes:
    """A byte changed in one of the sections, each as likely: most bytes are code."""
    parts = _sections(wasm)
    if not parts:
        return wasm
    at = chance.randrange(len(parts))
    parts[at] = chance.choice((_flip, _overwrite))(parts[at], chance)
    return wasm[:_HEADER] + b"".join(parts)


_WAYS = (_flip, _overwrite, _insert, _remove, _cut, _enlarge, _rearrange, _within, _within)


def _sections(wasm: bytes) -> list[bytes]:
    """As far as they can be told apart; the rest is the last."""
    parts: list[bytes] = []
    at = _HEADER
    if not wasm.startswith(MAGIC):
        return parts
    while at < len(wasm):
        end, size, shift = at + 1, 0, 0
        while end < len(wasm):
            size |= (wasm[end] & 0x7F) << shift
            shift += 7
            end += 1
            if wasm[end - 1] < 0x80 or shift > 28:
                break
        end = min(end + size, len(wasm))
        parts.append(wasm[at:end])
        at = end
    return parts
