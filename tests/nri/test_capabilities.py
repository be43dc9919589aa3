"""Which fields a runtime applies."""

from __future__ import annotations

import pytest

from edge_agent.config import PERMISSIONS
from edge_agent.nri.capabilities import (
    NEVER,
    SINCE,
    carried_fields,
    carrier,
    fails_creations,
)

PIDS, SWAP = "linux.resources.pids", "linux.resources.memory.swap"


def test_docker_engine_applies_variables_and_mounts_only() -> None:
    carried = carried_fields("docker", "29.7.2", "v0.12.1")
    assert carried == frozenset({"env", "mounts"})
    assert carried < set(PERMISSIONS)
    assert carried_fields("Docker", "", "") == carried


def test_nothing_is_held_against_other_runtimes() -> None:
    for runtime in ("containerd", "cri-o", "something"):
        assert carried_fields(runtime, "v2.3.4", "v0.12.4") is None
        assert not fails_creations(runtime)
    assert fails_creations("docker")


def test_the_table_names_every_permission() -> None:
    assert set(PERMISSIONS) <= SINCE.keys()
    assert all(field.startswith("linux.resources.") for field in SINCE.keys() - set(PERMISSIONS))


@pytest.mark.parametrize(
    ("runtime", "version", "nri"),
    [
        ("containerd", "v1.7.0", "0.3"),
        ("containerd", "1.7.13", "0.4"),
        ("containerd", "1.7.24~ds1", "0.6"),  # Debian 13
        ("containerd", "v1.7.25-k3s1", "0.6"),
        ("containerd", "v1.7.26", "0.8"),
        ("containerd", "v2.1.9", "0.8"),
        ("containerd", "v2.2.0-rc.1", "0.8 to 0.10"),
        ("containerd", "v2.2.0", "0.10"),
        ("containerd", "v2.2.7", "0.11"),
        ("containerd", "v2.9.0", "0.12"),
        ("containerd", "1.6.33", "0.2 to 0.3"),
        ("containerd", "", "0.2 to 0.12"),
        ("cri-o", "1.31.5", "0.6"),
        ("cri-o", "1.33.2", "0.9"),
        ("CRI-O", "1.36.0", "0.11"),
        ("something", "1.0", "0.2 to 0.12"),
    ],
)
def test_the_nri_version_by_the_runtimes_own(runtime: str, version: str, nri: str) -> None:
    assert str(carrier(runtime, version, "")) == nri


def test_what_a_runtime_says_counts_more_than_its_version() -> None:
    assert str(carrier("containerd", "v1.7.24", "v0.12.3")) == "0.12"
    assert str(carrier("containerd", "v1.7.24", "(unknown)")) == "0.12"
    assert str(carrier("containerd", "v1.7.24", "v0.14.0")) == "0.14"


@pytest.mark.parametrize(
    ("version", "tells", "nri"),
    [
        ("v1.7.24", False, "0.6"),
        ("v1.7.24", True, "0.7"),  # built with a newer one than its go.mod says
        ("v1.7.28", False, "0.6"),  # ... or with an older one
        ("v2.1.9", True, "0.8"),
        ("", False, "0.2 to 0.6"),
        ("", True, "0.7 to 0.11"),
        ("v2.3.0", True, "0.11"),  # it would have said 0.12
    ],
)
def test_what_it_does_counts_more_than_its_version(version: str, tells: bool, nri: str) -> None:
    assert str(carrier("containerd", version, "", tells_timeouts=tells)) == nri


def test_debian_13_has_no_pids_limit() -> None:
    debian = carrier("containerd", "1.7.24~ds1", "", tells_timeouts=False)
    assert debian.carries(PIDS) is False
    assert debian.carries("linux.resources.memory.limit") is True
    assert debian.carries("cdi_devices") is False
    assert debian.missing(["linux.resources", "update"]) == [PIDS]
    assert carrier("containerd", "v2.1.9", "").carries(PIDS) is True
    assert carrier("something", "1", "", tells_timeouts=False).carries(PIDS) is False
    assert carrier("something", "1", "").carries(PIDS) is None


def test_a_parent_stands_for_what_is_below_it() -> None:
    old = carrier("containerd", "v2.1.9", "")
    assert old.missing(["linux.sysctl", "args", "env"]) == ["linux.sysctl", "args"]
    new = carrier("containerd", "v2.3.4", "v0.12.0")
    assert new.missing(PERMISSIONS) == []
    assert [field for field in NEVER if new.carries(field) is not False] == []
    assert new.carries("field 99") is None


@pytest.mark.parametrize(
    ("runtime", "version", "resolved"),
    [
        ("containerd", "1.7.29", False),
        ("containerd", "1.7.30", True),
        ("containerd", "2.0.11", False),
        ("containerd", "2.1.0", True),
        ("cri-o", "1.33.12", False),
        ("cri-o", "1.34.0", True),
    ],
)
def test_cdi_devices_need_a_runtime_that_resolves_them(
    runtime: str, version: str, resolved: bool
) -> None:
    assert carrier(runtime, version, "").carries("cdi_devices") is resolved


def test_what_docker_fails_and_what_it_drops() -> None:
    docker = carrier("docker", "29.7.2", "v0.12.1")
    assert docker.carries("env")
    assert docker.carries("mounts")
    for field in ("annotations", "linux.devices", "linux.resources.memory.limit", "rlimits"):
        assert docker.carries(field) is False
        assert docker.fails(field)
    for field in (PIDS, "linux.sysctl", "linux.resources.unified"):
        assert docker.carries(field) is False
        assert not docker.fails(field)


def test_a_version_with_endless_digits_is_none() -> None:
    assert str(carrier("containerd", "1" * 5000 + ".7", "")) == "0.2 to 0.12"
    assert str(carrier("containerd", "v2.1.9", "v0." + "1" * 5000 + ".0")) == "0.12"
