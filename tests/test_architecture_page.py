"""docs/architecture.md, docs/glossary.md and tests/README.md name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = "".join((ROOT / "docs" / name).read_text() for name in ("architecture.md", "glossary.md"))
FILES = sorted(set(re.findall(r"\b[a-z_]+(?:/[a-z_]+)*\.py\b", PAGE)))


def test_the_page_names_the_files_of_each_flow() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_the_page_names_is_there(file: str) -> None:
    assert (ROOT / "edge_agent" / file).is_file()


TABLE = (ROOT / "tests" / "README.md").read_text().partition("| modules of `edge_agent/` |")[2]


def test_the_index_of_the_tests_names_modules_and_tests_that_are_there() -> None:
    rows = [
        re.findall(r"`([^`]+)`", half)
        for row in TABLE.splitlines()[2:]
        for half in row.split(" | ")
    ]
    assert len(rows) > 50
    for modules, tests in zip(rows[::2], rows[1::2], strict=True):
        for each in modules:
            file = each if each.endswith("/") else f"{each}.py"
            assert [*(ROOT / "edge_agent").glob(file)], each
        for each in tests:
            assert [*(ROOT / "tests").glob(each)], each
