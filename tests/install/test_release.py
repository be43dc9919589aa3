"""What `scripts/release` makes for one architecture, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from edge_agent import __version__
from scripts.deb.release import notes
from scripts.deb.sbom import TARGETS
from scripts.deb.wheels import MACHINES
from tests.install.conftest import ROOT


def release(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.deb.release", *words],
        cwd=ROOT,
        env={"PROFILE": "ci", **os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "release"
    done = release(
        "--arch=amd64", "--compression=gz", f"--output={folder}", f"--tag=v{__version__}"
    )
    if "no rustup here" in done.stderr or "install Rust" in done.stderr:
        pytest.skip(f"the engines cannot be built here: {done.stderr.strip()}")
    if "not a git repository" in done.stderr:
        pytest.skip("not a git checkout: there are no sources to release")
    assert done.returncode == 0, done.stderr
    return folder


def components(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    document = json.loads((folder / f"{name}.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    return {each["purl"]: each for each in document["components"]}


def test_it_is_whole_and_each_file_has_its_sum(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    (engines,) = (name for name in names if name.startswith("edge_agent_engines-"))
    assert names == {
        "NOTES.md",
        "SHA256SUMS",
        engines,
        f"edge-agent-{__version__}.tar.gz",
        f"edge-agent-fleet_{__version__}_all.cdx.json",
        f"edge-agent-fleet_{__version__}_all.deb",
        f"edge-agent_{__version__}_amd64.cdx.json",
        f"edge-agent_{__version__}_amd64.deb",
        f"edge_agent-{__version__}-py3-none-any.whl",
    }
    lines = (made / "SHA256SUMS").read_text().splitlines()
    sums = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert sums.keys() == names - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_the_bill_of_materials_names_wheels_and_crates(made: Path) -> None:
    found = components(made, f"edge-agent_{__version__}_amd64")
    distributions = {purl.split("@")[0] for purl in found if purl.startswith("pkg:pypi/")}
    assert distributions == {
        f"pkg:pypi/{name}"
        for name in ("paho-mqtt", "protobuf", "msgpack", "cffi", "pynacl", "wasmtime")
    } | {"pkg:pypi/edge-agent-engines"}
    for purl, component in found.items():
        if purl.startswith("pkg:pypi/edge-agent-engines"):
            (wheel,) = made.glob("edge_agent_engines-*.whl")
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            assert component["hashes"][0]["content"] == digest
    locked = (ROOT / "native" / "engines" / "Cargo.lock").read_text()
    pairs = set(re.findall(r'^name = "(.*)"\nversion = "(.*)"$', locked, re.M))
    crates = {
        tuple(unquote(purl)[10:].split("@")) for purl in found if purl.startswith("pkg:cargo/")
    }
    assert ("wasmi", "2.0.0") in crates
    assert ("wasmer", "7.4.2") in crates
    assert ("wat", "1") not in {(name, version[:1]) for name, version in crates}  # for tests only
    assert crates <= pairs


def test_an_operators_package_has_its_own(made: Path) -> None:
    found = components(made, f"edge-agent-fleet_{__version__}_all")
    names = {purl.split("@")[0].removeprefix("pkg:pypi/") for purl in found}
    assert names == {"rich", "pygments", "markdown-it-py", "mdurl", "tomlkit"}


def test_another_versions_tag_is_refused(tmp_path: Path) -> None:
    done = release("--tag=v99.0", f"--output={tmp_path / 'release'}")
    assert done.returncode == 1
    assert "v99.0" in done.stderr
    assert not (tmp_path / "release").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = release(f"--output={tmp_path}")
    assert done.returncode == 1
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_notes_are_the_newest_part() -> None:
    assert notes("# Changes\n\n## 2.0 - today\n\n- new\n\n## 1.0\n\n- old\n") == "- new\n"


def test_each_architecture_has_its_target() -> None:
    script = (ROOT / "scripts" / "build-wheels").read_text()
    assert dict(re.findall(r"^  \[(\w+)\]=(\S+)$", script, re.M)) == TARGETS
    assert TARGETS.keys() == MACHINES.keys()
