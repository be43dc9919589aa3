"""What is Wasmer's own; tests/wasm/test_native.py has what it shares with wasmi."""

import subprocess
import sys

import pytest

from edge_agent.errors import EngineError
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.engines.native import WasmerEngine
from tests.wasm.lab import ROOT


def wasmer(wide: bool | None = None) -> WasmerEngine:
    try:
        return WasmerEngine(wide)
    except EngineError as error:
        pytest.skip(f"needs wasmer: {error}")


def test_auto_prefers_it_where_it_is_installed() -> None:
    engine = wasmer()
    chosen, why = select_engine("auto")
    assert chosen.name == "wasmer"
    assert why == f"wasmer {engine.version}, the first that is installed"


def test_settings_are_part_of_an_artifacts_key() -> None:
    assert wasmer(True).settings() != wasmer(False).settings()


@pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")
def test_addresses_are_saved_where_they_are_limited() -> None:
    wasmer()  # or skip
    check = """
import resource, sys, tempfile
from pathlib import Path
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from edge_agent.wasm.engine_selection import select_engine
from tests.wasm.lab import Bench, Lab, capture, guest
engine = select_engine("wasmer")[0]
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(engine, Path(folder)))
    for _ in range(8):
        assert lab.start(guest("bench")).call("create_container", capture("create_container"))
print(engine.wide)
"""
    for arguments, expected in (([], "True"), (["limited"], "False")):
        done = subprocess.run(
            [sys.executable, "-c", check, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.strip() == expected


# ---- signals ----

SURVIVES = """
import faulthandler, sys, tempfile
from pathlib import Path
from edge_agent.errors import GuestFault
from edge_agent.wasm.engine_selection import select_engine
from tests.wasm.lab import Bench, Lab

when, rule, others = sys.argv[1:]
if when == "before":
    faulthandler.enable()
with tempfile.TemporaryDirectory() as folder:
    engines = [select_engine(name)[0] for name in others.split(",")]
    labs = [Lab(Bench(engine, Path(folder) / engine.name)) for engine in engines]
    for each in labs:
        each.bench.folder.mkdir()
    if when == "between":
        faulthandler.enable()
    for each in labs:
        each.hostile(f"create_container:{rule}")
    if when == "after":
        faulthandler.enable()
    for turn in range(3):
        for each in labs:
            running = each.hostile(f"create_container:{rule}")
            try:
                running.call("create_container", b"x")
            except GuestFault as fault:
                print(fault.kind, fault)
            else:
                sys.exit("no fault")
"""


def _traps(when: str, rule: str, engines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SURVIVES, when, rule, engines],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("rule", ["oob", "recurse", "recurse-frames", "trap"])
@pytest.mark.parametrize("when", ["never", "before", "between", "after"])
def test_traps_are_survived_whenever_pythons_fault_handler_is_enabled(when: str, rule: str) -> None:
    wasmer()  # or skip
    assert len(_traps(when, rule, "wasmer")) == 3


@pytest.mark.parametrize("order", ["wasmer,wasmtime", "wasmtime,wasmer"])
def test_two_engines_that_want_the_same_signals_live_together(order: str) -> None:
    wasmer()  # or skip
    try:
        select_engine("wasmtime")
    except EngineError as error:
        pytest.skip(f"needs wasmtime: {error}")
    for rule in ("oob", "recurse", "trap"):
        lines = _traps("never", rule, order)
        assert len(lines) == 6
        assert lines[0::2] == lines[1::2]
