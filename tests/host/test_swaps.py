"""A hundred replacements and failed ones, with containers created without pause."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.sim.plugin_connection import Outcome
from edge_agent.sim.runtime import SimRuntime
from tests.host.house import House
from tests.host.swaps import IDENTITY, Swaps, seen
from tests.host.versions import versions_of
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

SWAPS = 100
LIFE = ["PostCreateContainer", "StartContainer"]


@pytest.mark.system
@pytest.mark.parametrize(
    ("careless", "linger_ms", "crowd"),
    [(False, 0, 0), (False, 0, 14), (True, 20, 0)],
    ids=["containerd", "containerd, among many", "cri-o"],
)
def test_every_container_is_adjusted_by_exactly_one_version(
    tmp_path: Path, careless: bool, linger_ms: int, crowd: int
) -> None:
    """Upstream's runtime side; above 12 plugins its order of equal indexes is not stable."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    require_go()
    socket = tmp_path / "nri.sock"
    # A runtime goes on without a plugin that is late, and being late is not the matter here.
    patient = NriRuntime(
        socket, owners=False, careless=careless, linger_ms=linger_ms, request_timeout_ms=60_000
    )
    with (
        patient as runtime,
        House(tmp_path, socket=socket) as house,
    ):

        def more() -> None:
            made = runtime.burst_made()
            house.during(lambda: runtime.wait_for_burst(made + 5))

        others = [house.release(f"{20 + at}-crowd", "event-logger") for at in range(crowd)]
        swaps = Swaps(house, tmp_path, more, others)
        swaps.begin()
        # A careless runtime lists them later.
        names = [IDENTITY, *(other.identity for other in others)]
        house.during(lambda: runtime.wait_for_plugins(*names))
        runtime.burst_start(life=LIFE, pause_us=500)
        more()
        swaps.go(SWAPS, failures_every=5, late_every=25)
        more()
        made = house.during(runtime.burst_stop)
    created = [each for each in made if "CreateContainer" not in each.errors]
    assert Counter(len(versions_of(each)) for each in created) == {1: len(created)}
    assert seen([versions_of(each)[0] for each in created]) == seen(swaps.ran)
    # What failed, failed by policy, while the release before came back.
    refused = [each.errors for each in made if each.errors]
    assert all(each.keys() == {"CreateContainer"} for each in refused), refused
    assert all(f"plugin {IDENTITY}: " in each["CreateContainer"] for each in refused)
    assert len(created) > 5 * SWAPS
    assert len([each for each in house.verdicts if not each.kept]) == SWAPS // 5 + SWAPS // 25


class Load:
    """Containers at a simulated runtime, 500 a second as far as it is answered that fast."""

    def __init__(self, runtime: SimRuntime) -> None:
        self.outcomes: list[Outcome] = []
        self._runtime = runtime
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()

    def more(self) -> None:
        wanted = len(self.outcomes) + 5
        wait_until(lambda: len(self.outcomes) >= wanted, "more containers")

    def end(self) -> None:
        """Waits for its last answers, which need the loop."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            pod = self._runtime.run_pod("load").pod
            for number in range(50):
                due += 1 / 500
                time.sleep(max(0.0, due - time.monotonic()))
                self.outcomes.append(self._runtime.create_container(pod, f"c{number}"))
            self._runtime.stop_pod(pod)


@pytest.mark.system
def test_under_500_events_a_second_each_is_answered_once(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        load = Load(house.runtime)
        swaps = Swaps(house, tmp_path, lambda: house.during(load.more))
        swaps.begin()
        with load.running():
            swaps.go(SWAPS, failures_every=10, late_every=50)
            house.during(load.more)
            house.during(load.end)
    answered, versions = Counter[int](), []
    for outcome in load.outcomes:
        created = [each for each in outcome.answers if each.method == "CreateContainer"]
        replies = [each for each in created if each.reply or (each.error and not each.dropped)]
        answered[len(replies)] += 1
        if outcome.ok:
            found = [key for key in outcome.container.annotations if "plg" in key]
            versions += [int(key.removeprefix("edge.bench/plg")) for key in found]
        else:
            assert f"plugin {IDENTITY}: " in outcome.error
    assert answered == {1: len(load.outcomes)}
    assert seen(versions) == seen(swaps.ran)
