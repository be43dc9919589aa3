"""What doctor reads out of containerd's files, beside what containerd itself makes of them."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from edge_agent.cli import runtimefiles
from tests.support.containerd_system import ArchiveUnreachable, containerd_system

NRI = "io.containerd.nri.v1.nri"
SECTION = f"[plugins.'{NRI}']\n"
DEFAULTS = {
    "disable": False,
    "disable_connections": False,
    "socket_path": "/var/run/nri/nri.sock",
}
HEAD = "version = 3\nimports = ['conf.d/*.toml']\n"

TREES: dict[str, dict[str, str]] = {
    "one file": {"config.toml": f"version = 3\n{SECTION}disable = true"},
    "single keys are overridden": {
        "config.toml": f"{HEAD}{SECTION}disable = true\nsocket_path = '/a'",
        "conf.d/10.toml": f"version = 3\n{SECTION}disable = false",
    },
    "the later file in the alphabet counts": {
        "config.toml": HEAD,
        "conf.d/20.toml": f"version = 3\n{SECTION}socket_path = '/b'",
        "conf.d/10.toml": f"version = 3\n{SECTION}socket_path = '/a'\ndisable_connections = true",
    },
    "hidden files match, others do not": {
        "config.toml": HEAD,
        "conf.d/.h.toml": f"version = 3\n{SECTION}socket_path = '/hidden'",
        "conf.d/x.conf": f"version = 3\n{SECTION}socket_path = '/no'",
    },
    "imports of imports, in rounds, each once": {
        "config.toml": "version = 3\nimports = ['a.toml', 'b.toml']",
        "a.toml": f"version = 3\nimports = ['c.toml', 'config.toml']\n{SECTION}socket_path = '/a'",
        "b.toml": f"version = 3\n{SECTION}socket_path = '/b'",
        "c.toml": f"version = 3\n{SECTION}socket_path = '/c'",
    },
    "lists are joined": {
        "config.toml": f"{HEAD}disabled_plugins = ['io.containerd.x.v1.a']",
        "conf.d/1.toml": "version = 3\ndisabled_plugins = ['io.containerd.x.v1.b']",
    },
}


@pytest.fixture(scope="module")
def containerd() -> Path:
    try:
        return containerd_system() / "usr" / "bin" / "containerd"
    except ArchiveUnreachable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", TREES)
def test_files_are_read_as_containerd_reads_them(
    containerd: Path, tmp_path: Path, name: str
) -> None:
    for path, text in TREES[name].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    main = tmp_path / "config.toml"
    command = [str(containerd), "--config", str(main), "config", "dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    dumped = tomllib.loads(done.stdout)
    found = runtimefiles.read(Path("/"), main)
    section = found.plugins.get(NRI, {})
    assert isinstance(section, dict)
    judged = {key: dumped["plugins"][NRI][key] for key in DEFAULTS}
    assert {**DEFAULTS, **section} == judged
    assert found.disabled_plugins == frozenset(dumped["disabled_plugins"])


def test_an_import_that_is_not_there_is_an_error_to_both(containerd: Path, tmp_path: Path) -> None:
    main = tmp_path / "config.toml"
    main.write_text("version = 3\nimports = ['gone.toml']")
    places = [f"--{name}={tmp_path / name}" for name in ("root", "state", "address")]
    command = [str(containerd), "--config", str(main), *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "gone.toml: no such file" in done.stderr
    with pytest.raises(ValueError, match="is named and is not there"):
        runtimefiles.read(Path("/"), main)
