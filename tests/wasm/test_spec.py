"""The official WebAssembly test suite on every engine, as far as a plugin's shape allows.

native/fuzz turns the suite (the core files of version 2.0 and those of SIMD) into plugins: each
assertion is a method that answers nothing, or an error where the result is another.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_agent.errors import EdgeAgentError, GuestFault, ModuleError
from edge_agent.wasm.compiler_process import compile_here
from edge_agent.wasm.engine import Bounds, Engine, HostFunction, Instance, Module
from edge_agent.wasm.module import FuncType, inspect
from tests.support import engines, fuzzmodules
from tests.wasm.lab import PATIENCE_S, STACK_BYTES

pytestmark = [pytest.mark.system, pytest.mark.not_emulated("needs cargo, and minutes")]

# Of the pinned version of the suite. What did not run has passed nothing.
EXECUTED = {
    "return": 44994,
    "invoke": 126,
    "trap": 1512,
    "exhaustion": 15,
    "refused": 2861,
    "uninstantiable": 19,
}
LEFT_OUT = {
    "imports that a plugin's host does not offer": 1582,
    "text format": 1090,
    "linking of modules": 141,
    "references of the host": 184,
}
# The suite's words for a trap, as they begin, and the agent's.
TRAPS = {
    "call stack exhausted": "call stack exhausted",
    "indirect call": "indirect call of another type",
    "integer divide by zero": "integer division by zero",
    "integer overflow": "integer overflow",
    "invalid conversion to integer": "invalid conversion to integer",
    "out of bounds memory access": "memory access out of bounds",
    "out of bounds table access": "table access out of bounds",
    "undefined element": "table access out of bounds",
    "uninitialized element": "indirect call to null",
    "unreachable": "unreachable executed",
}
BOUNDS = Bounds(memory_bytes=4 << 30, reply_bytes=0)
FUNCTIONS = {
    ("spectest", "print"): HostFunction(FuncType((), ()), lambda _guest: None),
    ("spectest", "print_i32"): HostFunction(FuncType(("i32",), ()), lambda _guest, _one: None),
    ("spectest", "print_i64"): HostFunction(FuncType(("i64",), ()), lambda _guest, _one: None),
}


class Step(NamedTuple):
    """A line of the manifest about a module; native/fuzz/src/spec.rs explains the kinds."""

    kind: str
    method: str
    line: int
    text: str


class Suite:
    """The suite as files: the steps of each module, in their order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: dict[str, list[Step]] = {}
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        for line in (folder / "manifest").read_text().splitlines():
            kind, *rest = line.split("\t")
            if kind == "left-out":
                self.left_out[rest[1]] += 1
            elif kind != "file":
                module, *more = rest
                method = more.pop(0) if more[0].startswith("plugin_") else ""
                step = Step(kind, method, int(more[0]), more[1])
                self.steps.setdefault(module, []).append(step)
                self.counts[kind] += 1


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    if shutil.which("cargo") is None:
        pytest.skip(fuzzmodules.CARGO_MISSING)
    folder = tmp_path_factory.mktemp("spec") / "suite"
    subprocess.run([fuzzmodules.program(), "spec", folder], check=True)
    yield Suite(folder)
    shutil.rmtree(folder)


def test_what_runs_of_the_suite_is_what_ran_before(suite: Suite) -> None:
    assert suite.counts == EXECUTED
    assert suite.left_out == LEFT_OUT


@pytest.mark.parametrize(
    ("name", "metered"),
    [("wasmtime", False), ("wasmer", False), ("wasmi", False), ("wasmi", True)],
)
def test_an_engine_does_what_the_suite_says(
    name: str, metered: bool, suite: Suite, tmp_path: Path
) -> None:
    engine = engines.make(name)
    if isinstance(engine, str):
        pytest.skip(engine)
    wrong = []
    executed: Counter[str] = Counter()
    for module, steps in suite.steps.items():
        if metered and steps[0].kind == "refused":
            continue  # metering leaves custom sections out, and writes numbers anew
        wasm = (suite.folder / module).read_bytes()
        for step, says in play(engine, wasm, metered, steps, tmp_path / "code"):
            executed[step.kind] += 1
            if says:
                wrong.append(f"{module}, line {step.line}, {step.kind} {step.text}: {says}")
    assert not wrong, "\n".join(wrong)
    refused = {"refused": 0} if metered else {}
    assert executed == Counter(EXECUTED | refused)


def play(
    engine: Engine, wasm: bytes, metered: bool, steps: list[Step], artifact: Path
) -> Iterator[tuple[Step, str]]:
    """Each step of a module, and what was wrong with it."""
    if steps[0].kind == "refused":
        try:
            inspect(wasm)
            compile_here(engine, wasm, metered=metered)
        except ModuleError:
            yield steps[0], ""
        else:
            yield steps[0], "taken"
        return
    artifact.write_bytes(compile_here(engine, wasm, metered=metered))
    module = engine.load(artifact, inspect(wasm), STACK_BYTES)
    artifact.unlink()
    if steps[0].kind == "uninstantiable":
        try:
            start(module).close()
        except GuestFault as fault:
            # Engines have their own words here.
            yield steps[0], "" if fault.kind == "trap" else f"{fault.kind}: {fault}"
        else:
            yield steps[0], "it starts"
        return
    stage = Stage(module)
    for step in steps:
        yield step, stage.play(step)
    stage.close()
    module.close()


def start(module: Module) -> Instance:
    return module.instantiate(BOUNDS, FUNCTIONS, PATIENCE_S)


class Stage:
    """A module's instance. After a trap it is of no use to the agent, but the suite goes on: a
    fresh one is brought to where the other was by the calls that did not trap."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._instance: Instance | None = None
        self._played: list[str] = []

    def play(self, step: Step) -> str:
        """What was wrong."""
        try:
            if self._instance is None:
                self._instance = start(self._module)
                for method in self._played:
                    self._instance.call(method, b"", PATIENCE_S)
            self._instance.call(step.method, b"", PATIENCE_S)
        except GuestFault as fault:
            self.close()
            return trap_is_other(step, fault)
        except EdgeAgentError as error:
            return repr(error)
        self._played.append(step.method)
        return "" if step.kind in ("return", "invoke") else "no trap"

    def close(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None


def trap_is_other(step: Step, fault: GuestFault) -> str:
    """Nothing, if it is the trap that the step expects."""
    expected = next((ours for theirs, ours in TRAPS.items() if step.text.startswith(theirs)), "?")
    return "" if fault.kind == "trap" and expected in str(fault) else f"{fault.kind}: {fault}"
