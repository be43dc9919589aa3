"""At which runtimes a plugin is registered: the rule, and that of docs/fleet-protocol.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_agent.config import PERMISSIONS, PluginSettings
from edge_agent.nri.capabilities import why_skipped
from edge_agent.nri.session import RuntimeInfo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fleet-protocol.md").read_text()
SOCKET = Path("/var/run/nri/nri.sock")
CONTAINERD = RuntimeInfo("containerd", "v2.3.4", "v0.12.4", 2000)
DOCKER = RuntimeInfo("docker", "29.7.2", "v0.12.1", 2000)
STRANGE = RuntimeInfo("strange", "1", "v0.12.4", 2000)
GUARD = ("linux.resources", "update")


@pytest.mark.parametrize(
    ("permissions", "runtime", "skipped"),
    [
        (None, DOCKER, False),  # nothing is declared: everything may be, as in NRI
        (None, CONTAINERD, False),
        (GUARD, None, False),  # who listens there has not said so yet
        (GUARD, DOCKER, True),
        (GUARD, CONTAINERD, False),
        (GUARD, STRANGE, False),
        ((), DOCKER, False),  # it changes nothing
        (("env", "mounts"), DOCKER, False),
        (("env", "linux.devices"), DOCKER, True),  # a reply with both fails the container
        (("update",), DOCKER, True),
        (PERMISSIONS, CONTAINERD, False),
    ],
)
def test_declared_permissions_must_be_carried(
    permissions: tuple[str, ...] | None, runtime: RuntimeInfo | None, skipped: bool
) -> None:
    reason = why_skipped(PluginSettings(permissions=permissions), SOCKET, runtime)
    assert bool(reason) == skipped
    if skipped:
        assert "docker does not carry" in reason
        assert 'runtimes = ["docker"]' in reason


@pytest.mark.parametrize(
    ("names", "runtime", "skipped"),
    [
        (("containerd",), CONTAINERD, False),
        (("containerd",), DOCKER, True),
        (("containerd",), STRANGE, True),
        (("containerd",), RuntimeInfo("", "", "", 2000), True),
        (("cri-o",), RuntimeInfo("CRI-O", "1.35", "", 2000), False),
        (("docker",), DOCKER, False),  # named, whatever it carries
        (("containerd",), None, False),
        ((str(SOCKET),), None, False),
        ((str(SOCKET),), STRANGE, False),
        (("/run/nri/nri.sock",), STRANGE, False),  # the same file
        (("/run/other.sock",), None, True),  # no name can change that
        (("/run/other.sock", "containerd"), None, False),
        (("/run/other.sock", "containerd"), CONTAINERD, False),
        (("/run/other.sock", "containerd"), DOCKER, True),
    ],
)
def test_what_is_named_decides_alone(
    names: tuple[str, ...], runtime: RuntimeInfo | None, skipped: bool
) -> None:
    settings = PluginSettings(permissions=GUARD, runtimes=names)
    reason = why_skipped(settings, SOCKET, runtime)
    assert bool(reason) == skipped
    assert not skipped or f"is meant for {', '.join(names)} only" in reason


def test_the_vectors_of_the_protocols_page() -> None:
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 6
    for runtimes, permissions, name, registered in rows:
        read = [json.loads(each) for each in (runtimes, permissions)]
        settings = PluginSettings(
            runtimes=None if read[0] is None else tuple(read[0]),
            permissions=None if read[1] is None else tuple(read[1]),
        )
        reason = why_skipped(settings, SOCKET, RuntimeInfo(name, "", "", 2000))
        assert bool(reason) == (registered == "no"), (runtimes, permissions, name)
