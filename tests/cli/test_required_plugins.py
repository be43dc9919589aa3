"""What `doctor` proposes so that containerd misses a plugin while the agent is down."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

from edge_agent.cli.checks import check_required
from edge_agent.cli.runtimefiles import required
from edge_agent.cli.runtimes import NRI_SOCKET
from tests.cli.test_doctor import CONTAINERD, WELL, told

FAIL = {"name": "guard", "index": "10", "status": "running", "runtime": str(NRI_SOCKET)}
IGNORED = {**FAIL, "name": "logger", "index": "20", "failure_policy": "Ignore"}
MONITORED = {**FAIL, "name": "watched", "index": "25", "mode": "monitor"}
SKIPPED = {**FAIL, "name": "docker", "index": "30", "status": "skipped"}


def runtime(version: str, name: str = "containerd") -> dict[str, Any]:
    return {"name": name, "version": version, "socket": str(NRI_SOCKET), "state": "connected"}


def test_what_it_proposes_is_what_containerd_reads() -> None:
    facts = told(runtimes=[runtime("v2.3.4")], plugins=[FAIL, IGNORED, MONITORED, SKIPPED])
    [finding] = check_required(facts)
    assert finding.level == "ok"
    assert "while the agent is down, containerd v2.3.4 creates containers without 10-guard" in (
        finding.text
    )
    proposed = tomllib.loads("\n".join(finding.todo.splitlines()[1:-1]))
    nri = proposed["plugins"]["io.containerd.nri.v1.nri"]
    assert required(nri) == {"10-guard"}
    # Once that is done, there is nothing to propose.
    done = replace(facts, runtimes=(replace(CONTAINERD, required=required(nri)),))
    assert [each.todo for each in check_required(done)] == [""]
    by_name = replace(facts, runtimes=(replace(CONTAINERD, required=frozenset({"guard"})),))
    assert [each.todo for each in check_required(by_name)] == [""]


def test_a_validator_that_is_off_requires_nothing() -> None:
    assert required({"default_validator": {"required_plugins": ["guard"]}}) == frozenset()
    for odd in ({}, {"default_validator": 1}, {"default_validator": {"enable": True}}):
        assert required(odd) == frozenset()


def test_where_there_is_no_such_validator_nothing_is_proposed() -> None:
    for each in (runtime("v2.1.9"), runtime("1.7.24"), runtime("29.7", "docker")):
        assert list(check_required(told(runtimes=[each], plugins=[FAIL]))) == []
    assert list(check_required(told(runtimes=[runtime("v2.3.4")], plugins=[IGNORED]))) == []
    assert list(check_required(replace(WELL, status=None))) == []
