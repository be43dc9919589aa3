"""What a package consists of, as a CycloneDX document: the wheels inside, and the crates that its
engines are made of. The same sources give the same document, but for the tool's version in it."""

import calendar
import hashlib
import re
import subprocess
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from edge_agent import RELEASED
from scripts.deb.wheels import ROOT

ENGINES = ROOT / "native" / "engines"
# As in scripts/build-wheels.
TARGETS = {
    "amd64": "x86_64-unknown-linux-gnu",
    "arm64": "aarch64-unknown-linux-gnu",
    "armhf": "armv7-unknown-linux-gnueabihf",
    "riscv64": "riscv64gc-unknown-linux-gnu",
}


class Crate(NamedTuple):
    name: str
    version: str


def document(name: str, version: str, wheels: Iterable[Path], crates: Iterable[Crate]) -> str:
    """CycloneDX 1.6 as JSON. `wheels`: files, by whose digests the components can be told."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"edge-agent/{name}/{version}"))
    moment = calendar.timegm(time.strptime(RELEASED, "%Y-%m-%d"))
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name
    )
    for wheel in wheels:
        distribution, of_version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        bom.components.add(
            Component(
                name=distribution,
                version=of_version,
                type=ComponentType.LIBRARY,
                bom_ref=wheel.name,
                purl=PackageURL("pypi", None, distribution.replace("_", "-").lower(), of_version),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
        )
    for crate in crates:
        bom.components.add(
            Component(
                name=crate.name,
                version=crate.version,
                type=ComponentType.LIBRARY,
                bom_ref=f"{crate.name}@{crate.version}",
                purl=PackageURL("cargo", None, crate.name, crate.version),
            )
        )
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def crates(arch: str) -> list[Crate]:
    """The crates that the engines of an architecture are linked from, by cargo's lock file.

    CalledProcessError: cargo says why on the terminal.
    """
    listed = subprocess.run(
        [
            *("cargo", "tree", "--locked", "--quiet", "--prefix=none", "--format={p}"),
            *("--edges=normal", f"--target={TARGETS[arch]}"),
        ],
        cwd=ENGINES,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = {
        Crate(*match.groups())
        for match in re.finditer(
            r"^(\S+) v(\S+)(?: \(proc-macro\))?(?: \(\*\))?$", listed.stdout, re.M
        )
    }
    return sorted(found)
