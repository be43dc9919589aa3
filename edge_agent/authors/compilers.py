"""The compilers of plugins: one command for each language, its environment, and what is missing.

Without debug information a module is the same from the same source, wherever its folder is.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.authors.manifest import Language
from edge_agent.errors import ConfigError

BUILD_TIMEOUT_S = 1800  # the first build of a Go plugin also downloads
ZIG_VERSION = "0.17"  # the language changes with each
_MAX_SAID = 4000  # characters of what a compiler said
# Imports nothing of WASI: half the module, and less for an engine to allow.
_RUST_TARGET = "wasm32-unknown-unknown"
_MISSING = {
    "c": "there is no compiler for it here: pip install ziglang",
    "go": "there is no Go here: Go 1.24 or later, from your distribution or go.dev",
    "rust": "there is no Rust here: Rust 1.82 or later, from rustup.rs or your distribution",
    "zig": f"there is no Zig {ZIG_VERSION} here: pip install 'ziglang~={ZIG_VERSION}.0'",
}
_ZIG = (sys.executable, "-m", "ziglang")


@dataclass(frozen=True)
class _Command:
    words: list[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)


def compiled(language: Language, folder: Path, made: Path, *, debug: bool) -> Path:
    """Compile the folder's source, to `made` unless the tool chooses the place; where it is.

    With `debug` it keeps what a debugger needs, and is optimised as without. ConfigError: the tool
    is missing, or it failed.
    """
    command = _COMMANDS[language](folder, made, debug)
    output = _run(command, folder)
    return _cargo_artifact(folder, output) if language == "rust" else made


def _c(folder: Path, made: Path, debug: bool) -> _Command:
    if _zig_version() is None:
        raise ConfigError(_MISSING["c"])
    sources = sorted(path.name for path in folder.glob("*.c"))
    if not sources:
        raise ConfigError(f"{folder}: has no source, *.c")
    flags = ["-target", "wasm32-freestanding", "-std=c23", "-Os", "-ffreestanding", "-nostdlib"]
    flags.append("-g" if debug else "-s")
    flags += ["-Wall", "-Wextra", "-Isdk", "-Wl,--no-entry,-z,stack-size=32768"]
    return _Command([*_ZIG, "cc", *flags, *sources, "-o", made])


def _zig(folder: Path, made: Path, debug: bool) -> _Command:
    if not (_zig_version() or "").startswith(f"{ZIG_VERSION}."):
        raise ConfigError(_MISSING["zig"])
    if not (folder / "main.zig").is_file():
        raise ConfigError(f"{folder}: has no source, main.zig")
    flags = ["-target", "wasm32-freestanding", "-O", "small", "-fsingle-threaded", "-fno-entry"]
    flags += ["-rdynamic", "--stack", "65536", "-fno-strip" if debug else "-fstrip"]
    return _Command([*_ZIG, "build-exe", "main.zig", *flags, f"-femit-bin={made}"])


def _zig_version() -> str | None:
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        return None


def _go(folder: Path, made: Path, debug: bool) -> _Command:
    if shutil.which("go") is None:
        raise ConfigError(_MISSING["go"])
    del folder  # the working folder
    # Go writes no DWARF for WebAssembly: names of functions are what it can keep.
    linked = "-buildid=" if debug else "-s -w -buildid="
    flags = ["-trimpath", "-buildmode=c-shared", f"-ldflags={linked}"]
    return _Command(["go", "build", *flags, "-o", made, "."], {"GOOS": "wasip1", "GOARCH": "wasm"})


def _rust(folder: Path, made: Path, debug: bool) -> _Command:
    del made  # Cargo chooses
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        raise ConfigError(_MISSING["rust"])
    asked = _Command(["rustc", "--print", "target-libdir", "--target", _RUST_TARGET])
    if not Path(_run(asked, folder).decode().strip()).is_dir():
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
    environment = {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}
    if debug:
        environment |= {
            "CARGO_PROFILE_RELEASE_DEBUG": "true",
            "CARGO_PROFILE_RELEASE_STRIP": "none",
        }
    return _Command(
        [
            *("cargo", "build", "--release", "--target", _RUST_TARGET),
            "--message-format=json-render-diagnostics",
        ],
        environment,
    )


_COMMANDS: Mapping[Language, Callable[[Path, Path, bool], _Command]] = {
    "c": _c,
    "go": _go,
    "rust": _rust,
    "zig": _zig,
}


def _cargo_artifact(folder: Path, output: bytes) -> Path:
    """The module that Cargo says it made. ConfigError: none."""
    for line in reversed(output.splitlines()):
        message = json.loads(line) if line.startswith(b"{") else {}
        for name in message.get("filenames", ()):
            if name.endswith(".wasm"):
                return Path(name)
    raise ConfigError(f'{folder}/Cargo.toml: makes no module: [lib] crate-type = ["cdylib"]')


def _run(command: _Command, folder: Path) -> bytes:
    """What it printed. ConfigError: it failed."""
    try:
        done = subprocess.run(
            command.words,
            cwd=folder,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{folder}: the compiler took over {BUILD_TIMEOUT_S} s") from None
    except OSError as error:
        raise ConfigError(f"{command.words[0]}: {os.strerror(error.errno or 0)}") from error
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise ConfigError(f"{folder}: the compiler failed:\n{said[:_MAX_SAID]}")
    return done.stdout
