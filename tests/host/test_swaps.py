"""A hundred replacements and failed ones, with containers created without pause."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.host.house import House
from tests.host.swaps import IDENTITY, Swaps, seen
from tests.host.versions import versions_of
from tests.support.gopeers import NriRuntime, require_go

SWAPS = 100
LIFE = ["PostCreateContainer", "StartContainer"]


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
    with (
        NriRuntime(socket, owners=False, careless=careless, linger_ms=linger_ms) as runtime,
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
