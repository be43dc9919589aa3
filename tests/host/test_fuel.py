"""A limit of fuel on a hosted plugin, on each engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import Limits
from edge_agent.errors import EngineError
from edge_agent.wasm.engine_selection import engine_names, select_engine
from tests.host.house import House

LOOP = "create_container:loop\n"
# Ends long before the time is up, whatever the machine, and is enough to be configured.
FUEL = Limits(fuel=1_000_000, deadline_ms=60_000)


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        select_engine(name)
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    return name


def artifacts(folder: Path) -> int:
    return len(list((folder / "state" / "artifacts").glob("*.artifact")))


def test_a_plugin_out_of_fuel_is_counted_made_anew_and_the_others_go_on(
    tmp_path: Path, engine: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(
            house.release("10-loop", "hostile", LOOP, limits=FUEL, failure_policy="Ignore"),
            house.release("20-edge", "edge"),
        )
        pod = house.during(lambda: house.runtime.run_pod("web")).pod
        for number in range(1, 3):
            made = house.during(lambda: house.runtime.create_container(pod, "app"))
            assert not made.error
            assert made.container.annotations["edge.test/count"] == str(number)
            house.until(
                lambda number=number: house.entry("10-loop")["restarts"] == number,  # type: ignore[misc]
                "a new guest",
            )
        assert house.entry("10-loop")["failures"] == {"fuel": 2}
        [told, _] = [each for each in house.results if each.kind == "fuel"]
        assert told.error.endswith(": stopped after 1000000 instructions, its limit of fuel")


def test_a_limit_can_be_set_changed_and_lifted_while_it_runs(tmp_path: Path, engine: str) -> None:
    with House(tmp_path, engine=engine) as house:
        free = house.release("10-bench", "bench")
        house.run(free)
        plain = artifacts(tmp_path)
        limited = replace(free, settings=replace(free.settings, limits=FUEL))
        house.run(limited)
        counting = artifacts(tmp_path)
        assert counting in (plain, plain + 1)  # an engine may always count
        more = replace(FUEL, fuel=FUEL.fuel + 1)
        house.run(replace(free, settings=replace(free.settings, limits=more)))
        house.run(free)
        assert artifacts(tmp_path) == counting
        assert house.entry("10-bench")["failures"] == {}


def test_too_little_to_be_configured_is_told(tmp_path: Path, engine: str) -> None:
    with House(tmp_path, engine=engine) as house:
        house.apply(house.release("10-bench", "bench", limits=Limits(fuel=10)))
        house.until(
            lambda: "stopped after 10 instructions" in str(house.entry("10-bench").get("error")),
            "it is told",
        )
        assert house.status("10-bench") != "running"
