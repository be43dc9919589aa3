import sys

import pytest

from edge_agent.errors import EngineError, NotInstalledError
from edge_agent.wasm.engine_selection import Adapter, engine_names, select_engine
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
from tests.support import engines
from tests.support.costly import wasmtime

WASMTIME = Adapter("wasmtime", "edge_agent.wasm.engines.wasmtime", "WasmtimeEngine")
ABSENT = Adapter("absent", "edge_agent.wasm.engines.absent", "AbsentEngine")


def test_auto_takes_an_installed_engine_and_says_which() -> None:
    wasmtime()  # or skip
    engine, why = select_engine("auto")
    assert engine.name in engine_names()
    assert why.startswith(f"{engine.name} {engine.version}, the first that is installed")


def test_auto_passes_over_what_is_not_installed_and_says_why() -> None:
    wasmtime()  # or skip
    engine, why = select_engine("auto", (ABSENT, WASMTIME))
    assert isinstance(engine, WasmtimeEngine)
    assert "absent: the engine absent cannot be loaded: No module named" in why


def test_what_to_install_is_told_to_who_asks_for_advice_alone() -> None:
    """doctor, and not the log of each start."""
    wasmtime()  # or skip
    missing = Adapter("missing", __name__, "Missing")
    assert "missing" not in select_engine("auto", (missing, WASMTIME))[1]
    why = select_engine("auto", (missing, WASMTIME), advice=True)[1]
    assert why.endswith("; missing: missing is not installed: install it")
    with pytest.raises(EngineError, match=r"no Wasm engine works here: missing: .*: install it"):
        select_engine("auto", (missing,))


class Missing:
    """An adapter whose engine is not there."""

    def __init__(self) -> None:
        raise NotInstalledError("missing is not installed: install it")


def test_auto_without_any_engine_lists_what_is_missing() -> None:
    with pytest.raises(EngineError, match="no Wasm engine works here: absent: "):
        select_engine("auto", (ABSENT,))


def test_a_named_engine_is_that_one() -> None:
    wasmtime()  # or skip
    engine, why = select_engine("wasmtime")
    assert isinstance(engine, WasmtimeEngine)
    assert why.endswith("as configured")


def test_a_named_engine_that_is_not_installed_is_an_error_and_not_another_engine() -> None:
    with pytest.raises(EngineError, match="the engine absent cannot be loaded"):
        select_engine("absent", (ABSENT, WASMTIME))


@pytest.mark.parametrize("name", engine_names())
def test_each_engine_that_is_not_installed_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in engines.PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    with pytest.raises(NotInstalledError, match=r"is not installed.*: (pip )?install "):
        select_engine(name)


def test_an_engine_without_an_adapter_says_what_to_write() -> None:
    with pytest.raises(EngineError, match=r'no adapter for the engine .*"auto" or one of wasmtime'):
        select_engine("v8", (WASMTIME,))


def test_an_engine_of_earlier_versions_is_answered_with_what_to_write() -> None:
    # A board whose configuration names it goes on, and says what to change.
    engine, why = (
        select_engine("wasm3") if not isinstance(engines.make("wasmi"), str) else (None, "")
    )
    if engine is None:
        pytest.skip("needs wasmi")
    assert engine.name == "wasmi"
    assert why.endswith('as configured: wasm3 is no more, set engine to "auto" or "wasmi"')
