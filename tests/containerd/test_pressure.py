"""A real container has less memory while the board's runs short, and so another one lives."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError, Pod
from tests.support.memorypressure import limit_memory, memory_pressure
from tests.support.wait import wait_until

MIB = 1 << 20
NAME = "10-pressure"
BOARD_BYTES = 224 * MIB  # of all containers together: the board's, as it were
# The important one is the larger, which the kernel kills first. It has its buffer as long as nobody
# reads from its pipe.
IMPORTANT = """
busybox mkfifo /pipe; sleep 1000000 < /pipe &
exec busybox dd bs=140M count=1 if=/dev/zero of=/pipe
"""
GROW = ("busybox", "dd", "bs=100M", "count=1", "if=/dev/zero", "of=/dev/null")
VICTIM = {"edge.test/victim": "yes"}


def test_the_important_container_survives_where_the_kernel_killed_it_before(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    lives = {pressure: _lives(containerd, cri, tmp_path, pressure) for pressure in (False, True)}
    assert lives == {False: False, True: True}


def _lives(containerd: Containerd, cri: Cri, folder: Path, pressure: bool) -> bool:
    """Whether the important container is there after another wanted more than there is."""
    agent = Agent(folder / str(pressure), sockets=[containerd.nri_socket])
    settings = {"memory": "some 0.5% over 10s", "every": "1s"}
    agent.put(NAME, guest("pressure"), settings={"pressure": settings} if pressure else {})
    with agent:
        agent.wait_running(NAME)
        pod = cri.run_pod()
        limit_memory(containerd.cgroup, BOARD_BYTES)
        important = cri.run(pod, "important", command=("sh", "-c", IMPORTANT))
        wait_until(lambda: _largest(cri, important) >= 140 * MIB, "it has its memory")
        other = cri.run(pod, "other", annotations=VICTIM)
        if pressure:
            with memory_pressure(f"{containerd.cgroup}/press", 256 * MIB):
                wait_until(lambda: _limit(containerd, other) == 32 * MIB, "the other has less")
        grown = cri.exec(other, *GROW)
        assert (grown.code == 0) != pressure, grown
        lives = _largest(cri, important) >= 140 * MIB
        wait_until(lambda: _removed(cri, pod), "the pod is removed")
    return lives


def _removed(cri: Cri, pod: Pod) -> bool:
    """Containerd fails to stop a container while it notices that the kernel has killed it."""
    try:
        cri.remove_pod(pod)
    except CriError:
        return False
    return True


def _largest(cri: Cri, container: str) -> int:
    """Bytes of memory that the largest process of the container has; 0: it has ended."""
    try:
        told = cri.exec(container, "sh", "-c", "cat /proc/[0-9]*/status").output
    except CriError:
        return 0
    sizes = [int(each) << 10 for each in re.findall(r"VmRSS:\s+(\d+) kB", told)]
    return max(sizes, default=0)


def _limit(containerd: Containerd, container: str) -> int:
    told = containerd.cgroup_file(container, "memory", "memory.limit_in_bytes", "memory.max")
    return int(told) if told.isdecimal() else 1 << 63


def test_each_event_of_a_real_container_has_an_instance_of_its_own(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, sockets=[containerd.nri_socket])
    agent.put("20-edge", guest("edge"), settings={"instance": "per-event"})
    with agent:
        agent.wait_running("20-edge")
        pod = cri.run_pod()
        made = [cri.run(pod, name) for name in ("one", "two", "three")]
        counts = [cri.spec(each)["annotations"]["edge.test/count"] for each in made]
        assert counts == ["1", "2", "3"], "the state is there for each"
        entry = agent.entry("20-edge")
        assert (entry["instance"], entry["restarts"], entry["failures"]) == ("per-event", 0, {})
