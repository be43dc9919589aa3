"""Which fields of an adjustment a container was made without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given

from edge_agent.nri.applied import MAX_FIELDS, asked_fields, dropped, may_be_removed, removals
from edge_agent.nri.capabilities import carrier
from edge_agent.pb import nri_pb2
from tests.plugins.messages import messages

OLD = carrier("containerd", "1.7.24", "", tells_timeouts=False)
NEW = carrier("containerd", "v2.3.4", "v0.12.0")
Adjust, Container = nri_pb2.ContainerAdjustment, nri_pb2.Container


def limited(kind: type[Any], **limits: int) -> Any:
    """A container or an adjustment with limits: memory, pids, shares, swap, reservation."""
    found = kind()
    resources = found.linux.resources
    for name, value in limits.items():
        if name == "pids":
            resources.pids.limit = value
        elif name == "shares":
            resources.cpu.shares.value = value
        else:
            getattr(resources.memory, "limit" if name == "memory" else name).value = value
    return found


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({}, {"pids": 7}, False),
        ({}, {}, True),
        ({"pids": 5}, {"pids": 5}, True),
        ({"pids": 5}, {}, True),
        ({"pids": 5}, {"pids": 6}, False),  # another plugin's
        ({"pids": 7}, {"pids": 7}, False),
        ({"pids": 7}, {"pids": 5}, False),  # it asked for what was there
    ],
)
def test_a_value_is_lost_where_it_is_absent_or_as_before(
    before: dict[str, int], after: dict[str, int], lost: bool
) -> None:
    asked = limited(Adjust, pids=7)
    found = dropped(asked, limited(Container, **before), limited(Container, **after), NEW)
    assert found == ["linux.resources.pids.limit"] * lost


def test_what_the_runtimes_nri_does_not_know_is_lost_whatever_is_shown() -> None:
    asked = limited(Adjust, pids=7, memory=64)
    after = limited(Container, memory=64)
    assert dropped(asked, Container(), after, OLD) == ["linux.resources.pids.limit"]
    sysctl = Adjust(linux=nri_pb2.LinuxContainerAdjustment(sysctl={"net.x": "1"}))
    assert dropped(sysctl, Container(), Container(), OLD) == ["linux.sysctl net.x"]


def test_what_no_runtime_shows_is_only_lost_by_what_is_known() -> None:
    asked = Adjust(rlimits=[nri_pb2.POSIXRlimit(type="RLIMIT_CORE", soft=1, hard=1)])
    asked.linux.resources.blockio_class.value = "slow"
    asked.linux.resources.unified["memory.high"] = "1"
    assert dropped(asked, Container(), Container(), OLD) == []
    assert dropped(asked, Container(), Container(), NEW) == ["linux.resources.unified memory.high"]


def test_swap_is_set_by_the_memory_limit() -> None:
    asked = limited(Adjust, memory=64, swap=64)
    after = limited(Container, memory=64, swap=64)
    assert dropped(asked, Container(), after, NEW) == []
    asked = limited(Adjust, memory=64, swap=128)
    assert dropped(asked, Container(), after, NEW) == ["linux.resources.memory.swap"]


@pytest.mark.parametrize("none", [0, -1])
def test_no_limit_is_not_missed(none: int) -> None:
    assert dropped(limited(Adjust, pids=none), Container(), Container(), NEW) == []


def test_entries_are_named() -> None:
    asked = Adjust(
        annotations={"a/b": "1"},
        env=[nri_pb2.KeyValue(key="A", value="1")],
        mounts=[nri_pb2.Mount(destination="/m", type="bind", source="/s", options=["ro"])],
        hooks=nri_pb2.Hooks(create_runtime=[nri_pb2.Hook(path="/h", args=["h"])]),
        args=["sh"],
    )
    asked.linux.devices.add(path="/dev/x", type="c", major=1, minor=3)
    asked.linux.cgroups_path = "/x"
    before = Container(args=["sleep"])
    before.linux.cgroups_path = "/y"
    assert dropped(asked, before, before, NEW) == [
        "annotations a/b",
        "mounts /m",
        "env A",
        "args",
        "linux.devices /dev/x",
        "linux.cgroups_path",
        "hooks create_runtime",
    ]
    after = Container(annotations={"a/b": "1"}, env=["A=1"], args=["sh"])
    after.mounts.add(destination="/m", type="bind", source="/s", options=["ro", "rprivate"])
    after.hooks.create_runtime.add(path="/h", args=["h"])
    after.linux.devices.add(path="/dev/x", type="c", major=1, minor=3)
    after.linux.cgroups_path = "/x"
    assert dropped(asked, before, after, NEW) == []
    many = Adjust(annotations={f"a{number:02}": "1" for number in range(MAX_FIELDS * 2)})
    assert len(dropped(many, Container(), Container(), NEW)) == MAX_FIELDS


def test_an_annotation_that_the_request_had_is_shown_as_it_was() -> None:
    # containerd shows the request's over the specification's.
    asked = Adjust(annotations={"a": "2"})
    before = Container(annotations={"a": "1"})
    assert dropped(asked, before, before, NEW) == []


def test_a_removal_that_was_not_done() -> None:
    asked = Adjust(env=[nri_pb2.KeyValue(key="-A")])
    before = Container(env=["A=1", "B=2"])
    assert dropped(asked, before, before, NEW) == ["env A"]
    assert dropped(asked, before, Container(env=["B=2"]), NEW) == []
    assert dropped(asked, before, Container(env=["A=9"]), NEW) == []


def test_what_another_hosted_plugin_takes_away_is_not_missed() -> None:
    asked = Adjust(env=[nri_pb2.KeyValue(key="A", value="1")])
    other = Adjust(env=[nri_pb2.KeyValue(key="-A"), nri_pb2.KeyValue(key="A", value="")])
    assert removals(other) == {("env", "A")}
    assert removals(asked) == set()
    assert dropped(asked, Container(), Container(), NEW, removals(other)) == []
    assert dropped(asked, Container(), Container(), NEW) == ["env A"]
    assert removals(Adjust(args=["", "sh"])) == {("args", "")}
    assert may_be_removed("env A")
    assert not may_be_removed("linux.resources.pids.limit")


def test_without_a_later_event_only_what_is_known_counts() -> None:
    docker = carrier("docker", "29.7.2", "v0.12.1")
    asked = limited(Adjust, pids=7)
    asked.env.add(key="A", value="1")
    assert dropped(asked, Container(), None, docker) == ["linux.resources.pids.limit"]
    assert asked_fields(asked) == ["env", "linux.resources.pids.limit"]


@given(messages(Adjust), messages(Container), messages(Container))
def test_nothing_that_a_plugin_or_a_runtime_says_is_too_much(
    asked: Message, before: Message, after: Message
) -> None:
    check: Callable[..., list[str]] = dropped
    for known in (OLD, NEW):
        assert len(check(asked, before, after, known)) <= MAX_FIELDS
        assert check(asked, before, None, known) == check(asked, before, None, known)
    assert isinstance(asked, Adjust)
    removals(asked)
