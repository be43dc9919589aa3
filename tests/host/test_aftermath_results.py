"""What became of a reply, as results of the fleet protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_agent.fleet_protocol.event_result import describe
from edge_agent.store.release import Release
from tests.host.house import House


def results(house: House, plugin: str) -> list[dict[str, Any]]:
    described = [describe(each) for each in house.results if each.plugin == plugin]
    return [each for each in described if each is not None and each["event"] != "Configure"]


def of_kind(house: House, plugin: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in results(house, plugin) if each["outcome"] == kind]


def ignored(house: House, identity: str, name: str, config: str = "") -> Release:
    """A plugin that no placeholder stands in for while it is compiled: it would refuse."""
    return house.release(identity, name, config, failure_policy="Ignore")


def create(house: House, **more: Any) -> None:
    pod = house.during(lambda: house.runtime.run_pod("web")).pod
    house.during(lambda: house.runtime.create_container(pod, "app", **more))


def test_a_conflict_is_a_result_of_both_plugins_beside_their_adjustments(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(ignored(house, "10-first", "bench"), ignored(house, "20-second", "bench"))
        create(house)
        house.until(
            lambda: all(of_kind(house, each, "conflict") for each in ("10-first", "20-second")),
            "both are told",
        )
        (first,) = of_kind(house, "10-first", "conflict")
        assert first["with"] == ["20-second"]
        assert set(first["fields"]) == {"annotations edge.bench/plugin", "env EDGE_BENCH"}
        assert (first["event"], first["container"]["name"]) == ("CreateContainer", "app")
        assert first["runtime"] == str(house.runtime.path)
        (second,) = of_kind(house, "20-second", "conflict")
        assert second["with"] == ["10-first"]
        assert len(of_kind(house, "20-second", "adjusted")) == 1


def test_a_validators_rejection_is_a_result_of_its_own_and_names_whose_it_was(
    tmp_path: Path,
) -> None:
    with House(tmp_path) as house:
        house.run(
            ignored(house, "10-bench", "bench"),
            ignored(house, "90-validator", "validator", "deny env EDGE_BENCH\n"),
        )
        create(house)
        house.until(lambda: bool(of_kind(house, "90-validator", "rejected")), "it is told")
        (rejected,) = of_kind(house, "90-validator", "rejected")
        assert rejected["event"] == "ValidateContainerAdjustment"
        assert rejected["error"].startswith("env EDGE_BENCH is denied")
        assert rejected["with"] == ["10-bench"]
        (told,) = of_kind(house, "10-bench", "validation")
        assert told["with"] == ["90-validator"]
        assert told["container"]["name"] == "app"
