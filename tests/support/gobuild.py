"""Build the Go programs of the tests, the benchmark and the Go plugin, into the user's cache."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support import tiers

GO_MISSING = "Go is not installed"

ROOT = Path(__file__).resolve().parents[2]
NRI_RUNTIME_SOURCE = ROOT / "tests" / "peers" / "nri-runtime"
SPEC_RUNTIME_SOURCE = ROOT / "tests" / "peers" / "spec-runtime"
NATIVE_PLUGIN_SOURCE = ROOT / "tests" / "peers" / "native-plugin"
REGISTRY_SOURCE = ROOT / "tests" / "peers" / "registry"
ORAS_SOURCE = ROOT / "tests" / "peers" / "oras"
CRICTL_SOURCE = ROOT / "tests" / "peers" / "crictl"
CRICTL_PACKAGE = "sigs.k8s.io/cri-tools/cmd/crictl"
GO_ANNOTATOR_SOURCE = ROOT / "plugins" / "go-annotator"
GO_RUNTIME_SOURCE = ROOT / "tests" / "guests" / "go-runtime"

_REACTOR = ("-buildmode=c-shared", "-ldflags=-s -w")
_WASI = {"GOOS": "wasip1", "GOARCH": "wasm"}
# The first build also downloads the modules and compiles the Wasm engine of upstream's host.
BUILD_TIMEOUT_S = 900


class PeerError(Exception):
    """A Go peer could not be built, did not answer in time or refused what it was asked."""


def go_is_installed() -> bool:
    return shutil.which("go") is not None


def require_go() -> None:
    """Skip the calling test, with its reason, where there is no Go."""
    tiers.system("Go")
    if not go_is_installed():
        # Here, because the benchmark builds without pytest.
        import pytest

        pytest.skip(GO_MISSING)


def nri_runtime_binary(*, older: bool = False) -> Path:
    """The runtime peer; with ``older`` on the first upstream release of the same generation."""
    arguments = ["-modfile=older.mod"] if older else []
    return _build(NRI_RUNTIME_SOURCE, "nri-runtime", arguments, {})


def spec_runtime_binary(*, newer: bool = False) -> Path:
    """The peer that makes specifications: NRI 0.6.1, with ``newer`` 0.8.0."""
    arguments = ["-modfile=newer.mod"] if newer else []
    return _build(SPEC_RUNTIME_SOURCE, "spec-runtime", arguments, {})


def native_plugin_binary() -> Path:
    return _build(NATIVE_PLUGIN_SOURCE, "native-plugin", [], {})


def registry_binary() -> Path:
    """distribution's registry."""
    return _build(REGISTRY_SOURCE, "registry", ["-ldflags=-s -w"], {})


def oras_binary() -> Path:
    """The upstream client of registries."""
    return _build(ORAS_SOURCE, "oras", ["-ldflags=-s -w"], {})


def crictl_binary(target: Mapping[str, str]) -> Path:
    """Kubernetes' client of container runtimes, for `target` (GOARCH and what goes with it)."""
    return _build(CRICTL_SOURCE, "crictl", ["-ldflags=-s -w"], target, CRICTL_PACKAGE)


def broker_binary(name: str) -> Path:
    """A broker that tests/peers/NAME makes of its maker's module."""
    return _build(ROOT / "tests" / "peers" / name, name, ["-ldflags=-s -w"], {})


def go_annotator_module() -> Path:
    """The Go plugin as a Wasm module."""
    return _build(GO_ANNOTATOR_SOURCE, "go-annotator.wasm", _REACTOR, _WASI)


def go_runtime_module() -> Path:
    """A guest that uses what Go's runtime asks of its host."""
    return _build(GO_RUNTIME_SOURCE, "go-runtime.wasm", _REACTOR, _WASI)


def require(build: Callable[[], Path]) -> Path:
    """What `build` gives; skips the calling test where there is neither Go nor its result."""
    try:
        return build()
    except PeerError:
        require_go()
        raise


def modules_for_a_machine_without_go() -> dict[str, Path]:
    """Where in such a machine's cache folder a module is looked for -> the module. PeerError."""
    modules = (go_annotator_module(), go_runtime_module())
    sources = (GO_ANNOTATOR_SOURCE, GO_RUNTIME_SOURCE)
    return {
        f"{_key(source, _REACTOR, _WASI, '')}/{module.name}": module
        for source, module in zip(sources, modules, strict=True)
    }


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-agent" / "go"


@functools.cache
def _go_version() -> str:
    return subprocess.run(
        ["go", "env", "GOVERSION"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _build(
    source: Path,
    name: str,
    arguments: Sequence[str],
    target: Mapping[str, str],
    package: str = ".",
) -> Path:
    """Build ``source`` unless the cache has the result for the same sources and Go."""
    tiers.system("Go")
    version = _go_version() if go_is_installed() else ""
    folder = cache_folder() / _key(source, arguments, target, version)
    result = folder / name
    if result.exists():
        return result
    if not go_is_installed():
        raise PeerError(GO_MISSING)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Several test processes may want the same program: one builds, the others wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if result.exists():
            return result
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / name
            _go_build(source, built, arguments, target, package)
            built.replace(result)
    return result


def _key(source: Path, arguments: Sequence[str], target: Mapping[str, str], version: str) -> str:
    digest = hashlib.sha256()
    digest.update(repr((version, list(arguments), sorted(target.items()))).encode())
    for file in sorted(source.iterdir()):
        if file.suffix in {".go", ".mod", ".sum"} and not file.name.endswith("_test.go"):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _go_build(
    source: Path, built: Path, arguments: Sequence[str], target: Mapping[str, str], package: str
) -> None:
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off", **target}
    done = subprocess.run(
        ["go", "build", "-trimpath", *arguments, "-o", str(built), package],
        cwd=source,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PeerError(f"go build in {source.name} failed:\n{done.stderr}")
