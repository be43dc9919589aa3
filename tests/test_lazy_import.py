"""What is imported later: nothing until it is used, then the module itself."""

import subprocess
import sys

import pytest

USES = {
    "import and attribute": "import wave; wave.open",
    "import of a name": "from wave import open",
    "a submodule": "import json.tool; json.tool.main",
    "a submodule from its package": "from json import tool; tool.main",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_module_that_is_imported_later_is_itself_once_it_is_used(use: str) -> None:
    name = "json.tool" if "json" in use else "wave"
    said = output(f"""
import sys
from edge_agent.lazy_import import import_later
import_later({name!r})
import {name}, inspect
inspect.getmodule(print)  # looks through all modules
before = sys.modules[{name!r}]
{use}
import {name} as after
print(type(before).__name__, before is not after, hasattr(after, "__file__"))
print(getattr(before, "main", None) is getattr(after, "main", None))
""")
    assert said == "_Later True True\nTrue\n"


def test_a_module_that_is_there_stays_the_one_it_is() -> None:
    said = output("""
import json.tool, sys
from edge_agent.lazy_import import import_later
import_later("json.tool")
print(json.tool is sys.modules["json.tool"], type(json.tool).__name__)
""")
    assert said == "True module\n"


def test_what_is_not_there_is_missed_when_it_is_used() -> None:
    said = output("""
from edge_agent.lazy_import import import_later
import_later("no_such_module")
import no_such_module
try:
    no_such_module.name
except ImportError as error:
    print(error)
""")
    assert said == "No module named 'no_such_module'\n"


def output(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
