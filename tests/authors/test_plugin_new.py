"""`edge-agent plugin new` and `plugin build`: a folder that builds and passes its tests at once."""

import configparser
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.__main__ import main
from edge_agent.authors import compilers, manifest, project
from edge_agent.authors.inspection import sections_of
from edge_agent.cli import plugindev
from edge_agent.errors import ConfigError, ModuleError
from edge_agent.wasm.module import inspect
from tests.support.gobuild import require_go
from tests.support.rust import cargo, require_rust
from tests.support.zig import require_zig, zig
from tests.wasm.lab import ROOT
from tests.wasm.plugins import NOTHING, plugin

Run = Callable[..., tuple[int, str]]
MODULE = plugin({"create_container": NOTHING})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `edge-agent plugin ...` in a folder of its own: exit code, all that was printed."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        code = main(["plugin", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_c_from_nothing_to_a_passing_test(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_zig()
    code, said = run("new", "gpio-guard")
    assert code == 0, said
    monkeypatch.chdir("gpio-guard")
    # A folder of its own: what it needs of the SDK is in it, and nothing of the template is left.
    for path in Path().rglob("*"):
        if path.is_file():
            assert "PLUGIN_" not in path.read_text() + path.name
    for path in (ROOT / "plugins" / "sdk").iterdir():
        assert Path("sdk", path.name).read_bytes() == path.read_bytes()
    assert run("build")[0] == 0
    first = Path("50-gpio-guard.wasm").read_bytes()
    code, said = run("test", "--engine", "all")
    assert code == 0, said
    assert " 0 failed" in said
    code, said = run("check", "50-gpio-guard.wasm")
    assert code == 0
    assert "0 to set right, 0 to look at" in said
    code, said = run("inspect", "50-gpio-guard.wasm")
    assert "Marks each container" in said
    # Reproducible, from another folder too.
    assert run("build", Path().resolve())[0] == 0
    assert Path("50-gpio-guard.wasm").read_bytes() == first


def custom_sections() -> bytes:
    """Of the module in this folder."""
    (module,) = Path().glob("*.wasm")
    return b"".join(content for number, content in sections_of(module.read_bytes()) if number == 0)


@pytest.mark.system
def test_go_from_nothing_to_a_passing_test(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_go()
    assert run("new", "marker", "--lang", "go")[0] == 0
    monkeypatch.chdir("marker")
    assert "module edge.example/marker" in Path("go.mod").read_text()
    code, said = run("build")
    assert code == 0, said
    code, said = run("test", "--engine", "wasmi")
    assert code == 0, said
    vetted = subprocess.run(
        ["go", "vet", "."], env={**os.environ, "GOOS": "wasip1", "GOARCH": "wasm"}, check=False
    )
    assert vetted.returncode == 0
    formatted = subprocess.run(["gofmt", "-l", "."], capture_output=True, text=True, check=True)
    assert formatted.stdout == ""
    # Go has no debug information for WebAssembly; the names of functions it can keep.
    assert b"main.__plugin_.CreateContainer" not in custom_sections()
    assert run("build", "--debug")[0] == 0
    assert b"main.__plugin_.CreateContainer" in custom_sections()


@pytest.mark.system
def test_rust_from_nothing_to_a_passing_test(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_rust()
    assert run("new", "gpio-guard", "--lang", "rust")[0] == 0
    folder = tmp_path / "gpio-guard"
    monkeypatch.chdir(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            assert "PLUGIN_" not in path.read_text() + path.name
    locked = Path("Cargo.lock").read_text()
    code, said = run("build")
    assert code == 0, said
    assert Path("Cargo.lock").read_text() == locked
    module = Path("50-gpio-guard.wasm").read_bytes()
    assert len(module) < 32 << 10
    assert "language      rust" in run("inspect", "50-gpio-guard.wasm")[1]
    code, said = run("test", "--engine", "all")
    assert code == 0, said
    assert " 0 failed" in said
    code, said = run("check", "50-gpio-guard.wasm")
    assert (code, "0 to set right, 0 to look at" in said) == (0, True), said
    assert "imports      env.log: all granted" in said
    assert str(tmp_path).encode() not in module
    # Reproducible, from another folder too.
    other = tmp_path / "other" / "place"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("target", "*.wasm"))
    assert run("build", other)[0] == 0
    assert (other / "50-gpio-guard.wasm").read_bytes() == module
    # Its tests without WebAssembly, and what Rust's own tools say of it.
    assert "test result: ok. 2 passed" in cargo("test", folder=folder, target=tmp_path / "native")
    cargo("fmt", "--check", folder=folder, target=tmp_path / "native")
    cargo("clippy", "--", "-D", "warnings", folder=folder, target=tmp_path / "native")


def test_zig_from_nothing_to_a_passing_test(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_zig()
    assert run("new", "gpio-guard", "--lang", "zig")[0] == 0
    folder = tmp_path / "gpio-guard"
    monkeypatch.chdir(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            assert "PLUGIN_" not in path.read_text() + path.name
    for path in (ROOT / "plugins" / "sdk-zig").glob("*.zig"):
        assert Path("sdk", path.name).read_bytes() == path.read_bytes()
    code, said = run("build")
    assert code == 0, said
    module = Path("50-gpio-guard.wasm").read_bytes()
    assert len(module) < 16 << 10
    assert str(tmp_path).encode() not in module
    assert "language      zig" in run("inspect", "50-gpio-guard.wasm")[1]
    code, said = run("test", "--engine", "all")
    assert code == 0, said
    assert " 0 failed" in said
    code, said = run("check", "50-gpio-guard.wasm")
    assert (code, "0 to set right, 0 to look at" in said) == (0, True), said
    assert "imports      env.log: all granted" in said
    # Reproducible, from another folder too.
    other = tmp_path / "other" / "place"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns(".zig-cache", "*.wasm"))
    assert run("build", other)[0] == 0
    assert (other / "50-gpio-guard.wasm").read_bytes() == module
    # Its tests without WebAssembly, and what Zig's own tool says of its form.
    zig("test", "main.zig", folder=folder)
    zig("fmt", "--check", "main.zig", folder=folder)


def test_what_keeps_zig_from_building_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_zig()
    assert run("new", "hello", "--lang", "zig")[0] == 0
    source = Path("hello/main.zig")
    text = source.read_text()
    source.write_text(text.replace("get(.labels)", "get(.lables)"))
    code, said = run("build", "hello")
    assert (code, "lables" in said, "main.zig:" in said) == (1, True, True), said
    source.write_text(text.replace("pub fn create_container(", "pub fn create_containr("))
    assert "create_containr is no method of a plugin" in run("build", "hello")[1]
    source.write_text(text.replace("    pub fn create_container(", "    fn create_container("))
    assert "the module does not export plugin_create_container" in run("build", "hello")[1]
    with monkeypatch.context() as without:
        without.setattr(compilers, "ZIG_VERSION", "0.1")
        code, said = run("build", "hello")
        assert (code, "pip install 'ziglang~=0.17.0'" in said) == (1, True), said
    source.unlink()
    assert "has no source, main.zig" in run("build", "hello")[1]
    assert not Path("hello/50-hello.wasm").exists()


@pytest.mark.system
def test_what_keeps_rust_from_building_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_rust()
    assert run("new", "7fn", "--lang", "rust")[0] == 0  # no name for a crate
    source = Path("7fn/src/lib.rs")
    text = source.read_text()
    source.write_text(text.replace("Marker: create_container", "Marker: create_containr"))
    code, said = run("build", "7fn")
    assert (code, "create_containr" in said) == (1, True), said
    source.write_text(text.replace("plugin!(Marker: create_container", "plugin!(Marker: shutdown"))
    assert "the module does not export plugin_create_container" in run("build", "7fn")[1]
    toml = Path("7fn/Cargo.toml")
    toml.write_text(toml.read_text().replace('"cdylib"', '"rlib"'))
    assert 'makes no module: [lib] crate-type = ["cdylib"]' in run("build", "7fn")[1]
    with monkeypatch.context() as without:
        without.setattr(compilers, "_RUST_TARGET", "wasm64-unknown-unknown")  # rustup has none
        assert "rustup target add" in run("build", "7fn")[1]
    assert not Path("7fn/50-7fn.wasm").exists()


@pytest.mark.system
def test_dev_looks_at_no_file_that_cargo_makes(run: Run) -> None:
    require_rust()
    assert run("new", "hello", "--lang", "rust")[0] == 0
    before = plugindev.files_seen(Path("hello"))
    assert Path("hello/src/lib.rs") in before
    code, said = run("dev", "hello", "--once")
    assert (code, "3 passed, 0 failed" in said) == (0, True), said
    assert Path("hello/target").is_dir()
    assert plugindev.files_seen(Path("hello")) == before


def test_where_the_templates_are_left_out_it_says_where_they_are(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "TEMPLATES", tmp_path / "none")
    code, said = run("new", "hello")
    assert (code, "pip install edge-agent" in said) == (1, True)


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    code, said = run("new", "there")
    assert (code, "nothing is overwritten" in said) == (1, True)
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("name", ["", "UP", "a b", "../x", "-x", "x" * 64, "ä", "a/b", "50_x"])
def test_a_wrong_name_makes_nothing(name: str, run: Run, tmp_path: Path) -> None:
    code, said = run("new", "--", name) if name.startswith("-") else run("new", name)
    assert code == 1
    assert "small letters, digits and hyphens" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("plugin.toml", "name =", "nam ="), "name: is missing"),
        (("plugin.toml", '"c"', '"cobol"'), "must be one of"),
        (("plugin.toml", '"create_container"', '"create_containr"'), 'mean "create_container"'),
        (("plugin.toml", '"annotations"', '"anotations"'), 'mean "annotations"'),
        (("plugin.toml", '"create_container"', '"run_pod_sandbox"'), "does not export"),
        (("hello.c", "static bool configure", "static bol configure"), "unknown type name"),
    ],
)
def test_what_keeps_it_from_being_built_is_told(
    change: tuple[str, str, str], told: str, run: Run
) -> None:
    require_zig()
    assert run("new", "hello")[0] == 0
    name, before, after = change
    path = Path("hello", name)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    code, said = run("build", "hello")
    assert code == 1
    assert told in said
    assert not Path("hello/50-hello.wasm").exists()


def test_a_folder_without_source_or_compiler_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "edge-agent plugin new makes it" in run("build")[1]
    assert run("new", "marker", "--lang", "go")[0] == 0
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        code, said = run("build", "marker")
    assert (code, "there is no Go here" in said) == (1, True)
    assert run("new", "crab", "--lang", "rust")[0] == 0
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        code, said = run("build", "crab")
    assert (code, "there is no Rust here" in said) == (1, True)
    require_zig()
    assert run("new", "hello")[0] == 0
    Path("hello/hello.c").unlink()
    assert "has no source" in run("build", "hello")[1]


# --- plugin.toml in a module

TEXT = 'name = "x"\nversion = "1.2.0"\nevents = ["create_container"]\n'


def test_a_module_keeps_its_code_and_has_one_text() -> None:
    twice = manifest.embed(manifest.embed(MODULE, 'name = "old"\n'), TEXT)
    assert twice == manifest.embed(MODULE, TEXT)
    assert twice.startswith(MODULE)
    assert inspect(twice).functions == inspect(MODULE).functions
    said = manifest.embedded(Path("10-x.wasm"), twice)
    assert said is not None
    assert (said.name, said.version, said.events) == ("x", "1.2.0", ("create_container",))
    assert manifest.embedded(Path("10-x.wasm"), MODULE) is None


@pytest.mark.parametrize(
    "text", ["", "name = 7", 'name = "x"\nmore = 1\n', "[" * 10_000, 'name = "x"\n#' + "x" * 20_000]
)
def test_a_wrong_text_in_a_module_is_told_and_no_more(text: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "10-x.wasm"
    path.write_bytes(manifest.embed(MODULE, text))
    with pytest.raises(ConfigError):
        manifest.embedded(path, path.read_bytes())
    code, said = run("inspect", path)
    assert code == 0
    assert "problem" in said


def test_check_compares_it_with_exports_and_settings(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "10-x.wasm"
    path.write_bytes(manifest.embed(MODULE, TEXT + 'permissions = ["env", "hooks"]\n'))
    assert "plugin.toml" in run("check", path)[1]
    path.with_suffix(".toml").write_text('permissions = ["env"]\n')
    code, said = run("check", path)
    assert (code, "it needs hooks, which" in said) == (0, True), said
    path.write_bytes(manifest.embed(MODULE, TEXT.replace("create_container", "stop_container")))
    assert "it says that it takes stop_container" in run("check", path)[1]
    path.write_bytes(manifest.embed(MODULE, "nothing"))
    code, said = run("check", path)
    assert (code, "not valid TOML" in said) == (1, True), said


@given(st.binary(max_size=64), st.integers(0, 200), st.binary(max_size=8))
def test_any_bytes_are_read_without_another_error(tail: bytes, at: int, put: bytes) -> None:
    wasm = manifest.embed(MODULE, TEXT)
    for damaged in (wasm + tail, wasm[:at] + put + wasm[at + len(put) :], wasm[: len(wasm) - at]):
        try:
            manifest.embedded(Path("x"), damaged)
            manifest.embed(damaged, TEXT)
        except (ConfigError, ModuleError):
            pass


def test_the_python_package_brings_every_file_of_the_templates() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    package = project.TEMPLATES.parent
    brought = {
        path
        for pattern in config["options.package_data"]["edge_agent.authors"].split(",")
        for path in package.glob(pattern.strip())
        if path.is_file()
    }
    folders = [project.TEMPLATES, project.TEMPLATES / "c" / "sdk"]
    wanted = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    rust = project.TEMPLATES / "rust" / "sdk"
    wanted |= {rust / "Cargo.toml", *(rust / "src").iterdir()}
    wanted |= {*(project.TEMPLATES / "zig" / "sdk").glob("*.zig")}
    assert wanted <= brought
    assert wanted


def test_the_templates_are_those_of_the_shelf() -> None:
    """Symbolic links: one text, two places."""
    for link, original in (
        ("c/sdk/edge_nri.h", "sdk/edge_nri.h"),
        ("rust/sdk", "sdk-rust"),
        ("zig/sdk", "sdk-zig"),
        ("go/go.mod", "go-annotator/go.mod"),
        ("go/go.sum", "go-annotator/go.sum"),
        ("go/unsubscribed.go", "go-annotator/unsubscribed.go"),
    ):
        assert (project.TEMPLATES / link).samefile(ROOT / "plugins" / original)
