"""The dependencies' files for one architecture: pinned wheels, downloaded once and unpacked.

A wheel with machine code for one version of CPython can lie beside those for others, since the
interpreter takes the file that carries its own tag, and a package's pure Python if there is none.
"""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = Path(__file__).with_name("wheels.toml")
# Debian's name of an architecture -> the machine in a wheel's platform tag.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "riscv64": "riscv64"}
OLDEST_PYTHON = "3.11"
# Of a wheel's dist-info: what pip wrote for itself, which differs between wheels of one version.
NOT_KEPT = ("RECORD", "WHEEL")
# But of the engines', which are one wheel: the agent reads there for which processors they are.
KEPT = re.compile(r"edge_agent_engines-[^/]+\.dist-info/WHEEL")


class WheelError(Exception):
    """A wheel is missing, or is not the one that is pinned."""


def pinned_wheels(arch: str) -> list[Path]:
    """The wheels for `arch` from the cache, where pip puts those that are missing. WheelError."""
    table = _table()
    return _fetched({**table["all"], **table[arch]})


def pinned_fleet_wheels() -> list[Path]:
    """The same for the package of the operator's commands. WheelError."""
    return _fetched(_table()["fleet"])


def own_wheels(folder: Path | None, arch: str) -> list[Path]:
    """The wheels in `folder` that fit `arch`, such as those of engines built by ourselves."""
    found = sorted(folder.glob("*.whl")) if folder is not None else []
    return [path for path in found if _fits(path, arch)]


def unpacked(wheels: Iterable[Path], arch: str) -> dict[str, bytes]:
    """Path -> content of all the wheels, without another architecture's machine code.

    WheelError: two disagree about a file.
    """
    found: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                path = info.filename
                if info.is_dir() or _left_out(path):
                    continue
                if path.endswith(".so") and not _fits(wheel, arch):
                    continue
                if ".data/" in path:
                    raise WheelError(f"{wheel}: {path} would have to be installed elsewhere")
                content = archive.read(info)
                if found.setdefault(path, content) != content:
                    raise WheelError(f"{wheel}: {path} differs from another wheel's")
    return found


def runs_on_armv6(wheels: Iterable[Path]) -> bool:
    """Whether the machine code of these wheels for armhf is for all of its processors."""
    own = [wheel for wheel in wheels if wheel.stem.endswith(f"_{MACHINES['armhf']}")]
    return all("_armv6l" in wheel.stem for wheel in own)


def _table() -> dict[str, dict[str, str]]:
    return tomllib.loads(PINNED.read_text())


def _fetched(pins: dict[str, str]) -> list[Path]:
    """WheelError."""
    wheels = []
    for name, digest in pins.items():
        path = wheel_cache() / name
        if not path.exists():
            download(path, _requirement(path))
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise WheelError(f"{path} is not the wheel that {PINNED.name} pins; remove it")
        wheels.append(path)
    return wheels


def _fits(wheel: Path, arch: str) -> bool:
    """`arch` as Debian names it; "all": pure Python alone fits."""
    return wheel.stem.endswith("-any") or (
        arch in MACHINES and wheel.stem.endswith(f"_{MACHINES[arch]}")
    )


def _left_out(path: str) -> bool:
    if path.startswith("cffi/"):
        return True  # makes bindings; those that are made need `_cffi_backend` only
    if KEPT.fullmatch(path):
        return False
    return re.search(r"\.dist-info/[^/]+$", path) is not None and path.endswith(NOT_KEPT)


def wheel_cache() -> Path:
    """The folder, made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edge-agent" / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def download(path: Path, words: list[str]) -> None:
    """Let pip find the file: it knows the mirrors and certificates of this machine. WheelError."""
    sys.stderr.write(f"downloading {path.name}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--dest", str(path.parent), *words),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not path.exists():
        raise WheelError(f"pip gives no {path.name}: {done.stderr.strip()}")


def _requirement(path: Path) -> list[str]:
    """What makes pip download this very wheel, whatever machine it runs on."""
    name, version, python, _, platforms = path.stem.split("-")
    language = re.fullmatch(r"cp3(\d+)", python)
    words = ["--python-version", f"3.{language[1]}" if language else OLDEST_PYTHON]
    words += ["--only-binary=:all:", "--platform", platforms.split(".")[0]]
    return [*words, f"{name}=={version}"]
