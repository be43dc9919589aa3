"""docs/rules.md and docs/devices.md: every recipe does what its cases say, on every engine."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from tests.support import engines

from .guest import ROOT, Guest, plugin

PAGES = {"rules": "recipes.toml", "devices": "devices.toml"}  # of docs/, and its cases


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def cases(name: str) -> str:
    return Path(__file__).with_name(PAGES[name]).read_text()


def recipes(name: str) -> dict[str, str]:
    """The text of each recipe's only block of YAML, by its heading."""
    _, _, part = page(name).partition("## Recipes\n")
    found = {}
    for text in part.split("\n### ")[1:]:
        heading, _, rest = text.partition("\n")
        (found[heading],) = re.findall(r"^```yaml\n(.*?)```$", rest, re.DOTALL | re.MULTILINE)
    return found


@pytest.mark.parametrize(("name", "least"), [("rules", 20), ("devices", 10)])
def test_a_page_has_its_recipes_and_each_has_cases(name: str, least: int) -> None:
    assert len(recipes(name)) >= least
    assert {case["recipe"] for case in tomllib.loads(cases(name))["case"]} == set(recipes(name))


def test_what_a_rule_asks_of_cdi_is_in_the_file_beside_it() -> None:
    files = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", page("devices"), re.S)]
    there = {f"{file['kind']}={device['name']}" for file in files for device in file["devices"]}
    asked = set(re.findall(r"cdi-devices: \[([^]]*)\]", page("devices")))
    assert len(asked) == 2
    assert asked == there


@pytest.mark.parametrize(
    "text", [text for name in PAGES for text in re.findall(r"```yaml\n(.*?)```", page(name), re.S)]
)
def test_what_a_page_shows_is_understood(text: str) -> None:
    Guest(plugin("rules")).configure(text)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("engine", sorted(engines.PACKAGES))
def test_recipes_do_what_they_say(
    name: str, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = engines.make(engine)
    if isinstance(made, str):
        pytest.skip(made)
    (tmp_path / "10-rules.wasm").write_bytes(plugin("rules").read_bytes())
    (tmp_path / "10-rules.cases.toml").write_text(_with_configurations(name))
    code = main(["plugin", "test", str(tmp_path / "10-rules.wasm"), "--engine", engine])
    assert code == 0, capsys.readouterr().out


def _with_configurations(name: str) -> str:
    """The cases as `plugin test` takes them: the recipe's text in place of its heading."""
    number = 0
    lines = []
    texts = recipes(name)
    for line in cases(name).splitlines():
        if line.startswith("recipe = "):
            number += 1
            heading = tomllib.loads(line)["recipe"]
            lines.append(f'name = "{number}: {heading}"')
            lines.append(f"config = '''\n{texts[heading]}'''")
        else:
            lines.append(line)
    return "\n".join(lines)
