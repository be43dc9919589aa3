"""docs/architecture.md and docs/glossary.md name files that are there."""

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
