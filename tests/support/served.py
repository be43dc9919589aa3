"""Whether a plugin itself answers: a placeholder is a session, too, and refuses instead."""

from __future__ import annotations

from edge_agent.sim.runtime import SimRuntime
from tests.support.wait import wait_until


def wait_until_it_changes(runtime: SimRuntime, variable: str = "EDGE_BENCH=c") -> None:
    """Create containers until one has the variable that the guest `bench` gives."""
    runtime.wait_for_plugins(1)

    def changes() -> bool:
        outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
        return outcome.ok and variable in outcome.container.env

    wait_until(changes, f"a container has {variable}")
