"""Plugins are replaced, added and removed while containers are created without pause."""

from collections import Counter
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from tests.containerd.burst import Burst
from tests.host.house import House
from tests.host.swaps import IDENTITY, LATE, Swaps, seen
from tests.host.versions import version
from tests.support.agent import Agent, Status, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri

SWAPS = 3


def test_every_container_is_adjusted_by_exactly_one_version(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with Agent(
        tmp_path,
        sockets=[containerd.nri_socket],
        plugins={"10-bench": version(0), "20-edge": guest("edge")},
    ) as agent:
        agent.wait_running("10-bench", "20-edge")
        with Burst(cri) as burst:
            for number in range(1, SWAPS + 1):
                burst.wait_for_more()
                agent.put("10-bench", version(number))
                agent.wait_running("10-bench")
            burst.wait_for_more()
            made = burst.stop()
        assert agent.entry("10-bench")["restarts"] == SWAPS
        neighbour = agent.entry("20-edge")
    for each in made:
        versions = [_versions(container.annotations) for container in each]
        assert [container.error for container in each if container.error] == []
        assert Counter(len(found) for found in versions) == {1: len(each)}
        order = [found[0] for found in versions]
        assert order == sorted(order)  # and never back to an earlier one
        assert set(order) == set(range(SWAPS + 1))
    # The plugin beside it kept its session, and saw each container once.
    assert neighbour["restarts"] == 0
    counts = [int(each.annotations["edge.test/count"]) for thread in made for each in thread]
    assert sorted(counts) == list(range(1, len(counts) + 1))


def test_a_hundred_replacements_and_those_that_fail_leave_no_gap(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    """As tests/host/test_swaps.py, on a containerd; the supervisor is in this process."""
    with House(tmp_path, socket=containerd.nri_socket) as house, Burst(cri) as burst:
        swaps = Swaps(house, tmp_path, lambda: house.during(lambda: burst.wait_for_more(2)))
        swaps.begin()
        house.during(lambda: burst.wait_for_more(2))
        begun = [len(made) for made in burst.made]
        swaps.go(100, failures_every=10, late_every=50)
        made = house.during(burst.stop)
    for each, at in zip(made, begun, strict=True):
        before, since = each[:at], each[at:]
        created = [_versions(container.annotations) for container in since if not container.error]
        assert Counter(len(found) for found in created) == {1: len(created)}
        # A thread of the burst may sit out the short time of the one that fails later.
        order = seen([found[0] for found in created if found[0] != LATE])
        assert order == seen([number for number in swaps.ran if number != LATE])
        refused = [container.error for container in since if container.error]
        assert all(f"plugin {IDENTITY}: " in error for error in refused), refused
        assert not [container.error for container in before if container.error]
        # From the first version's moment on, none was without.
        found = [bool(_versions(container.annotations)) for container in before]
        assert found == sorted(found)
    assert len(house.verdicts) == 12
    assert not [verdict for verdict in house.verdicts if verdict.kept]


def test_a_changed_configuration_counts_from_one_container_on(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with Agent(
        tmp_path,
        sockets=[containerd.nri_socket],
        plugins={"10-hostile": guest("hostile")},
        configs={"10-hostile": "create_container:error"},
    ) as agent:
        agent.wait_running("10-hostile")
        with Burst(cri) as burst:
            burst.wait_for_more()
            agent.put("10-hostile", config="create_container:ok")
            agent.wait_replaced("10-hostile", 0)
            burst.wait_for_more()
            made = burst.stop()
    for each in made:
        refused = [bool(container.error) for container in each]
        assert refused == sorted(refused, reverse=True)
        assert set(refused) == {True, False}
        texts = {container.error for container in each if container.error}
        assert all("10-hostile" in text and "refused on request" in text for text in texts)


def test_plugins_come_and_go_without_failing_a_container(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {"10-bench": version(0)}
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-bench")
        since = agent.entry("10-bench")["since"]
        with Burst(cri) as burst:
            # Under "Fail", containers are refused while it is compiled, which a busy machine is at
            # for longer than GRACE_S.
            agent.put("20-edge", guest("edge"), settings={"failure_policy": "Ignore"})
            agent.wait_running("20-edge")
            burst.wait_for_more()
            agent.remove("20-edge")
            agent.wait_for(lambda status: not agent.entries("20-edge", status), "20-edge is gone")
            burst.wait_for_more()
            made = burst.stop()
        assert agent.entry("10-bench")["since"] == since
    for each in made:
        assert all(_versions(container.annotations) == [0] for container in each), each
        counted = ["edge.test/count" in container.annotations for container in each]
        # Not there, then there, then gone: two borders.
        assert sum(a != b for a, b in pairwise(counted)) <= 2
        assert any(counted)
        assert not counted[-1]


def test_a_broken_new_file_leaves_the_old_version_at_work(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {"10-bench": version(1)}
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-bench")
        pod = cri.run_pod()
        for broken in (version(2)[:-100], b""):
            agent.put("10-bench", broken)
            digest = f"sha256:{sha256(broken).hexdigest()}"
            agent.wait_for(partial(_refuses, digest), "the error is told")
            container = cri.create(pod)
            assert _versions(cri.spec(container)["annotations"]) == [1]
            cri.remove(container)
        agent.put("10-bench", version(3))
        agent.wait_running("10-bench")
        assert _versions(cri.spec(cri.create(pod))["annotations"]) == [3]
        assert "error" not in agent.entry("10-bench")


def _refuses(digest: str, status: Status) -> bool:
    (entry,) = status["plugins"]
    return entry["digest"] == digest and "10-bench.wasm: " in entry.get("error", "")


def _versions(annotations: dict[str, str]) -> list[int]:
    prefix = "edge.bench/plg"
    return [int(key.removeprefix(prefix)) for key in annotations if key.startswith(prefix)]
