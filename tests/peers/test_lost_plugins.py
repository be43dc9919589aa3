"""How a runtime takes it when a plugin's connection closes, and what that means for a replacement.

Upstream mended one thing on the way: up to 0.12.4 a validator that has closed its connection fails
the next creation, because it leaves the list of validators only at the end of a request. Both
kinds of runtime are in the field, so both are asked here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.goanswers import Made
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.goplugin import NativePlugin

BOTH = pytest.mark.parametrize("older", [True, False], ids=["nri-0.12.0", "newest-nri"])
LOST = "validator plugin 50-x failed: ttrpc: closed"

# How long a newcomer lets the runtime notice that its predecessor has closed the connection, of
# the 2 s that the runtime waits. Until then this test tells the predecessor, on a busy machine.
NOTICE = "800ms"


@pytest.fixture(scope="module", autouse=True)
def _go() -> None:
    require_go()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "nri.sock"


@BOTH
def test_an_idle_plugin_that_closes_is_not_missed(socket: Path, older: bool) -> None:
    with NriRuntime(socket, older=older) as runtime, NativePlugin(socket, idx="50", name="x") as x:
        runtime.wait_for_plugins("50-x")
        x.drop()
        assert runtime.create_container().error == ""


@BOTH
def test_an_idle_validator_that_closes_fails_one_creation_of_an_older_runtime(
    socket: Path, older: bool
) -> None:
    with (
        NriRuntime(socket, older=older) as runtime,
        NativePlugin(socket, "--validate", idx="50", name="x") as x,
    ):
        runtime.wait_for_plugins("50-x")
        x.drop()
        runtime.wait_for_plugins()
        assert runtime.create_container().error == (LOST if older else "")
        assert runtime.create_container().error == ""


@BOTH
@pytest.mark.parametrize("event", ["PostCreateContainer", "StartContainer", "RunPodSandbox"])
def test_a_validator_leaves_cleanly_by_closing_instead_of_answering(
    socket: Path, older: bool, event: str
) -> None:
    with (
        NriRuntime(socket, older=older) as runtime,
        NativePlugin(socket, "--validate", "--drop", event, idx="50", name="x"),
    ):
        runtime.wait_for_plugins("50-x")
        about: dict[str, Any] = {} if "Pod" in event else {"container": {"id": "c"}}
        outcome = runtime.event(event, pod={"id": "p"}, **about)
        assert outcome.error == ""
        assert [call.error for call in outcome.calls] == ["ttrpc: closed"]
        assert runtime.plugins().count == 0
        assert runtime.create_container().error == ""


@BOTH
def test_a_registration_sweeps_closed_validators_away(socket: Path, older: bool) -> None:
    with (
        NriRuntime(socket, older=older) as runtime,
        NativePlugin(socket, "--validate", idx="50", name="x") as x,
    ):
        runtime.wait_for_plugins("50-x")
        x.drop()
        runtime.wait_for_plugins()
        with NativePlugin(socket, idx="10", name="any"):
            runtime.wait_for_plugins("10-any")
            assert runtime.create_container().error == ""


def version(number: int) -> dict[str, str]:
    return {"version": str(number)}


def versions(made: list[Made]) -> list[str]:
    """The version that adjusted each container, "" for none: two at once are a conflict."""
    return [each.annotations.get("version", "") for each in made]


def test_a_burst_shows_a_gap_and_an_overlap(socket: Path) -> None:
    with NriRuntime(socket) as runtime:
        with NativePlugin(socket, idx="50", name="x", annotations=version(1)):
            runtime.wait_for_plugins("50-x")
            runtime.burst_start()
            runtime.wait_for_burst(10)
            with NativePlugin(socket, idx="50", name="x", annotations=version(2)):
                runtime.wait_for_plugins("50-x", "50-x")
                runtime.wait_for_burst(runtime.burst_made() + 10)
        runtime.wait_for_plugins()
        runtime.wait_for_burst(runtime.burst_made() + 10)
        made = runtime.burst_stop()
    conflicts = {text for each in made for text in each.errors.values()}
    assert conflicts == {'plugins "50-x" and "50-x" both tried to set Annotations version'}
    assert versions(made)[0] == "1"
    assert versions(made)[-1] == ""


@BOTH
@pytest.mark.parametrize("validates", [False, True], ids=["plain", "validator"])
def test_closing_the_old_session_while_the_new_one_is_synchronised_leaves_neither_gap_nor_overlap(
    socket: Path, older: bool, validates: bool
) -> None:
    flags = ["--validate"] if validates else []
    swaps = 3
    with NriRuntime(socket, older=older, owners=False) as runtime:
        plugins = [NativePlugin(socket, *flags, idx="50", name="x", annotations=version(0))]
        try:
            runtime.wait_for_plugins("50-x")
            runtime.burst_start()
            runtime.wait_for_burst(10)
            flags += ["--hang", f"Synchronize={NOTICE}"]
            for number in range(1, swaps + 1):
                new = NativePlugin(socket, *flags, idx="50", name="x", annotations=version(number))
                plugins.append(new)
                new.wait_for("Synchronize")
                plugins[-2].drop()
                runtime.wait_for_burst(runtime.burst_made() + 10)
            made = runtime.burst_stop()
        finally:
            for plugin in plugins:
                plugin.kill()
    assert [each.errors for each in made if each.errors] == []
    seen = versions(made)
    assert seen == sorted(seen)
    assert set(seen) == {str(number) for number in range(swaps + 1)}


def test_between_synchronisation_and_registration_only_a_careless_runtime_goes_on(
    socket: Path,
) -> None:
    made = {}
    for careless in (False, True):
        with (
            NriRuntime(socket, careless=careless, linger_ms=3000, owners=False) as runtime,
            NativePlugin(socket, idx="50", name="x", annotations=version(1)),
        ):
            runtime.wait_for_plugins("50-x")
            runtime.burst_start(pause_us=1000)
            # Entered when it has been asked to synchronise: from here on it waits to be registered.
            with NativePlugin(socket, idx="50", name="x"):
                before = runtime.burst_made()
                if careless:
                    runtime.wait_for_burst(before + 1)
                else:
                    time.sleep(0.2)
                made[careless] = runtime.burst_made() - before
                assert runtime.plugins().present == ["50-x"]
                runtime.wait_for_plugins("50-x", "50-x")
            assert all(each.annotations == version(1) for each in runtime.burst_stop())
    assert made[False] == 0
    assert made[True] > 0
