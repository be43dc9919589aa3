"""Which fields a runtime applies."""

from __future__ import annotations

from edge_agent.config import PERMISSIONS
from edge_agent.nri.capabilities import carried_fields, fails_creations


def test_docker_engine_applies_variables_and_mounts_only() -> None:
    carried = carried_fields("docker", "29.7.2", "v0.12.1")
    assert carried == frozenset(("env", "mounts"))
    assert carried < set(PERMISSIONS)
    assert carried_fields("Docker", "", "") == carried


def test_nothing_is_held_against_other_runtimes() -> None:
    for runtime in ("containerd", "cri-o", "something"):
        assert carried_fields(runtime, "v2.3.4", "v0.12.4") is None
        assert not fails_creations(runtime)
    assert fails_creations("docker")
