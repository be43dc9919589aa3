"""What docs/fleet.md and the README tell an operator to type and to write."""

import re
import shlex

import pytest

from edge_agent.__main__ import make_parser
from edge_agent.operator import deployment_file
from edge_agent.operator.folder import FleetFolder
from tests.operator.conftest import ROOT, Home
from tests.support.mosquitto import needs_mosquitto

GUIDE = (ROOT / "docs" / "fleet.md").read_text()
COMMANDS = sorted(
    {
        " ".join(line.replace("\\\n", " ").split())
        for line in re.findall(
            r"(?:^    |`)(edge-agent fleet [a-z](?:\\\n|[^`\n\\])*)", GUIDE, re.M
        )
    }
)


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_guide_are_understood(command: str) -> None:
    words = shlex.split(command.partition("#")[0])[1:]
    assert callable(make_parser(["fleet"]).parse_args(words).command)


def test_the_tests_that_the_readme_names_as_proof_are_there() -> None:
    named = re.findall(r"tests/[\w/.]+\w", (ROOT / "README.md").read_text())
    assert len(named) > 10
    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.system
@needs_mosquitto
def test_the_deployment_of_the_guide_is_one(published: Home) -> None:
    (text,) = re.findall(r"```toml\n(valid_for.*?)```", GUIDE, re.S)
    for version in ("1.0.0", "1.1.0"):
        source = published.path / "releases" / "guard" / f"{version}.toml"
        target = published.path / "releases" / "resource-guard" / source.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(source.read_text())
    (published.path / "resource-guard.conf").write_text("")
    found = deployment_file.read(FleetFolder(published.path), text).document("greenhouse", 1, 0.0)
    (entry,) = found.plugins
    assert entry.offers[0].sources == (
        "mqtt",
        "https://files.example/resource-guard-1.1.0.wasm",
    )
