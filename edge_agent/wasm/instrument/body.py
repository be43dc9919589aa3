"""One function: checked as the specification says, and written again with its fuel counted.

What changes: at the function's entry and at the head of each loop the fuel is lowered by
what can run until the next such place; a NaN that an operation makes becomes the canonical
one; `memory.grow` becomes a call; what can never run is left out (it is not looked at
either, beyond where it ends). What a function does stays the same.

https://webassembly.github.io/spec/core/appendix/algorithm.html
"""

from typing import NamedTuple

from edge_agent.wasm.instrument import opcodes
from edge_agent.wasm.instrument.binary import (
    LETTERS,
    InvalidError,
    UnsupportedError,
    letter,
    signed,
    u32,
    unsigned,
)
from edge_agent.wasm.instrument.dead import end_of_dead
from edge_agent.wasm.instrument.locals import Locals
from edge_agent.wasm.instrument.shape import Surroundings, Type

# Of blocks in one another: each takes the stack of whoever compiles it. Go's largest
# function among 7,000 has 838.
MAX_NESTING = 2000

_BLOCK, _LOOP, _IF, _ELSE, _END = 0x02, 0x03, 0x04, 0x05, 0x0B
_EMPTY = 0x40


class _Frame(NamedTuple):
    """A block that has begun."""

    opcode: int
    label: str  # what a branch to it needs on the stack
    params: str
    results: str
    below: str  # the stack under the block's own
    check: int  # where in `out` the fuel check of a loop goes
    cost: int  # counted before the loop


class Body:
    """`write` does the work; one object for one function."""

    def __init__(self, surroundings: Surroundings, kind: Type, code: bytes) -> None:
        self._in = surroundings
        self._kind = kind
        self._code = code
        self._at = 0
        self._out: list[bytes] = []
        self._copied = 0  # of the code, to `out`
        self._frames: list[_Frame] = []
        self._cost = 0
        self._loops = self._deepest = 0
        self._calls = False
        self._locals = Locals(kind)

    def write(self) -> bytes:
        """The body, without its length. InvalidError. UnsupportedError."""
        try:
            self._copied = self._at = self._locals.read(self._code)
            self._out.append(b"")  # the entry's check
            self._frames.append(
                _Frame(_BLOCK, self._kind.results, "", self._kind.results, "", 0, 0)
            )
            self._run()
        except IndexError:
            raise InvalidError("code is cut short") from None
        if self._at != len(self._code):
            raise InvalidError("code goes on after its end")
        self._out.append(self._code[self._copied :])
        self._out[0] = self._check(self._cost)
        if self._calls:  # else at most one frame of it is on a stack
            self._locals.pad(self._in.frame_bytes + self._in.loop_bytes * self._deepest)
        return self._locals.encoded() + b"".join(self._out)

    # ---- code ----

    def _check(self, cost: int) -> bytes:
        """fuel -= cost; if fuel < 0: unreachable"""
        fuel = unsigned(self._in.fuel)
        lower = b"\x23" + fuel + b"\x42" + signed(cost) + b"\x7d\x24" + fuel
        return lower + b"\x23" + fuel + b"\x42\x00\x53\x04\x40\x00\x0b"

    def _insert(self, extra: bytes, *, instead_from: int | None = None) -> None:
        """Write `extra` at the cursor; instead of the code since `instead_from`, if given."""
        until = self._at if instead_from is None else instead_from
        self._out.append(self._code[self._copied : until])
        self._out.append(extra)
        self._copied = self._at

    def _run(self) -> None:
        code, known, globals_ = self._code, self._locals.letters, self._in.globals
        numeric, memory, constants = opcodes.NUMERIC, opcodes.MEMORY, opcodes.CONSTANTS
        nans = opcodes.NAN_OF_32 | opcodes.NAN_OF_64
        at, cost, stack = self._at, 0, ""
        got, got_at = -1, -1  # the last local.get: which, and where it ends
        while True:
            op = code[at]
            at += 1
            cost += 1
            effect = numeric[op]
            if effect is not None:
                before, count, after = effect
                if not stack.endswith(before):
                    raise self._mismatch(op, before, stack)
                stack = stack[:-count] + after
                if op in nans:
                    self._at = at
                    self._canonical(after)
            elif 0x20 <= op <= 0x22:  # local.get, local.set, local.tee
                where = at - 1
                number = code[at]
                at += 1
                if number > 127:
                    number, at = u32(code, at - 1)
                if number >= len(known):
                    raise InvalidError(f"there is no local {number}")
                if op == 0x20:
                    stack += known[number]
                    got, got_at = number, at
                else:
                    if not stack or stack[-1] != known[number]:
                        raise self._mismatch(op, known[number], stack)
                    if op == 0x21:
                        stack = stack[:-1]
                    if where == got_at and number == got:
                        self._at = at
                        self._unchanged(op, where)
                        got_at = at
            elif op in constants:
                after, most, spare = constants[op]
                start = at
                while code[at] > 127:
                    at += 1
                at += 1
                if at - start >= most:
                    opcodes.check_constant(code[start:at], most, spare)
                stack += after
            elif (access := memory[op]) is not None:
                (before, count, after), largest = access
                if not stack.endswith(before):
                    raise self._mismatch(op, before, stack)
                stack = stack[:-count] + after
                if not self._in.memory:
                    raise InvalidError("there is no memory")
                if code[at] > largest:
                    raise InvalidError("a memory access of too large an alignment")
                at += 1
                if code[at] > 127:
                    _, at = u32(code, at)
                else:
                    at += 1
            elif op in (0x23, 0x24):  # global.get, global.set
                number, at = u32(code, at)
                if number >= len(globals_):
                    raise InvalidError(f"there is no global {number}")
                kind, mutable = globals_[number]
                if op == 0x23:
                    stack += kind
                else:
                    if not mutable:
                        raise InvalidError(f"global {number} is constant")
                    if not stack or stack[-1] != kind:
                        raise self._mismatch(op, kind, stack)
                    stack = stack[:-1]
            elif op == 0x10:  # call
                number, at = u32(code, at)
                if number >= len(self._in.functions):
                    raise InvalidError(f"there is no function {number}")
                stack = self._called(self._in.functions[number], op, stack)
            elif op == 0x0D:  # br_if
                number, at = u32(code, at)
                label = self._label(number)
                if not stack.endswith(label + "i"):
                    raise self._mismatch(op, label + "i", stack)
                stack = stack[:-1]
            elif op == 0x1A:  # drop
                if not stack:
                    raise self._mismatch(op, "a value", stack)
                stack = stack[:-1]
            elif op != 0x01:  # nop
                self._at, self._cost = at, self._cost + cost
                stack = self._special(op, stack)
                at, cost = self._at, 0
                if not self._frames:
                    return

    def _special(self, op: int, stack: str) -> str:
        """The rest: blocks, what ends one, and what is rare. The stack after it."""
        if op in (_BLOCK, _LOOP, _IF):
            return self._begin(op, stack)
        if op in (_END, _ELSE):
            return self._finish(op, stack)
        if op in (0x00, 0x0C, 0x0E, 0x0F):  # unreachable, br, br_table, return
            self._leave(op, stack)
            self._insert(b"")
            self._copied = self._at = end_of_dead(self._code, self._at)
            self._at += 1
            return self._finish(self._code[self._at - 1], None)
        if op == 0x1B:  # select
            if stack[-1:] != "i" or len(stack) < 3 or stack[-2] != stack[-3]:
                raise self._mismatch(op, "two alike and i", stack)
            return stack[:-2]
        if op == 0x1C:  # select, with its type
            count, kind = self._code[self._at], letter(self._code[self._at + 1])
            if count != 1 or not stack.endswith(kind * 2 + "i"):
                raise self._mismatch(op, kind * 2 + "i", stack)
            start = self._at - 1
            self._at += 2
            self._insert(b"\x1b", instead_from=start)
            return stack[:-2]
        if op in opcodes.FLOATS:
            after, size = opcodes.FLOATS[op]
            self._at += size
            return stack + after
        if op == 0x11:  # call_indirect
            return self._call_indirect(stack)
        if op in (0x3F, 0x40):
            return self._memory(op, stack)
        if op == 0xFC:
            return self._prefixed(stack)
        if op == 0xFD:
            raise UnsupportedError("SIMD instructions (build it without them: -mno-simd128)")
        if op in (0x25, 0x26, 0xD0, 0xD1, 0xD2):
            raise UnsupportedError("instructions for references")
        if op in (0x12, 0x13, 0x14, 0x15):
            raise UnsupportedError("tail calls (build it without them: -mno-tail-call)")
        raise InvalidError(f"0x{op:02x} is no instruction, or of a proposal that is not taken")

    def _begin(self, op: int, stack: str) -> str:
        kind = self._block_type()
        if op == _IF:
            if stack[-1:] != "i":
                raise self._mismatch(op, "i", stack)
            stack = stack[:-1]
        if not stack.endswith(kind.params):
            raise self._mismatch(op, kind.params, stack)
        if len(self._frames) > MAX_NESTING:
            raise UnsupportedError(f"more than {MAX_NESTING} blocks in one another")
        label, check, cost = kind.results, 0, 0
        if op == _LOOP:
            self._insert(b"")
            label, check, cost, self._cost = kind.params, len(self._out), self._cost, 0
            self._out.append(b"")
            self._loops += 1
            self._deepest = max(self._deepest, self._loops)
        below = stack[: len(stack) - len(kind.params)]
        self._frames.append(_Frame(op, label, kind.params, kind.results, below, check, cost))
        return kind.params

    def _finish(self, op: int, stack: str | None) -> str:
        """`end` or `else`; `stack` is None where the code before never gets there."""
        frame = self._frames.pop()
        if stack is not None and stack != frame.results:
            raise InvalidError(
                f"a block ends with {stack or 'nothing'} and not {frame.results or 'nothing'}"
            )
        if op == _ELSE:
            if frame.opcode != _IF:
                raise InvalidError("an else without its if")
            self._frames.append(frame._replace(opcode=_ELSE))
            return frame.params
        if frame.opcode == _IF and frame.params != frame.results:
            raise InvalidError("an if without its else leaves what it did not find")
        if frame.opcode == _LOOP:
            self._out[frame.check] = self._check(self._cost)
            self._cost = frame.cost
            self._loops -= 1
        return frame.below + frame.results

    def _leave(self, op: int, stack: str) -> None:
        """Check what a branch takes along; the cursor goes to its end."""
        wanted = ""
        if op == 0x0F:
            wanted = self._kind.results
        elif op == 0x0C:
            number, self._at = u32(self._code, self._at)
            wanted = self._label(number)
        elif op == 0x0E:
            if stack[-1:] != "i":
                raise self._mismatch(op, "i", stack)
            stack = stack[:-1]
            count, self._at = u32(self._code, self._at)
            if count > len(self._code):
                raise InvalidError("a br_table is longer than its function")
            for _ in range(count + 1):
                number, self._at = u32(self._code, self._at)
                wanted = self._label(number)
                if not stack.endswith(wanted):
                    raise self._mismatch(op, wanted, stack)
        if not stack.endswith(wanted):
            raise self._mismatch(op, wanted, stack)

    def _called(self, kind: Type, op: int, stack: str) -> str:
        if not stack.endswith(kind.params):
            raise self._mismatch(op, kind.params, stack)
        self._calls = True
        return stack[: len(stack) - len(kind.params)] + kind.results

    def _call_indirect(self, stack: str) -> str:
        start = self._at - 1
        number, at = u32(self._code, self._at)
        table, self._at = u32(self._code, at)
        if number >= len(self._in.types):
            raise InvalidError(f"there is no type {number}")
        if table != 0 or not self._in.table:
            raise InvalidError(f"there is no table {table}")
        if stack[-1:] != "i":
            raise self._mismatch(0x11, "i", stack)
        if self._at - at > 1:  # as linkers write what they fill in later
            self._insert(b"\x11" + unsigned(number) + b"\0", instead_from=start)
        return self._called(self._in.types[number], 0x11, stack[:-1])

    def _memory(self, op: int, stack: str) -> str:
        start = self._at - 1
        self._memory_number()
        if op == 0x3F:
            self._insert(b"\x3f\0", instead_from=start)
            return stack + "i"
        if stack[-1:] != "i":
            raise self._mismatch(op, "i", stack)
        self._calls = True
        self._insert(b"\x10" + unsigned(self._in.grow), instead_from=start)
        return stack

    def _memory_number(self) -> None:
        number, self._at = u32(self._code, self._at)
        if number != 0 or not self._in.memory:
            raise InvalidError(f"there is no memory {number}")

    def _prefixed(self, stack: str) -> str:
        start = self._at - 1
        op, self._at = u32(self._code, self._at)
        if op < 8:
            before, count, after = opcodes.SATURATING[op]
            if not stack.endswith(before):
                raise self._mismatch(op, before, stack)
            self._insert(bytes([0xFC, op]), instead_from=start)
            return stack[:-count] + after
        if op not in (10, 11):
            raise UnsupportedError("instructions for passive data or for tables")
        self._memory_number()
        if op == 10:
            self._memory_number()
        if not stack.endswith("iii"):
            raise self._mismatch(op, "iii", stack)
        self._insert(b"\xfc\x0a\0\0" if op == 10 else b"\xfc\x0b\0", instead_from=start)
        return stack[:-3]

    def _unchanged(self, op: int, start: int) -> None:
        """A local that is set to itself. With one more copy of it on the stack wasm3 0.5.0
        takes something else for it from there on."""
        self._insert(b"\x1a" if op == 0x21 else b"", instead_from=start)

    def _canonical(self, kind: str) -> None:
        """x -> x if x == x else the canonical NaN"""
        nan, equal = (
            (opcodes.CANONICAL_32, opcodes.EQUAL_32)
            if kind == "f"
            else (opcodes.CANONICAL_64, opcodes.EQUAL_64)
        )
        local = unsigned(self._locals.temporary(kind))
        again = b"\x20" + local
        self._insert(b"\x22" + local + nan + again + again + equal + b"\x1b")

    def _label(self, number: int) -> str:
        if number >= len(self._frames):
            raise InvalidError(f"there is no block {number} to branch to")
        return self._frames[-1 - number].label

    def _block_type(self) -> Type:
        code = self._code[self._at]
        if code == _EMPTY:
            self._at += 1
            return Type("", "")
        if code in LETTERS:
            self._at += 1
            return Type("", LETTERS[code])
        if 0x40 <= code < 0x80:  # a negative number: another type of value
            letter(code)
        number, self._at = u32(self._code, self._at)
        if number >= len(self._in.types):
            raise InvalidError(f"there is no type {number}")
        return self._in.types[number]

    def _mismatch(self, op: int, wanted: str, stack: str) -> InvalidError:
        held = stack[-8:] or "nothing"
        return InvalidError(f"instruction 0x{op:02x} needs {wanted or 'nothing'}, and has {held}")
