"""Code that can never run: where it ends. It is left out, and not looked at otherwise."""

import re

from edge_agent.wasm.instrument.binary import InvalidError, u32

_BEGIN, _ELSE, _END, _TABLE = (0x02, 0x03, 0x04), 0x05, 0x0B, 0x0E
_LEB = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
# Any number of instructions that neither begin nor end a block.
_STRAIGHT = re.compile(
    rb"(?s:[\x00\x01\x0f\x1a\x1b\x45-\xc4\xd1]|[\x0c\x0d\x10\x20-\x26\x3f-\x42\xd0\xd2]"
    + _LEB
    + rb"|[\x11\x28-\x3e]"
    + _LEB
    + _LEB
    + rb"|\x43.{4}|\x44.{8}|\x1c\x01.|\xfc(?:[\x00-\x07]|[\x09\x0b\x0d\x0f-\x11]"
    + _LEB
    + rb"|[\x08\x0a\x0c\x0e]"
    + _LEB
    + _LEB
    + rb"))*+"
)


def end_of_dead(code: bytes, at: int) -> int:
    """Where the `end` or `else` is that ends the block which goes on at `at` but never runs.

    IndexError: there is none.
    """
    depth = 0
    while True:
        run = _STRAIGHT.match(code, at)
        assert run is not None  # it matches nothing too
        at = run.end()
        op = code[at]
        if op in _BEGIN:
            depth += 1
            at += 1
            while code[at] > 127:
                at += 1
        elif op in (_END, _ELSE):
            if depth == 0:
                return at
            depth -= op == _END
        elif op == _TABLE:
            count, at = u32(code, at + 1)
            for _ in range(min(count, len(code)) + 1):
                _, at = u32(code, at)
            continue
        else:
            raise InvalidError(f"0x{op:02x} is no instruction that is taken")
        at += 1
