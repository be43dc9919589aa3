"""The folder of a plugin's source: made by `edge-agent plugin new`, built by `plugin build`."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edge_agent.authors import manifest
from edge_agent.authors.manifest import Language, Manifest
from edge_agent.errors import ConfigError
from edge_agent.store import files
from edge_agent.wasm.module import inspect

TEMPLATES = Path(__file__).with_name("templates")
BUILD_TIMEOUT_S = 1800  # the first build of a Go plugin also downloads
_MAX_SAID = 4000  # characters of what a compiler said
# In a template's text and names: what the plugin is called. Of go.mod the name of its original.
_NAME, _MODULE = "PLUGIN_NAME", "go-annotator"
# Imports nothing of WASI: half the module, and less for an engine to allow.
_RUST_TARGET = "wasm32-unknown-unknown"
_MISSING = {
    "c": "there is no compiler for it here: pip install ziglang",
    "go": "there is no Go here: Go 1.24 or later, from your distribution or go.dev",
    "rust": "there is no Rust here: Rust 1.82 or later, from rustup.rs or your distribution",
}


def create(folder: Path, name: str, language: Language) -> list[Path]:
    """A folder that can be built and tested at once; its files. ConfigError: the name is none, or
    something is there already."""
    if not TEMPLATES.is_dir():
        raise ConfigError(
            "the package of a board has no templates: pip install edge-agent where plugins are made"
        )
    text = _rendered((TEMPLATES / language / manifest.FILE).read_text(), name)
    module = manifest.parse(folder / manifest.FILE, text).module_name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{folder}: is there already; nothing is overwritten") from None
    except OSError as error:
        raise ConfigError(f"{folder}: {os.strerror(error.errno or 0)}") from error
    written = []
    for source in (TEMPLATES / language, TEMPLATES / "all"):
        # `**` does not follow symbolic links.
        for path in (
            each
            for wanted in ("**/*", "sdk/*", "sdk/src/*")
            for each in sorted(source.glob(wanted))
        ):
            if path.is_dir():
                continue
            target = _target(folder, source, path, name, module)
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write(target, _rendered(path.read_text(), name).encode(), mode=0o644)
            written.append(target)
    return written


def build(folder: Path) -> Path:
    """Compile a plugin and put its plugin.toml into the module, NN-name.wasm in its folder.

    ConfigError: plugin.toml is wrong, the language's tool is missing, or it failed.
    """
    path = folder / manifest.FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; edge-agent plugin new makes it")
    said = manifest.read(path)
    target = folder / said.module_name
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as name:
        made = Path(name) / said.module_name
        command, environment = _command(folder, said, made)
        output = _run(command, folder, environment)
        if said.language == "rust":
            made = _cargo_artifact(folder, output)
        module = manifest.embed(made.read_bytes(), path.read_text())
    exported = inspect(module).functions
    for event in said.events:
        if f"plugin_{event}" not in exported:
            raise ConfigError(f"{path}: events: the module does not export plugin_{event}")
    files.write(target, module, mode=0o644)
    return target


def _command(
    folder: Path, said: Manifest, made: Path
) -> tuple[list[str | Path], Mapping[str, str]]:
    """The compiler's words, and what it needs in its environment. ConfigError: it is not here."""
    if said.language == "go":
        if shutil.which("go") is None:
            raise ConfigError(_MISSING["go"])
        flags = ["-trimpath", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]
        return ["go", "build", *flags, "-o", made, "."], {"GOOS": "wasip1", "GOARCH": "wasm"}
    if said.language == "rust":
        return _cargo(folder)
    if importlib.util.find_spec("ziglang") is None:
        raise ConfigError(_MISSING["c"])
    sources = sorted(path.name for path in folder.glob("*.c"))
    if not sources:
        raise ConfigError(f"{folder}: has no source, *.c")
    flags = [
        "-target",
        "wasm32-freestanding",
        "-std=c23",
        "-Os",
        "-ffreestanding",
        "-nostdlib",
        "-s",
    ]
    flags += ["-Wall", "-Wextra", "-Isdk", "-Wl,--no-entry,-z,stack-size=32768"]
    return [sys.executable, "-m", "ziglang", "cc", *flags, *sources, "-o", made], {}


def _cargo(folder: Path) -> tuple[list[str | Path], Mapping[str, str]]:
    """Cargo's words and environment. ConfigError: something is missing."""
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        raise ConfigError(_MISSING["rust"])
    asked: list[str | Path] = ["rustc", "--print", "target-libdir", "--target", _RUST_TARGET]
    if not Path(_run(asked, folder, {}).decode().strip()).is_dir():
        raise ConfigError(
            f"this Rust has no target {_RUST_TARGET}: rustup target add {_RUST_TARGET}, or your"
            " distribution's package of it (Debian: libstd-rust-dev-wasm32)"
        )
    home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    flags = [
        # A panic names its place: the same text wherever the folder is.
        f"--remap-path-prefix={home}=/cargo",
        f"--remap-path-prefix={folder.resolve()}=.",
        "-Clink-arg=-zstack-size=65536",  # Rust's own default is 1 MiB for each instance
    ]
    command: list[str | Path] = ["cargo", "build", "--release", "--target", _RUST_TARGET]
    command.append("--message-format=json-render-diagnostics")
    return command, {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}


def _cargo_artifact(folder: Path, output: bytes) -> Path:
    """The module that Cargo says it made. ConfigError: none."""
    for line in reversed(output.splitlines()):
        message = json.loads(line) if line.startswith(b"{") else {}
        for name in message.get("filenames", ()):
            if name.endswith(".wasm"):
                return Path(name)
    raise ConfigError(f'{folder}/Cargo.toml: makes no module: [lib] crate-type = ["cdylib"]')


def _run(command: list[str | Path], folder: Path, environment: Mapping[str, str]) -> bytes:
    """What it printed. ConfigError: it failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{folder}: the compiler took over {BUILD_TIMEOUT_S} s") from None
    except OSError as error:
        raise ConfigError(f"{command[0]}: {os.strerror(error.errno or 0)}") from error
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise ConfigError(f"{folder}: the compiler failed:\n{said[:_MAX_SAID]}")
    return done.stdout


def _target(folder: Path, source: Path, path: Path, name: str, module: str) -> Path:
    """Where a template's file goes: `plugin.cases.toml` is NN-name.cases.toml in the folder."""
    relative = path.relative_to(source)
    plain = str(relative).replace("dot-", ".").replace(_NAME, name)
    return folder / plain.replace("PLUGIN_MODULE", module.removesuffix(".wasm"))


def _rendered(text: str, name: str) -> str:
    return text.replace(_NAME, name).replace(_MODULE, name)
