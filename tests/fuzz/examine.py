"""One module through the reader and all engines: what they make of it is compared."""

import hashlib
import random
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.errors import GuestError, GuestFault, ModuleError
from edge_agent.wasm.abi import methods
from edge_agent.wasm.engine import Bounds, Engine, HostFunction, HostFunctions
from edge_agent.wasm.metering import meter
from edge_agent.wasm.module import FuncType, ModuleInfo, inspect

_STACK_BYTES = 512 << 10  # the default of the agent
_MEMORY_BYTES = 16 << 20
_REPLY_BYTES = 1 << 20
_FUEL = 1_000_000  # for each method; what counts its own turns needs less
_DEADLINE_S = 0.25  # of code that counts nothing
_METERED_DEADLINE_S = 30.0  # never reached: it runs out of fuel

# Where these stand, engines need not agree: how much stack a call takes, and how fast it is, are
# their own.
_OWN_WAYS = ("call stack exhausted", "timeout")


@dataclass(frozen=True)
class Step:
    """What became of a call: a reply or a fault, what the host was called with, the memory."""

    what: str
    ended: str
    calls: str
    memory: str
    fuel: int = 0

    @property
    def comparable(self) -> bool:
        return not any(words in self.ended for words in _OWN_WAYS)


@dataclass
class Report:
    """What one input led to."""

    findings: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def examine(
    wasm: bytes, engines: Mapping[str, Engine], folder: Path, *, valid: bool, report: Report
) -> None:
    """Read, compile and run a module in all ways there are, and compare.

    `valid`: nothing may refuse it.
    """
    try:
        info = inspect(wasm)
    except ModuleError as error:
        report.counts["refused by the reader"] += 1
        if valid:
            report.findings.append(f"the reader refuses a valid module: {error}")
        return
    try:
        counting = meter(wasm)
    except ModuleError as error:
        counting = None
        if valid:
            report.findings.append(f"metering refuses a valid module: {error}")
    plain = _compile(wasm, engines, report)
    metered = _compile(counting, engines, report) if counting is not None else {}
    for name, artifact in plain.items():
        if valid and artifact is None:
            report.findings.append(f"{name} refuses a valid module")
        if name in metered and (metered[name] is None) != (artifact is None):
            report.findings.append(f"{name} takes only one of the module and the metered one")
    if None in plain.values():
        report.counts["refused by the engines"] += 1
        return
    try:
        names = methods(info)
    except ModuleError:
        report.counts["no plugin"] += 1
        return
    report.counts["run"] += 1
    runs: dict[str, list[Step]] = {}
    for way, artifacts in (("metered", metered), ("plain", plain)):
        of_this_way = {}
        for name, engine in engines.items():
            artifact = artifacts.get(name)
            if artifact is not None:
                path = folder / "artifact"
                path.write_bytes(artifact)
                fuel = _FUEL if way == "metered" else None
                of_this_way[name] = _Run(engine, path, info, fuel, names).steps
                path.unlink()
        _compare(way, of_this_way, report)
        runs |= {f"{name}, {way}": steps for name, steps in of_this_way.items()}
    for name in engines:
        both = {
            way: [_without_fuel(step) for step in runs[f"{name}, {way}"]]
            for way in ("plain", "metered")
            if f"{name}, {way}" in runs
        }
        _compare(name, both, report)
    for steps in runs.values():
        for step in steps:
            report.counts["calls"] += 1
            report.counts["faults"] += not step.ended.startswith("reply")
            report.counts["left out"] += not step.comparable


def _compile(wasm: bytes, engines: Mapping[str, Engine], report: Report) -> dict[str, bytes | None]:
    """Of each engine its artifact; None: refused."""
    made: dict[str, bytes | None] = {}
    said = {}
    for name, engine in engines.items():
        try:
            made[name] = engine.compile(wasm)
        except ModuleError as error:
            made[name] = None
            said[name] = str(error)
    if said and len(said) < len(made):
        takers = ", ".join(name for name, artifact in made.items() if artifact is not None)
        report.findings.append(f"taken by {takers}, refused by {said}")
    return made


def _compare(what: str, runs: Mapping[str, list[Step]], report: Report) -> None:
    """All as the first of them, up to where engines have their own ways."""
    if not runs:
        return
    reach = min(map(_reach, runs.values()))
    (first, expected), *others = runs.items()
    for name, steps in others:
        if all(_reach(one) == len(one) for one in (expected, steps)) and len(steps) != len(
            expected
        ):
            report.findings.append(
                f"{what}: {first} made {len(expected)} steps, {name} {len(steps)}: "
                f"{expected[-1:]} {steps[-1:]}"
            )
        for one, other in zip(expected[:reach], steps[:reach], strict=False):
            if one != other:
                report.findings.append(f"{what}: {first}: {one}; {name}: {other}")
                break


def _reach(steps: list[Step]) -> int:
    """How many of them are the same on each engine."""
    for number, step in enumerate(steps):
        if not step.comparable or step.ended.startswith("fuel"):
            return number + (step.ended.startswith("fuel") and step.fuel > 0)
    return len(steps)


def _without_fuel(step: Step) -> Step:
    return Step(step.what, step.ended, step.calls, step.memory)


class _Run:
    """All methods of a plugin, one after the other; after a fault in a fresh instance."""

    def __init__(
        self,
        engine: Engine,
        artifact: Path,
        info: ModuleInfo,
        fuel: int | None,
        names: frozenset[str],
    ) -> None:
        self.steps: list[Step] = []
        self._calls: list[tuple[Any, ...]] = []
        self._instance: Any = None
        module = engine.load(artifact, info, _STACK_BYTES)
        deadline_s = _DEADLINE_S if fuel is None else _METERED_DEADLINE_S
        bounds = Bounds(_MEMORY_BYTES, _REPLY_BYTES, fuel)
        try:
            for name in sorted(names):
                if self._instance is None:
                    try:
                        self._instance = module.instantiate(bounds, self._functions(), deadline_s)
                    except (GuestFault, ModuleError) as error:
                        self._note("start", _said(error))
                        return
                try:
                    reply = self._instance.call(name, b"", deadline_s)
                    ended = f"reply {reply.hex() if len(reply) < 256 else _digest(reply)}"
                except (GuestError, GuestFault) as error:
                    ended = _said(error)
                self._note(name, ended)
                if not self.steps[-1].comparable:
                    return
                if not ended.startswith(("reply", "error")):
                    self._instance.close()
                    self._instance = None
        finally:
            if self._instance is not None:
                self._instance.close()
            module.close()

    def _note(self, what: str, ended: str) -> None:
        memory, fuel = "", 0
        if self._instance is not None:
            memory = _digest(self._instance.read(0, self._instance.memory_bytes))
            fuel = self._instance.fuel_used
        self.steps.append(Step(what, ended, _digest(repr(self._calls).encode()), memory, fuel))

    def _functions(self) -> HostFunctions:
        return {
            ("fuzz", name): HostFunction(kind, self._noted(name, call))
            for name, (kind, call) in _HOST.items()
        }

    def _noted(self, name: str, call: Callable[..., int | None]) -> Callable[..., int | None]:
        def noted(guest: Any, *arguments: int) -> int | None:
            if len(self._calls) < 1000:
                self._calls.append((name, *arguments))
            return call(guest, *arguments)

        return noted


def _method(guest: Any, pointer: int, size: int) -> int:
    """What the guest has there, as a number. GuestFault: it has nothing there."""
    data: bytes = guest.read(pointer & 0xFFFFF, size & 63)
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def _grow(guest: Any) -> int:
    """As all replies come: into memory of the guest's own malloc."""
    pointer: int = guest.allocate(16)
    guest.write(pointer, struct.pack("<QQ", pointer, 42))
    return pointer << 32 | 16


def _wide(_guest: Any, first: int, second: int) -> int:
    return random.Random(first << 32 | second).getrandbits(32)


# As native/fuzz/src/random.rs has it.
_HOST: dict[str, tuple[FuncType, Callable[..., int | None]]] = {
    "method": (FuncType(("i32", "i32"), ("i64",)), _method),
    "log": (FuncType(("i32", "i32", "i32"), ()), lambda _guest, *_arguments: None),
    "wide": (FuncType(("i64", "i32"), ("i32",)), _wide),
    "grow": (FuncType((), ("i64",)), _grow),
}


def _said(error: GuestError | GuestFault | ModuleError) -> str:
    if isinstance(error, GuestFault):
        return f"{error.kind}: {error}"
    return f"{'error' if isinstance(error, GuestError) else 'module'}: {error}"


def _digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.blake2s(data, digest_size=8).hexdigest()}"
