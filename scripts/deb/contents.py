"""What lies where in the Debian packages: `edge-agent` for a board, `edge-agent-fleet` for an
operator's machine, which adds the operator's commands and the demonstration to it."""

import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path, PurePosixPath

from edge_agent.cli.service import render
from scripts.deb.archive import Entries, File, Folder, Link

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LIBRARY = "/usr/lib/edge-agent"
COMMAND = "/usr/bin/edge-agent"
CONFIG = "/etc/edge-agent/agent.toml"
DOCS = "/usr/share/doc/edge-agent"
SCRIPTS = ("postinst", "prerm", "postrm")
REFUSAL = "preinst"  # of boards that the machine code of the package is not for
ARMV6_GLIBC = ("libc6 (>= 2.31)", "libc6 (>= 2.34)")  # as zig links where no manylinux says
ARMV7 = " It is for ARMv7 and later, and not for Raspberry Pi Zero and 1.\n"
FLEET_SCRIPTS = ("postinst", "prerm")
FLEET_DOCS = "/usr/share/doc/edge-agent-fleet"
FLEET_FOLDERS = ("console", "operator", "sim", "testing.py")  # of edge_agent/
FLEET_COMMANDS = ("demo", "fleet")  # files of edge_agent/cli/ whose names begin so
# Kinds of files that a Python package brings; beside them lie caches and sources.
PACKAGED = {".bin", ".py", ".service", ".toml", ".typed", ".wasm"}
# Where PyPI has no PyNaCl, Debian's is used: the ends of the names of its part in C.
DEBIANS_NACL = {"armhf": "arm-linux-gnueabihf.so", "riscv64": "riscv64-linux-gnu.so"}
PYTHONS = ("311", "312", "313", "314")  # as in wheels.toml


def control_files(version: str, arch: str, *, armv6: bool = False) -> dict[str, File]:
    """The control member: what dpkg reads and runs. `armv6`: armhf's code is for ARMv6 too."""
    recommended = "ca-certificates" + ", python3-nacl" * (arch in DEBIANS_NACL)
    control = (HERE / "control").read_text().replace("@VERSION@", version).replace("@ARCH@", arch)
    control = control.replace("@RECOMMENDS@", recommended)
    names: tuple[str, ...] = SCRIPTS
    if arch == "armhf" and not armv6:
        names, control = (REFUSAL, *SCRIPTS), control + ARMV7
    elif armv6 and arch == "armhf":
        control = control.replace(*ARMV6_GLIBC)
    scripts = {name: File((HERE / name).read_bytes(), 0o755) for name in names}
    return {"control": File(control.encode()), "conffiles": File(f"{CONFIG}\n".encode()), **scripts}


def data_files(version: str, arch: str, time: int, dependencies: dict[str, bytes]) -> Entries:
    """The data member: everything that is unpacked."""
    return {
        **{f"{LIBRARY}/{path}": File(content) for path, content in dependencies.items()},
        **dict(_nacl(arch)),
        **{f"{LIBRARY}/{path}": file for path, file in _modules() if not for_operator(path)},
        **dict(_plugins()),
        **dict(_documents(version, time)),
        COMMAND: File((HERE / "launcher").read_bytes(), 0o755),
        CONFIG: File((ROOT / "edge_agent" / "config" / "agent.toml").read_bytes()),
        "/etc/edge-agent/plugins": Folder(),
        "/usr/lib/systemd/system/edge-agent.service": File(
            render([COMMAND, "run", "-c", CONFIG]).encode()
        ),
        "/usr/share/python3/runtime.d/edge-agent.rtupdate": File(
            (HERE / "rtupdate").read_bytes(), 0o755
        ),
        "/usr/share/man/man8/edge-agent.8.gz": File(_zipped((HERE / "edge-agent.8").read_bytes())),
        "/usr/share/lintian/overrides/edge-agent": File((HERE / "lintian-overrides").read_bytes()),
    }


def fleet_control_files(version: str) -> dict[str, File]:
    """The same of `edge-agent-fleet`, which is for each architecture."""
    folder = HERE / "fleet"
    control = (folder / "control").read_text().replace("@VERSION@", version)
    scripts = {name: File((folder / name).read_bytes(), 0o755) for name in FLEET_SCRIPTS}
    return {"control": File(control.encode()), **scripts}


def fleet_data_files(version: str, time: int, dependencies: dict[str, bytes]) -> Entries:
    """The data member of `edge-agent-fleet`."""
    return {
        **{f"{LIBRARY}/{path}": File(content) for path, content in dependencies.items()},
        **{f"{LIBRARY}/{path}": file for path, file in _modules() if for_operator(path)},
        f"{FLEET_DOCS}/copyright": File((HERE / "copyright").read_bytes()),
        f"{FLEET_DOCS}/changelog.gz": _changelog("edge-agent-fleet", version, time),
        "/usr/share/python3/runtime.d/edge-agent-fleet.rtupdate": File(
            (HERE / "fleet" / "rtupdate").read_bytes(), 0o755
        ),
    }


def for_operator(path: str) -> bool:
    """Whether a file, "edge_agent/...", is of no use on a board."""
    _, folder, *below = PurePosixPath(path).parts
    if folder == "cli":
        return below[0].startswith(FLEET_COMMANDS)
    return folder in FLEET_FOLDERS


def debian_version(version: str) -> str:
    """A Python version as dpkg sorts it: 1.0rc1 comes before 1.0, so it is 1.0~rc1."""
    return re.sub(r"(?<=\d)\.?(a|b|rc|dev)(?=\d)", r"~\1", version)


def _nacl(arch: str) -> Iterator[tuple[str, Link]]:
    """Links to Debian's PyNaCl, since the launcher looks into no other folder."""
    if arch in DEBIANS_NACL:
        ending = DEBIANS_NACL[arch]
        for name in ("nacl", *(f"_cffi_backend.cpython-{each}-{ending}" for each in PYTHONS)):
            yield f"{LIBRARY}/{name}", Link(f"../python3/dist-packages/{name}")


def _modules() -> Iterator[tuple[str, File]]:
    """Each file of the Python package, as "edge_agent/...", in order."""
    for path in sorted((ROOT / "edge_agent").rglob("*")):
        # Of `edge-agent plugin new`: nobody writes plugins on a board.
        if "templates" in path.parts:
            continue
        # Debian's starlette is older than the console takes: pip installs both (docs/console.md).
        if "console" in path.parts:
            continue
        if path.is_file() and path.suffix in PACKAGED:
            yield str(path.relative_to(ROOT)), File(path.read_bytes())


def _plugins() -> Iterator[tuple[str, File]]:
    """The project's own, to be copied to /etc/edge-agent/plugins."""
    for module in sorted((ROOT / "plugins").glob("*/*.wasm")):
        for path in (
            module,
            *(module.with_suffix(each) for each in (".conf", ".toml")),
            module.with_name("README.md"),
        ):
            name = f"{module.stem}.md" if path.suffix == ".md" else path.name
            yield f"/usr/share/edge-agent/plugins/{name}", File(path.read_bytes())


def _documents(version: str, time: int) -> Iterator[tuple[str, File]]:
    yield f"{DOCS}/copyright", File((HERE / "copyright").read_bytes())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield f"{DOCS}/{path.name}", File(path.read_bytes())
    yield f"{DOCS}/changelog.gz", _changelog("edge-agent", version, time)
    yield f"{DOCS}/NEWS.gz", File(_zipped((ROOT / "CHANGELOG.md").read_bytes()))


def _changelog(package: str, version: str, time: int) -> File:
    """Of one entry, deb-changelog(5): what changed stands in `edge-agent`'s NEWS.gz."""
    maintainer = re.search(r"Maintainer: (.*)", (HERE / "control").read_text())
    assert maintainer is not None
    date = format_datetime(datetime.fromtimestamp(time, UTC))
    entry = (
        f"{package} ({version}) stable; urgency=medium\n\n"
        f"  * See {DOCS}/NEWS.gz.\n\n -- {maintainer[1]}  {date}\n"
    )
    return File(_zipped(entry.encode()))


def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
