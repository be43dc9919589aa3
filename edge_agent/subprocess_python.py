"""Another interpreter that finds what this one finds, wherever that came from."""

import os
import sys
from pathlib import Path

_START = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "


def command(statement: str, *arguments: str) -> list[str]:
    """The words that run `statement` in a child, isolated from the environment (python -I -S).

    `arguments` are its sys.argv[1:]; this process's search path is its own.
    """
    path = "\n".join(_search_path())
    return [sys.executable, "-I", "-S", "-c", _START + statement, path, *arguments]


def _search_path() -> list[str]:
    """Where the child looks for modules: this package first, then as this process does."""
    package = Path(__file__).parents[1]
    return [str(package), *(entry for entry in sys.path if os.path.isabs(entry))]  # noqa: PTH117
