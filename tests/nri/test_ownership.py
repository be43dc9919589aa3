"""Who clashes over what, by upstream's rules (pkg/adaptation/result.go, pkg/api/owners.go)."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.nri.applied import clashes
from edge_agent.nri.capabilities import carrier
from edge_agent.pb import nri_pb2

NEW = carrier("containerd", "v2.3.4", "v0.12.0")
OLD = carrier("containerd", "v1.7.24", "", tells_timeouts=False)
Reply = nri_pb2.CreateContainerResponse


def adjust(**fields: Any) -> Reply:
    return Reply(adjust=nri_pb2.ContainerAdjustment(**fields))


def linux(**fields: Any) -> Reply:
    return adjust(linux=nri_pb2.LinuxContainerAdjustment(**fields))


def resources(**fields: Any) -> Reply:
    return linux(resources=nri_pb2.LinuxResources(**fields))


def variable(name: str) -> nri_pb2.KeyValue:
    return nri_pb2.KeyValue(key=name, value="x")


def memory(**fields: int) -> Reply:
    wrapped: Any = {key: nri_pb2.OptionalInt64(value=value) for key, value in fields.items()}
    return resources(memory=nri_pb2.LinuxMemory(**wrapped))


def device(path: str) -> Reply:
    return linux(devices=[nri_pb2.LinuxDevice(path=path, type="c")])


def update(container: str, limit: int, *, ignore: bool = False) -> Reply:
    found = Reply()
    each = found.update.add(container_id=container, ignore_failure=ignore)
    each.linux.resources.memory.limit.value = limit
    return found


def told(*replies: Reply, runtime: Any = NEW) -> list[str]:
    """PLUGIN OTHER FIELD ENTRY of each clash of the last reply."""
    named = [(f"{at}0-p", reply) for at, reply in enumerate(replies, 1)]
    return [f"{each.plugin} {each.other} {each.claim}" for each in clashes(named, runtime)]


@pytest.mark.parametrize(
    ("reply", "claim"),
    [
        (adjust(annotations={"a": "1"}), "annotations a"),
        (adjust(env=[variable("A")]), "env A"),
        (adjust(mounts=[nri_pb2.Mount(destination="/m")]), "mounts /m"),
        (adjust(args=["sh"]), "args"),
        (adjust(rlimits=[nri_pb2.POSIXRlimit(type="RLIMIT_CORE")]), "rlimits RLIMIT_CORE"),
        (adjust(CDI_devices=[nri_pb2.CDIDevice(name="v/c=d")]), "cdi_devices v/c=d"),
        (device("/dev/x"), "linux.devices /dev/x"),
        (memory(limit=5), "linux.resources.memory.limit"),
        (memory(swap=5), "linux.resources.memory.swap"),
        (resources(cpu=nri_pb2.LinuxCPU(cpus="1")), "linux.resources.cpu.cpus"),
        (resources(pids=nri_pb2.LinuxPids()), "linux.resources.pids"),
        (resources(unified={"a.b": "1"}), "linux.resources.unified a.b"),
        (
            resources(hugepage_limits=[nri_pb2.HugepageLimit(page_size="2MB")]),
            "linux.resources.hugepage_limits 2MB",
        ),
        (linux(cgroups_path="/x"), "linux.cgroups_path"),
        (linux(oom_score_adj=nri_pb2.OptionalInt()), "linux.oom_score_adj"),
        (linux(sysctl={"a": "1"}), "linux.sysctl a"),
        (linux(namespaces=[nri_pb2.LinuxNamespace(type="net")]), "linux.namespaces net"),
        (linux(namespaces=[nri_pb2.LinuxNamespace(type="-net")]), "linux.namespaces net"),
        (linux(seccomp_policy=nri_pb2.LinuxSeccomp()), "linux.seccomp_policy"),
        (linux(scheduler=nri_pb2.LinuxScheduler()), "linux.scheduler"),
        (
            linux(rdt=nri_pb2.LinuxRdt(clos_id=nri_pb2.OptionalString(value="x"))),
            "linux.rdt clos_id",
        ),
    ],
)
def test_what_two_plugins_may_not_both_set(reply: Reply, claim: str) -> None:
    assert told(reply) == []
    assert told(reply, reply) == [f"20-p 10-p {claim}"]
    assert told(reply, Reply(), reply) == [f"30-p 10-p {claim}"]


def test_what_everybody_may_add_to() -> None:
    hooks = adjust(hooks=nri_pb2.Hooks(prestart=[nri_pb2.Hook(path="/x")]))
    assert told(hooks, hooks) == []
    rules = resources(devices=[nri_pb2.LinuxDeviceCgroup(allow=True)])
    assert told(rules, rules) == []


def test_different_entries_and_fields_are_no_clash() -> None:
    assert told(adjust(annotations={"a": "1"}), adjust(annotations={"b": "1"})) == []
    assert told(memory(limit=5), memory(reservation=5)) == []
    assert told(device("/dev/x"), device("/dev/y")) == []


@pytest.mark.parametrize("runtime", [OLD, NEW])
def test_what_is_taken_away_first_may_be_set(runtime: Any) -> None:
    for mine, yours in (
        (adjust(annotations={"a": "1"}), adjust(annotations={"-a": "", "a": "2"})),
        (adjust(env=[variable("A")]), adjust(env=[variable("-A"), variable("A")])),
        (
            adjust(mounts=[nri_pb2.Mount(destination="/m")]),
            adjust(mounts=[nri_pb2.Mount(destination="/m"), nri_pb2.Mount(destination="-/m")]),
        ),
    ):
        assert told(mine, yours, runtime=runtime) == []
        assert told(mine, yours, mine, runtime=runtime)


def test_arguments_are_replaced_with_an_empty_first_one() -> None:
    mine = adjust(args=["sh"])
    assert told(mine, adjust(args=["", "bash"])) == []
    assert told(mine, adjust(args=["bash"])) == ["20-p 10-p args"]


def test_what_was_only_taken_away_belongs_to_who_took_it_from_nri_0_10_on() -> None:
    takes, sets = adjust(env=[variable("-A")]), adjust(env=[variable("A")])
    assert told(sets, takes, sets, runtime=OLD) == []
    assert told(sets, takes, sets, runtime=NEW) == ["30-p 20-p env A"]
    # Of an annotation it changes nothing (adjustAnnotations).
    takes, sets = adjust(annotations={"-a": ""}), adjust(annotations={"a": "1"})
    assert told(sets, takes, sets, runtime=NEW) == ["30-p 10-p annotations a"]


def test_a_runtime_sees_no_clash_over_what_it_does_not_know() -> None:
    pids = resources(pids=nri_pb2.LinuxPids(limit=7))
    assert told(pids, pids, runtime=OLD) == []
    assert told(pids, pids, runtime=carrier("containerd", "v2.1.9", "")) != []
    assert told(pids, pids, runtime=carrier("something", "", "")) == []  # it may not know it


def test_updates_of_another_container_clash_unless_they_may_fail() -> None:
    assert told(update("c", 5), update("c", 6)) == ["20-p 10-p linux.resources.memory.limit"]
    assert told(update("c", 5), update("c", 6, ignore=True)) == []
    assert told(update("c", 5), update("d", 6)) == []
    assert told(memory(limit=5), update("c", 6)) == []
