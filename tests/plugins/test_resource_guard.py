"""resource-guard, and rules that say the same: defaults and maxima of memory, CPU and pids."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2

from . import as_rules
from .guest import PLUGINS, Guest, GuestError, capture, plugin

# memory 64Mi (and swap), cpu 512 shares, 50000/100000; no pids
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
MI = 1 << 20
UNLIMITED_V1 = 9223372036854771712  # what cgroup v1 says for "no limit"


def configured(text: str) -> Guest:
    guest = Guest(plugin("resource-guard"))
    guest.configure(text)
    return guest


def by_rules(text: str) -> Guest:
    guest = Guest(plugin("rules"))
    guest.configure(as_rules.resource_guard(text))
    return guest


Make = Callable[[str], Guest]
BOTH = pytest.mark.parametrize("make", [configured, by_rules], ids=["resource-guard", "rules"])


def request(
    have: nri_pb2.LinuxResources | None = None,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
) -> nri_pb2.CreateContainerRequest:
    request = nri_pb2.CreateContainerRequest()
    request.CopyFrom(CREATE)
    request.pod.namespace = namespace
    request.pod.labels.update(labels or {})
    if have is not None:
        request.container.linux.resources.CopyFrom(have)
    return request


def guard(
    make: Make, text: str, have: nri_pb2.LinuxResources, namespace: str = "default", **labels: str
) -> nri_pb2.LinuxResources:
    adjust = make(text).create(request(have, namespace, labels)).adjust
    return adjust.linux.resources


def memory(limit: int, **more: int) -> nri_pb2.LinuxResources:
    resources = nri_pb2.LinuxResources()
    resources.memory.limit.value = limit
    for name, value in more.items():
        getattr(resources.memory, name).value = value
    return resources


def cpu(quota: int | None = None, period: int | None = None) -> nri_pb2.LinuxResources:
    resources = nri_pb2.LinuxResources()
    if quota is not None:
        resources.cpu.quota.value = quota
    if period is not None:
        resources.cpu.period.value = period
    return resources


def shares(value: int) -> nri_pb2.LinuxResources:
    resources = nri_pb2.LinuxResources()
    resources.cpu.shares.value = value
    return resources


def pids(limit: int) -> nri_pb2.LinuxResources:
    return nri_pb2.LinuxResources(pids=nri_pb2.LinuxPids(limit=limit))


NOTHING = nri_pb2.LinuxResources()
MEMORY = "[default]\nmemory.default = 128Mi\nmemory.maximum = 512Mi"
CPU = "[default]\ncpu.default = 0.5\ncpu.maximum = 2"
SHARES = "[default]\nshares.default = 256\nshares.maximum = 1024"
PIDS = "[default]\npids.default = 100\npids.maximum = 1000"


@BOTH
@pytest.mark.parametrize(
    ("text", "have", "want"),
    [
        (MEMORY, NOTHING, memory(128 * MI)),
        (MEMORY, memory(0), memory(128 * MI)),
        (MEMORY, memory(-1), memory(128 * MI)),
        (MEMORY, memory(UNLIMITED_V1), memory(128 * MI)),
        (MEMORY, memory(64 * MI), NOTHING),
        (MEMORY, memory(512 * MI), NOTHING),
        (MEMORY, memory(512 * MI + 1), memory(512 * MI)),
        (MEMORY, memory(600 * MI, swap=600 * MI), memory(512 * MI, swap=512 * MI)),
        (MEMORY, memory(600 * MI, swap=-1), memory(512 * MI)),
        (MEMORY, memory(600 * MI, swap=100 * MI), memory(512 * MI)),
        (
            MEMORY,
            memory(600 * MI, reservation=550 * MI),
            memory(512 * MI, reservation=512 * MI),
        ),
        ("[default]\nmemory.maximum = 1Gi", NOTHING, memory(1024 * MI)),
        ("[default]\nmemory.default = 1Gi", memory(2048 * MI), NOTHING),
        ("", NOTHING, NOTHING),
        (CPU, NOTHING, cpu(50000, 100000)),
        (CPU, cpu(-1, 50000), cpu(25000)),
        (CPU, cpu(200000, 100000), NOTHING),
        (CPU, cpu(200001, 100000), cpu(200000)),
        (CPU, cpu(10000, 1000), cpu(2000)),
        (CPU, cpu(300000), cpu(200000, 100000)),
        (CPU, cpu(1 << 62, 100000), cpu(200000)),
        (CPU, cpu(500000, 1), cpu(200000, 100000)),  # the kernel takes no such period
        ("[default]\ncpu.maximum = 1m", cpu(50000, 100000), cpu(1000)),  # nor a smaller quota
        (SHARES, NOTHING, shares(256)),
        (SHARES, shares(2), shares(256)),
        (SHARES, shares(512), NOTHING),
        (SHARES, shares(4096), shares(1024)),
        (PIDS, NOTHING, pids(100)),
        (PIDS, pids(-1), pids(100)),
        (PIDS, pids(1000), NOTHING),
        (PIDS, pids(1001), pids(1000)),
    ],
)
def test_limits(
    make: Make, text: str, have: nri_pb2.LinuxResources, want: nri_pb2.LinuxResources
) -> None:
    assert guard(make, text, have) == want


@BOTH
def test_a_container_in_order_gets_an_empty_reply(make: Make) -> None:
    guest = make(MEMORY + "\n" + "\n".join(CPU.splitlines()[1:]))
    assert guest.call("create_container", capture("create_container")) == b""
    assert guest.lines == []


@BOTH
def test_every_change_is_logged(make: Make) -> None:
    guest = make(MEMORY + "\ncpu.default = 0.5\npids.maximum = 64")
    guest.create(request(memory(600 * MI)))
    rule = " (rule section 1)" if make is by_rules else ""
    assert [line.removesuffix(rule) for line in guest.lines] == [
        "pod-0/main: memory lowered from 629145600 to 536870912",
        "pod-0/main: cpu limited to 500m",
        "pod-0/main: pids limited to 64",
    ]


SECTIONS = """
[default]
memory.default = 100Mi

[namespace kube-*]
memory.default = none

[label size=large]      # after the namespaces: it wins
memory.default = 300Mi

[label example.com/tier=*]
memory.maximum = 50Mi
"""


@BOTH
@pytest.mark.parametrize(
    ("namespace", "labels", "limit"),
    [
        ("default", {}, 100 * MI),
        ("kube-system", {}, 0),
        ("kube-system", {"size": "large"}, 300 * MI),
        ("default", {"size": "larger"}, 100 * MI),
        ("default", {"example.com/tier": ""}, 50 * MI),  # a default is never above the maximum
        ("kube-system", {"example.com/tier": "x"}, 50 * MI),
    ],
)
def test_the_last_section_that_fits_counts(
    make: Make, namespace: str, labels: dict[str, str], limit: int
) -> None:
    resources = guard(make, SECTIONS, NOTHING, namespace, **labels)
    assert resources.memory.limit.value == limit


@BOTH
@pytest.mark.parametrize(
    ("text", "have", "want"),
    [
        (MEMORY, NOTHING, NOTHING),
        (MEMORY, memory(0), NOTHING),
        (MEMORY, memory(100 * MI), NOTHING),
        (MEMORY, memory(-1), memory(512 * MI)),
        (MEMORY, memory(600 * MI), memory(512 * MI)),
        (CPU, cpu(0, 100000), NOTHING),
        (CPU, cpu(-1), cpu(200000, 100000)),
        (SHARES, shares(2), NOTHING),
        (PIDS, pids(-1), pids(1000)),
    ],
)
def test_an_update_is_held_to_the_maximum_only(
    make: Make, text: str, have: nri_pb2.LinuxResources, want: nri_pb2.LinuxResources
) -> None:
    update = nri_pb2.UpdateContainerRequest(
        pod=CREATE.pod, container=CREATE.container, linux_resources=have
    )
    reply = make(text).ask("update_container", update, nri_pb2.UpdateContainerResponse)
    if want == NOTHING:
        assert reply == nri_pb2.UpdateContainerResponse()
    else:
        (got,) = reply.update
        assert got.container_id == CREATE.container.id
        assert got.linux.resources == want


SMALL = st.integers(-1, 4000)


@BOTH
@given(quota=SMALL, period=st.integers(0, 4000), most=st.integers(1, 8000))
def test_no_quota_comes_out_above_the_maximum(
    make: Make, quota: int, period: int, most: int
) -> None:
    have = cpu(quota * 1000, period * 1000)
    want = guard(make, f"[default]\ncpu.maximum = {most}m", have)
    have.MergeFrom(want)
    got = have.cpu.quota.value, have.cpu.period.value or 100_000  # the kernel's own
    assert got[0] > 0
    # In whole numbers; the kernel takes no quota below 1,000.
    assert got[0] * 1000 <= max(most * got[1], 1000 * 1000)


@BOTH
def test_the_sample_configuration(make: Make) -> None:
    text = (PLUGINS / "resource-guard" / "resource-guard.conf").read_text()
    want = nri_pb2.LinuxResources()
    for part in (memory(128 * MI), cpu(50000, 100000), pids(256)):
        want.MergeFrom(part)
    assert guard(make, text, NOTHING) == want
    assert guard(make, text, NOTHING, "kube-system") == pids(256)
    big = guard(make, text, memory(4096 * MI), "default", **{"edge.example/size": "large"})
    assert big.memory.limit.value == 2048 * MI


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("memory.default = 1Mi", "line 1: a setting before the first section; begin with [def"),
        ("[default", "line 1: the section's ] is missing"),
        ("[pod x]", "line 1: a section is [default], [namespace PATTERN] or [label KEY=PATTERN]"),
        ("[namespace]", "line 1: a section is [default], "),
        ("[default x]", "line 1: a section is [default], "),
        ("[label app]", "line 1: a section is [default], "),
        ("[label =x]", "line 1: a section is [default], "),
        (
            "# a\n[default]\n\nram = 1",
            "line 4: unknown key ram; known are memory, cpu, shares, pids",
        ),
        ("[default]\nmemory.most = 1", "line 2: unknown key memory.most"),
        ("[default]\nmemory.default", "line 2: memory.default is ; wanted is a size such as 128Mi"),
        ("[default]\nmemory.default = 1Mo", "line 2: memory.default is 1Mo; wanted is a size"),
        ("[default]\nmemory.default = 0", "line 2: memory.default is 0; wanted is a size"),
        ("[default]\ncpu.maximum = two", "line 2: cpu.maximum is two; wanted is a number of CPUs"),
        ("[default]\npids.maximum = -1", "line 2: pids.maximum is -1; wanted is a number above 0"),
        (f"[default]\npids.maximum = {2**64}", "line 2: pids.maximum is 18446744073709551616"),
        ("[default]\npids.default = 9\npids.maximum = 8", "line 3: pids.default is above pids.max"),
        ("[default]\npids.default = 9\npids.default = 9", "line 3: pids.default is given twice"),
        ("[default]\n" * 33, "line 33: more than 32 sections"),
    ],
)
def test_wrong_configurations_fail_configure(text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(text)
    assert str(caught.value).startswith(says)
