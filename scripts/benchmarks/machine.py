"""What a benchmark ran on: the machine and the versions of everything that counts."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from google.protobuf.internal import api_implementation

from edge_agent import __version__
from tests.support.gobuild import NRI_RUNTIME_SOURCE, ROOT, go_is_installed


def machine() -> dict[str, object]:
    """CPU, cores, memory, kernel and how busy it was when this was asked."""
    memory_kib = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0])
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name", "Model") or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": round(memory_kib / 1000),
        "kernel": platform.release(),
        "load": load(),
    }


def load() -> list[float]:
    """How many processes wanted a core, over 1, 5 and 15 minutes."""
    return [round(average, 2) for average in os.getloadavg()]


def versions() -> dict[str, str]:
    """Of the agent and all that it is compared with."""
    return {
        "edge-agent": __version__,
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "wasmtime": _package("wasmtime"),
        "edge-agent-engines": _package("edge-agent-engines"),
        "protobuf": f"{_package('protobuf')} ({api_implementation.Type()})",
        "go": _output("go", "env", "GOVERSION") if go_is_installed() else "not installed",
        "nri": _nri(),
        "mosquitto": _output("/usr/sbin/mosquitto", "-h").split("\n")[0].rpartition(" ")[2],
    }


def _nri() -> str:
    """The version of upstream's code in the runtime's peer."""
    text = (NRI_RUNTIME_SOURCE / "go.mod").read_text()
    found = re.search(r"github.com/containerd/nri (\S+)", text)
    return found[1] if found else "unknown"


def _field(file: Path, *names: str) -> str:
    for line in file.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "not installed"
