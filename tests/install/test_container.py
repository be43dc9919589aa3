"""The container image file and the DaemonSet name what the program really has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent import __version__
from edge_agent.__main__ import make_parser
from edge_agent.cli import DEFAULT_CONFIG
from edge_agent.config import AgentConfig, NriConfig, parse_agent_config
from edge_agent.wasm.compiler import MEMORY_BYTES
from tests.install.conftest import ROOT

IMAGE = (ROOT / "configs" / "container" / "Containerfile").read_text()
DEFAULTS = AgentConfig(node="board")


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    text = (ROOT / "configs" / "k3s" / "edge-agent.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects["DaemonSet"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def words(instruction: str) -> list[str]:
    """The JSON list of the image file's last such instruction."""
    found = re.findall(rf"^{instruction} (\[.*\])$", IMAGE, re.M)
    result = json.loads(found[-1])
    assert isinstance(result, list)
    return result


def copied() -> list[tuple[list[str], str]]:
    """Every (sources, target) that comes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", IMAGE, re.M)
    return [(line.split()[:-1], line.split()[-1]) for line in lines]


def test_what_the_image_copies_exists() -> None:
    for sources, _ in copied():
        for source in sources:
            assert (ROOT / source).exists(), source
    assert (["edge_agent/config/agent.toml"], str(DEFAULT_CONFIG)) in copied()


def test_the_image_runs_the_agent_with_its_default_places() -> None:
    arguments = make_parser(words("CMD")).parse_args(words("CMD"))
    assert arguments.config == DEFAULT_CONFIG
    assert words("ENTRYPOINT") == ["edge-agent"]
    assert words("VOLUME") == [str(DEFAULTS.state_dir), str(DEFAULTS.control_socket.parent)]
    assert str(DEFAULTS.plugin_dir) in IMAGE


def test_the_daemonset_runs_commands_that_exist(container: dict[str, Any]) -> None:
    _, *status = container["livenessProbe"]["exec"]["command"]
    for arguments in (container["args"], status):
        assert make_parser(arguments).parse_args(arguments).config == DEFAULT_CONFIG
    assert container["image"].endswith(f":{__version__}")


def test_every_place_of_the_agent_is_mounted(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert sorted(mounts.values()) == sorted(volumes)
    for place in (DEFAULTS.plugin_dir, DEFAULTS.state_dir, DEFAULTS.control_socket.parent):
        assert str(place) in mounts
    nri = str(NriConfig.sockets[0].parent)
    assert volumes[mounts[nri]]["hostPath"]["path"] == nri
    assert str(DEFAULT_CONFIG) in mounts


def test_the_configuration_is_in_order(objects: dict[str, dict[str, Any]]) -> None:
    (name, text), *others = objects["ConfigMap"]["data"].items()
    assert not others
    parse_agent_config(Path(name), text, hostname="board")


def test_the_compiler_fits_into_the_limit(container: dict[str, Any]) -> None:
    limit = re.fullmatch(r"(\d+)Mi", container["resources"]["limits"]["memory"])
    assert limit is not None
    assert int(limit[1]) << 20 > MEMORY_BYTES


def test_it_has_no_privilege_but_being_root(container: dict[str, Any]) -> None:
    context = container["securityContext"]
    # By which its compiler becomes another user and can be ended: docs/adr/0038.
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SETUID", "SETGID", "KILL"]}
    assert (context["privileged"], context["readOnlyRootFilesystem"]) == (False, True)


def test_all_objects_share_a_namespace(objects: dict[str, dict[str, Any]]) -> None:
    name = objects["Namespace"]["metadata"]["name"]
    assert {
        each["metadata"]["namespace"] for kind, each in objects.items() if kind != "Namespace"
    } == {name}
    labels = objects["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert objects["DaemonSet"]["spec"]["template"]["metadata"]["labels"] == labels
