"""A plugin replaced again and again, with bad releases in between that come to nothing.

The supervisor is told what an updater would tell it: a release on probation, and after a verdict
against it the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from edge_agent.pb import nri_pb2
from edge_agent.store.release import Probation, Release
from tests.host.house import House
from tests.host.versions import version
from tests.support.wat import MEMORY, PLUGIN, constant, module

IDENTITY = "10-bench"
VERSIONS = 8  # modules; each is compiled once
TERMS = Probation(events=0, seconds=3600, allowed_failures=0)
LATE = 900
"""The version that takes over, adjusts a few containers, and then traps."""


class Swaps:
    """`more` waits, while the loop turns, until a few more containers were made. `others` run
    beside it all the while."""

    def __init__(
        self,
        house: House,
        folder: Path,
        more: Callable[[], None],
        others: Sequence[Release] = (),
    ) -> None:
        self.ran: list[int] = []
        """The versions in the order in which they must be seen."""
        self._house = house
        self._folder = folder
        self._more = more
        self._others = others
        self._good = [self._release(str(number), version(number)) for number in range(VERSIONS)]
        trap = '(func (export "plugin_configure") (param i32 i32) (result i64) unreachable)'
        self._bad = [
            self._release("no-module", b"not a module"),
            self._release("fails-to-start", constant({"plugin_create_container": b""}, "", trap)),
            self._release("fails-when-shown", _traps_at(1)),
        ]
        self._late = self._release("fails-later", _traps_at(4))

    def begin(self) -> None:
        """The first version, before any container."""
        self._house.run(self._good[0], *self._others)
        self.ran.append(0)

    def go(self, swaps: int, failures_every: int, late_every: int) -> None:
        """So many replacements. Every so many, one of the bad releases is tried; less often
        the one that takes over first."""
        for number in range(1, swaps + 1):
            good = self._good[number % VERSIONS]
            self._house.run(good, *self._others)
            self.ran.append(number % VERSIONS)
            self._more()
            if number % failures_every == 0:
                self._fail(self._bad[number // failures_every % len(self._bad)], good)
                self._more()
            if number % late_every == 0:
                self._fail(self._late, good)
                self.ran += [LATE, number % VERSIONS]
                self._more()

    def _fail(self, bad: Release, before: Release) -> None:
        house = self._house
        verdicts = len(house.verdicts)
        house.apply(replace(bad, probation=TERMS), *self._others)
        house.until(lambda: len(house.verdicts) > verdicts, "a verdict")
        verdict = house.verdicts[-1]
        assert (verdict.digest, verdict.kept) == (bad.digest, False)
        house.run(before, *self._others)

    def _release(self, name: str, wasm: bytes) -> Release:
        path = self._folder / f"{name}.wasm"
        path.write_bytes(wasm)
        return self._house.release(IDENTITY, path)


def seen(versions: Sequence[int]) -> list[int]:
    """Without repetitions: in what order versions came and went."""
    return [number for number, _ in groupby(versions)]


def _traps_at(call: int) -> bytes:
    """Version LATE; it traps at this CreateContainer and at all later ones."""
    adjust = nri_pb2.ContainerAdjustment(annotations={f"edge.bench/plg{LATE}": "c"})
    reply = nri_pb2.CreateContainerResponse(adjust=adjust).SerializeToString()
    text = "".join(f"\\{byte:02x}" for byte in reply)
    return module(
        f"""{PLUGIN} {MEMORY} (data (i32.const 1024) "{text}")
        (global $calls (mut i32) (i32.const 0))
        (func (export "plugin_create_container") (param i32 i32) (result i64)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (if (i32.ge_u (global.get $calls) (i32.const {call})) (then unreachable))
          (i64.const {1024 << 32 | len(reply)}))"""
    )
