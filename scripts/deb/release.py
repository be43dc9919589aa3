"""Everything that a release consists of, in one folder.

The sources, the Python wheel, the engines' wheels, the Debian packages, for each package a
document of what it consists of (CycloneDX), the newest part of CHANGELOG.md, and SHA256SUMS.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from edge_agent import __version__
from scripts.deb import sbom
from scripts.deb.contents import debian_version
from scripts.deb.engines import engines_wheel
from scripts.deb.wheels import MACHINES, ROOT, WheelError, pinned_fleet_wheels, pinned_wheels


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__)
    parser.add_argument("--arch", action="append", choices=MACHINES, help="only this; repeatable")
    parser.add_argument("--tag", help="fail unless this is v and the version")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "release", metavar="DIR")
    parser.add_argument("--compression", choices=("xz", "gz"), default="xz", help="of the packages")
    arguments = parser.parse_args()
    if arguments.tag not in (None, f"v{__version__}"):
        sys.exit(f"the tag is {arguments.tag}, and edge_agent/__init__.py says {__version__}")
    if arguments.output.exists():
        sys.exit(f"{arguments.output} exists: remove it first")
    arguments.output.mkdir(parents=True)
    try:
        make(arguments.output, arguments.arch or list(MACHINES), arguments.compression)
    except WheelError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} fails with exit code {error.returncode}")


def make(folder: Path, arches: list[str], compression: str) -> None:
    """WheelError. CalledProcessError: the program has said why."""
    version = debian_version(__version__)
    sources = folder / f"edge-agent-{__version__}.tar.gz"
    prefix = f"--prefix=edge-agent-{__version__}/"
    _run("git", "archive", "--format=tar.gz", prefix, f"--output={sources}", "HEAD")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"-w{folder}", str(ROOT))
    for arch in arches:
        engines = engines_wheel(arch)
        shutil.copy(engines, folder)
        _package(arch, folder, compression)
        (folder / f"edge-agent_{version}_{arch}.cdx.json").write_text(
            sbom.document(
                "edge-agent", __version__, [*pinned_wheels(arch), engines], sbom.crates(arch)
            )
        )
    _package("all", folder, compression)
    (folder / f"edge-agent-fleet_{version}_all.cdx.json").write_text(
        sbom.document("edge-agent-fleet", __version__, pinned_fleet_wheels(), ())
    )
    (folder / "NOTES.md").write_text(notes((ROOT / "CHANGELOG.md").read_text()))
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))
    print(f"{folder}: {len(sums)} files and SHA256SUMS")


def notes(changelog: str) -> str:
    """The newest version's part, without its heading."""
    return re.split(r"^## .*\n", changelog, flags=re.M)[1].strip() + "\n"


def _package(arch: str, folder: Path, compression: str) -> None:
    program = str(ROOT / "scripts" / "build-deb")
    options = (f"--output={folder}", f"--compression={compression}")
    _run(sys.executable, program, arch, *options)


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
