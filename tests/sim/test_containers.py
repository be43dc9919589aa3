"""The small model of a container: what adjustments set, remove and collide on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from google.protobuf import json_format

from edge_agent.pb import nri_pb2
from edge_agent.sim.runtime import Conflict, Merge, update_resources

Json = Mapping[str, object]


def container(**fields: object) -> nri_pb2.Container:
    return json_format.ParseDict(fields, nri_pb2.Container())


def adjustment(fields: Json) -> nri_pb2.ContainerAdjustment:
    return json_format.ParseDict(dict(fields), nri_pb2.ContainerAdjustment())


# before, adjustment -> after (only what changes)
SETS: list[tuple[Json, Json, Json]] = [
    ({}, {"annotations": {"a": "1"}}, {"annotations": {"a": "1"}}),
    (
        {"annotations": {"a": "1", "b": "2"}},
        {"annotations": {"-a": ""}},
        {"annotations": {"b": "2"}},
    ),
    (
        {"annotations": {"a": "1"}},
        {"annotations": {"-a": "", "a": "2"}},
        {"annotations": {"a": "2"}},
    ),
    ({"env": ["A=1", "B=2"]}, {"env": [{"key": "A", "value": "3"}]}, {"env": ["B=2", "A=3"]}),
    ({"env": ["A=1", "AB=2"]}, {"env": [{"key": "-A"}]}, {"env": ["AB=2"]}),
    ({"args": ["old"]}, {"args": ["new", "x"]}, {"args": ["new", "x"]}),
    ({"args": ["old"]}, {"args": ["", "new"]}, {"args": ["new"]}),
    (
        {"mounts": [{"destination": "/a", "source": "/1"}, {"destination": "/b"}]},
        {"mounts": [{"destination": "/a", "source": "/2"}, {"destination": "-/b"}]},
        {"mounts": [{"destination": "/a", "source": "/2"}]},
    ),
    (
        {"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}},
        {"linux": {"devices": [{"path": "-/dev/x"}, {"path": "/dev/y", "type": "b"}]}},
        {"linux": {"devices": [{"path": "/dev/y", "type": "b"}]}},
    ),
    (
        {"linux": {"resources": {"memory": {"limit": {"value": "1"}, "swap": {"value": "2"}}}}},
        {"linux": {"resources": {"memory": {"limit": {"value": "9"}}, "unified": {"u": "1"}}}},
        {
            "linux": {
                "resources": {
                    "memory": {"limit": {"value": "9"}, "swap": {"value": "2"}},
                    "unified": {"u": "1"},
                }
            }
        },
    ),
    (
        {"linux": {"resources": {"cpu": {"cpus": "0-3"}}}},
        {"linux": {"resources": {"cpu": {"cpus": "1"}, "pids": {"limit": "5"}}}},
        {"linux": {"resources": {"cpu": {"cpus": "1"}, "pids": {"limit": "5"}}}},
    ),
    (
        {"hooks": {"prestart": [{"path": "/1"}]}},
        {"hooks": {"prestart": [{"path": "/2"}]}},
        {"hooks": {"prestart": [{"path": "/1"}, {"path": "/2"}]}},
    ),
    (
        {},
        {"rlimits": [{"type": "NOFILE", "hard": "9"}]},
        {"rlimits": [{"type": "NOFILE", "hard": "9"}]},
    ),
    ({}, {"CDIDevices": [{"name": "v/c=d"}]}, {"CDIDevices": [{"name": "v/c=d"}]}),
    (
        {},
        {"linux": {"cgroupsPath": "/c", "oomScoreAdj": {"value": "5"}, "sysctl": {"s": "1"}}},
        {"linux": {"cgroupsPath": "/c", "oomScoreAdj": {"value": "5"}, "sysctl": {"s": "1"}}},
    ),
    (
        {},
        {"linux": {"netDevices": {"eth0": {"name": "net1"}}}},
        {"linux": {"netDevices": {"eth0": {"name": "net1"}}}},
    ),
]


@pytest.mark.parametrize(("before", "asked", "after"), SETS)
def test_an_adjustment_changes_what_it_names(before: Json, asked: Json, after: Json) -> None:
    merge = Merge(container(id="c", **before))
    merge.adjust(adjustment(asked), "10-one")
    assert merge.container == container(id="c", **{**before, **after})


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"annotations": {"a": "1"}}, "annotation a"),
        ({"env": [{"key": "A", "value": "1"}]}, "env A"),
        ({"args": ["x"]}, "args"),
        ({"mounts": [{"destination": "/a"}]}, "mount /a"),
        ({"linux": {"devices": [{"path": "/dev/x"}]}}, "device /dev/x"),
        ({"linux": {"resources": {"memory": {"limit": {"value": "1"}}}}}, "memory.limit"),
        ({"linux": {"resources": {"pids": {"limit": "1"}}}}, "pids.limit"),
        ({"linux": {"resources": {"unified": {"u": "1"}}}}, "unified u"),
        ({"linux": {"oomScoreAdj": {"value": "1"}}}, "oom_score_adj"),
    ],
)
def test_two_plugins_that_set_the_same_thing_collide(asked: Json, what: str) -> None:
    merge = Merge(container(id="c"))
    merge.adjust(adjustment(asked), "10-one")
    merge.adjust(adjustment(asked), "10-one")  # the same plugin may
    with pytest.raises(Conflict, match=f"plugins 10-one and 20-two both set {what}"):
        merge.adjust(adjustment(asked), "20-two")
    assert merge.owners == {what: "10-one"}


@pytest.mark.parametrize(
    "first",
    [
        {"annotations": {"a": "1"}},
        {"env": [{"key": "a", "value": "1"}]},
        {"mounts": [{"destination": "a"}]},
    ],
)
def test_what_is_removed_first_may_be_set_by_another(first: Json) -> None:
    removals: dict[str, Callable[[], Json]] = {
        "annotations": lambda: {"annotations": {"-a": "", "a": "2"}},
        "env": lambda: {"env": [{"key": "-a"}, {"key": "a", "value": "2"}]},
        "mounts": lambda: {"mounts": [{"destination": "-a"}, {"destination": "a"}]},
    }
    merge = Merge(container(id="c"))
    merge.adjust(adjustment(first), "10-one")
    merge.adjust(adjustment(removals[next(iter(first))]()), "20-two")
    assert list(merge.owners.values()) == ["20-two"]


def test_different_parts_of_resources_may_have_different_owners() -> None:
    merge = Merge(container(id="c"))
    for plugin, part in (("10-one", "limit"), ("20-two", "swap")):
        asked = {"linux": {"resources": {"memory": {part: {"value": "5"}}}}}
        merge.adjust(adjustment(asked), plugin)
    assert merge.owners == {"memory.limit": "10-one", "memory.swap": "20-two"}


def test_an_update_changes_resources_and_nothing_else() -> None:
    before = container(id="c", env=["A=1"], linux={"resources": {"pids": {"limit": "1"}}})
    update = nri_pb2.ContainerUpdate(container_id="c")
    update.linux.resources.pids.limit = 2
    update_resources(before, update)
    assert before == container(id="c", env=["A=1"], linux={"resources": {"pids": {"limit": "2"}}})
