"""docs/plugins.md: its first plugin compiles by its own command line, and works."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.pb import nri_pb2

from .guest import ROOT, Guest, GuestError, capture

pytest_plugins = ["pytester"]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))


def block(language: str, holding: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (text,) = (each for each in found if holding in each)
    return str(text)


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed (pip install ziglang==0.17.1)")
    folder = tmp_path_factory.mktemp("hello")
    (folder / "hello.c").write_text(block("c", "NRI_PLUGIN"))
    (folder / "plugins").symlink_to(ROOT / "plugins")
    python, *arguments = shlex.split(block("sh", "ziglang cc"))
    assert python == "python"
    subprocess.run([sys.executable, *arguments, "-Wall", "-Werror"], cwd=folder, check=True)
    return folder / "50-hello.wasm"


def test_the_first_plugin_marks_containers(hello: Path) -> None:
    guest = Guest(hello)
    assert guest.configure() == 1 << 3
    adjust = guest.create(CREATE).adjust
    assert dict(adjust.annotations) == {"hello.example/app": "bed"}
    assert [(pair.key, pair.value) for pair in adjust.env] == [("HELLO_APP", "bed")]
    assert guest.lines == ["marked main of bed"]
    assert 3500 < hello.stat().st_size < 4500  # "4 KB"


def test_the_first_plugin_leaves_others_alone_and_has_no_settings(hello: Path) -> None:
    guest = Guest(hello)
    other = nri_pb2.CreateContainerRequest(container=CREATE.container)
    assert guest.call("create_container", other.SerializeToString()) == b""
    with pytest.raises(GuestError, match="no settings, not even loud"):
        guest.configure("loud")


def test_the_page_about_tests_is_true(
    hello: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytester: pytest.Pytester,
) -> None:
    page = (ROOT / "docs" / "plugin-test.md").read_text()

    def blocks(language: str) -> list[str]:
        return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)

    commands, (cases,), (conftest, test) = map(blocks, ("sh", "toml", "python"))
    for folder in (tmp_path, pytester.path):
        (folder / "50-hello.wasm").write_bytes(hello.read_bytes())
        (folder / "50-hello.cases.toml").write_text(cases)
    monkeypatch.chdir(tmp_path)
    lines = [shlex.split(line, comments=True) for line in "".join(commands).splitlines()]
    assert len(lines) == 6
    for program, *words in lines:
        assert program == "edge-agent"
        assert main(words) == 0
    monkeypatch.chdir(pytester.path)
    pytester.makeconftest(conftest)
    pytester.makepyfile(test)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)
