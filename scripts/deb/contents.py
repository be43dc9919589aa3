"""What lies where in the Debian package."""

import gzip
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from edge_agent.cli.unit import render
from scripts.deb.archive import Entries, File, Folder, Link

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LIBRARY = "/usr/lib/edge-agent"
COMMAND = "/usr/bin/edge-agent"
CONFIG = "/etc/edge-agent/agent.toml"
DOCS = "/usr/share/doc/edge-agent"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
# Kinds of files that a Python package brings; beside them lie caches and sources.
PACKAGED = {".bin", ".py", ".service", ".toml", ".typed", ".wasm"}
# Where PyPI has no PyNaCl, Debian's is used: the ends of the names of its part in C.
DEBIANS_NACL = {"armhf": "arm-linux-gnueabihf.so", "riscv64": "riscv64-linux-gnu.so"}
PYTHONS = ("311", "312", "313", "314")  # as in wheels.toml


def control_files(version: str, arch: str) -> dict[str, File]:
    """The control member: what dpkg reads and runs."""
    recommended = "ca-certificates" + ", python3-nacl" * (arch in DEBIANS_NACL)
    control = (HERE / "control").read_text().replace("@VERSION@", version).replace("@ARCH@", arch)
    control = control.replace("@RECOMMENDS@", recommended)
    scripts = {name: File((HERE / name).read_bytes(), 0o755) for name in SCRIPTS}
    return {"control": File(control.encode()), "conffiles": File(f"{CONFIG}\n".encode()), **scripts}


def data_files(version: str, arch: str, time: int, dependencies: dict[str, bytes]) -> Entries:
    """The data member: everything that is unpacked."""
    return {
        **{f"{LIBRARY}/{path}": File(content) for path, content in dependencies.items()},
        **dict(_nacl(arch)),
        **dict(_agent()),
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


def debian_version(version: str) -> str:
    """A Python version as dpkg sorts it: 1.0rc1 comes before 1.0, so it is 1.0~rc1."""
    return re.sub(r"(?<=\d)\.?(a|b|rc|dev)(?=\d)", r"~\1", version)


def _nacl(arch: str) -> Iterator[tuple[str, Link]]:
    """Links to Debian's PyNaCl, since the launcher looks into no other folder."""
    if arch in DEBIANS_NACL:
        ending = DEBIANS_NACL[arch]
        for name in ("nacl", *(f"_cffi_backend.cpython-{each}-{ending}" for each in PYTHONS)):
            yield f"{LIBRARY}/{name}", Link(f"../python3/dist-packages/{name}")


def _agent() -> Iterator[tuple[str, File]]:
    for path in sorted((ROOT / "edge_agent").rglob("*")):
        if path.is_file() and path.suffix in PACKAGED:
            yield f"{LIBRARY}/{path.relative_to(ROOT)}", File(path.read_bytes())


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
    maintainer = re.search(r"Maintainer: (.*)", (HERE / "control").read_text())
    assert maintainer is not None
    date = format_datetime(datetime.fromtimestamp(time, UTC))
    entry = (
        f"edge-agent ({version}) stable; urgency=medium\n\n  * See NEWS.gz.\n\n"
        f" -- {maintainer[1]}  {date}\n"
    )
    yield f"{DOCS}/changelog.gz", File(_zipped(entry.encode()))
    yield f"{DOCS}/NEWS.gz", File(_zipped((ROOT / "CHANGELOG.md").read_bytes()))


def _zipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
