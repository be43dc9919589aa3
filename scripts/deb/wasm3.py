"""wasm3's library for any architecture, as a wheel that serves every Python.

The agent calls wasm3's C API, so that no part of CPython is needed to build it: the C sources in
the source package `pywasm3`, pinned by digest, and the `zig cc` of PyPI's `ziglang`, which brings
headers and libraries of all targets. The same sources give the same bytes, on any machine.
"""

import base64
import configparser
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from scripts.deb.wheels import MACHINES, ROOT, WheelError, download, wheel_cache

VERSION = "0.5.0"
SOURCE = f"pywasm3-{VERSION}.tar.gz"
SHA256 = "5a47c8a39f7f6ae71b3316b2e5d86c9d0db6e771a65f09a86e4d4aa3a19aefcc"
PACKAGE = "edge_agent_wasm3"
LIBRARY = "libwasm3.so"
# glibc 2.28, as PyPI's wheels of today need it. For 32-bit ARM the first board there is: the
# Raspberry Pi Zero and 1 are ARMv6, and run the Debian that others run.
TARGETS = {
    "amd64": ("-target", "x86_64-linux-gnu.2.28"),
    "arm64": ("-target", "aarch64-linux-gnu.2.28"),
    "armhf": (
        *("-target", "arm-linux-gnueabihf.2.28"),
        *("-mcpu=arm1176jzf_s", "-munaligned-access"),
    ),
    "riscv64": ("-target", "riscv64-linux-gnu.2.28"),
}
# As pywasm3 has them, but without its counting of all code for each function (DEBUG), and
# without a note of every operation's place for backtraces that nobody reads. Slots of the stack
# are small on each architecture (wasm3's own choice for RISC-V is not), so that a guest can
# go as deep on one as on any other.
FLAGS = (
    *("-shared", "-fPIC", "-O3", "-g0", "-fomit-frame-pointer", "-fno-stack-protector"),
    *(
        "-DNASSERTS",
        "-Dd_m3Use32BitSlots=1",
        "-fno-sanitize=undefined",
        "-Wl,-s",
        f"-Wl,-soname,{LIBRARY}",
    ),
)
PLATFORMS = {arch: f"linux_{machine}" for arch, machine in MACHINES.items()}
PLATFORMS["armhf"] = "linux_armv6l.linux_armv7l"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can have


def wasm3_wheel(arch: str) -> Path:
    """The wheel from the cache; built if this recipe has not been built before. WheelError."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + zig_version().encode()).hexdigest()[:16]
    path = wheel_cache() / f"wasm3-{recipe}" / wheel_name(arch)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(wheel(arch, library(arch)))
        beside.replace(path)
    return path


def wheel_name(arch: str) -> str:
    return f"{PACKAGE}-{VERSION}-py3-none-{PLATFORMS[arch]}.whl"


def library(arch: str) -> bytes:
    """Compile it. WheelError: no source, no compiler, or it does not compile."""
    archive = wheel_cache() / SOURCE
    if not archive.exists():
        download(archive, ["--no-binary=pywasm3", f"pywasm3=={VERSION}"])
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise WheelError(f"{archive} is not the source that is pinned; remove it")
    compiler = _zig()
    sys.stderr.write(f"compiling wasm3 for {arch}\n")
    with tempfile.TemporaryDirectory() as scratch:
        names = _sources(archive, Path(scratch))
        # Relative names only: a path in the output would make it differ between machines.
        command = [*compiler, *TARGETS[arch], *FLAGS, *names, "-lm", "-o", LIBRARY]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WheelError(f"wasm3 does not compile for {arch}: {done.stderr.strip()}")
        return (Path(scratch) / LIBRARY).read_bytes()


def wheel(arch: str, binary: bytes) -> bytes:
    """The wheel with this library."""
    info = f"{PACKAGE}-{VERSION}.dist-info"
    with tarfile.open(wheel_cache() / SOURCE) as tar:
        license_file = tar.extractfile(f"pywasm3-{VERSION}/LICENSE")
        assert license_file is not None
        license_text = license_file.read()
    tags = "".join(f"Tag: py3-none-{platform}\n" for platform in PLATFORMS[arch].split("."))
    files = {
        f"{PACKAGE}/__init__.py": b'"""wasm3\'s library, which edge-agent calls; no Python."""\n',
        f"{PACKAGE}/{LIBRARY}": binary,
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {PACKAGE.replace('_', '-')}\nVersion: {VERSION}\n"
            "Summary: The WebAssembly interpreter wasm3 as a library, for edge-agent\n"
            "License: MIT\n"
        ).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: edge-agent\nRoot-Is-Purelib: false\n{tags}"
        ).encode(),
        f"{info}/LICENSE": license_text,
    }
    record = "".join(f"{path},sha256={_digest(each)},{len(each)}\n" for path, each in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    # Not compressed: not every zlib gives the same bytes.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _DATE)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return out.getvalue()


def zig_version() -> str:
    """As setup.cfg pins it for the plugins too."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.extras_require"]["dev"].splitlines()
    (version,) = (line.partition("==")[2].strip() for line in lines if line.startswith("ziglang"))
    return version


def _zig() -> list[str]:
    """The command of the compiler: this Python's, or one that is put into the cache."""
    version = zig_version()
    try:
        if importlib.metadata.version("ziglang") == version:
            return [sys.executable, "-m", "ziglang", "cc"]
    except importlib.metadata.PackageNotFoundError:
        pass
    folder = wheel_cache().parent / f"zig-{version}"
    if not (folder / "ready").exists():
        sys.stderr.write(f"installing the compiler zig in {folder} (once)\n")
        words = ("install", "--quiet", "--disable-pip-version-check", "--target", str(folder))
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, f"ziglang=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WheelError(f"pip gives no ziglang {version}: {done.stderr.strip()}")
        (folder / "ready").touch()
    return [str(folder / "ziglang" / "zig"), "cc"]


def _sources(archive: Path, folder: Path) -> list[str]:
    """Unpack wasm3's own files; the names of those to compile, in order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            content = tar.extractfile(member)
            if content is not None and path.parent.name == "wasm3":
                (folder / path.name).write_bytes(content.read())
    return sorted(path.name for path in folder.glob("*.c"))


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
