"""docs/rules.md: every recipe does what tests/plugins/recipes.toml says, on every engine."""

import re
import tomllib
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from tests.support import engines

from .guest import ROOT, Guest, plugin

PAGE = (ROOT / "docs" / "rules.md").read_text()
CASES = (Path(__file__).with_name("recipes.toml")).read_text()


def recipes() -> dict[str, str]:
    """The text of each recipe's only block, by its heading."""
    _, _, part = PAGE.partition("## Recipes\n")
    found = re.findall(r"^### ([^\n]*)\n\n```yaml\n(.*?)```$", part, re.DOTALL | re.MULTILINE)
    assert len(found) == part.count("### ") == part.count("```yaml")
    return dict(found)


RECIPES = recipes()


def test_the_page_has_at_least_twenty_recipes_and_each_has_cases() -> None:
    assert len(RECIPES) >= 20
    assert {case["recipe"] for case in tomllib.loads(CASES)["case"]} == set(RECIPES)


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_page_shows_is_understood(text: str) -> None:
    Guest(plugin("rules")).configure(text)


@pytest.mark.parametrize("engine", sorted(engines.PACKAGES))
def test_recipes_do_what_they_say(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = engines.make(engine)
    if isinstance(made, str):
        pytest.skip(made)
    (tmp_path / "10-rules.wasm").write_bytes(plugin("rules").read_bytes())
    (tmp_path / "10-rules.cases.toml").write_text(_with_configurations())
    code = main(["plugin", "test", str(tmp_path / "10-rules.wasm"), "--engine", engine])
    assert code == 0, capsys.readouterr().out


def _with_configurations() -> str:
    """The cases as `plugin test` takes them: the recipe's text in place of its heading."""
    number = 0
    lines = []
    for line in CASES.splitlines():
        if line.startswith("recipe = "):
            number += 1
            heading = tomllib.loads(line)["recipe"]
            lines.append(f'name = "{number}: {heading}"')
            lines.append(f"config = '''\n{RECIPES[heading]}'''")
        else:
            lines.append(line)
    return "\n".join(lines)
