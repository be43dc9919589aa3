"""The files of a real containerd, from pinned Debian packages, in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.containerd_image import image_archive

FIXTURE = Path(__file__).resolve().parents[1] / "containerd" / "fixture"
IMAGE = "localhost/busybox:1"
IMAGE_PATH = "/images/busybox.tar"

DOWNLOAD_TIMEOUT_S = 60.0  # of silence, for one package of at most 30 MB
# Programs that the tests run in their containers.
APPLETS = ("cat", "env", "id", "ls", "sh", "sleep", "stat", "true")
# Links that Debian's base-files would have made.
MERGED = ("bin", "lib", "lib64", "sbin")


class ArchiveUnreachable(Exception):
    """No mirror answered: a matter of the network, not of this project."""


def containerd_system() -> Path:
    """The root folder; downloaded and extracted at the first call, then reused.

    ArchiveUnreachable: no mirror could be reached.
    """
    pinned = (FIXTURE / "packages.toml").read_bytes()
    recipe = pinned + Path(__file__).read_bytes()
    folder = cache_folder() / hashlib.sha256(recipe).hexdigest()[:16]
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock:
        # Two runs that start at once: one builds, the other waits and finds it there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
                root = Path(scratch) / "root"
                _build(root, tomllib.loads(pinned.decode()))
                root.rename(folder)
    return folder


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-agent" / "containerd"


def _build(root: Path, packages: dict[str, dict[str, str]]) -> None:
    bases = list(debian_mirrors())
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for path, digest in packages["sha256"].items():
        package = _download(bases, path)
        if hashlib.sha256(package).hexdigest() != digest:
            raise ValueError(f"{path} is not the package that packages.toml pins")
        _extract(package, root)
    etc = root / "etc"
    (etc / "containerd").mkdir(parents=True)
    shutil.copy(FIXTURE / "config.toml", etc / "containerd")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "hostname").write_text("board\n")
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    image = root / IMAGE_PATH.lstrip("/")
    image.parent.mkdir()
    busybox = (root / "usr" / "bin" / "busybox").read_bytes()
    image.write_bytes(image_archive(IMAGE, busybox, APPLETS))


def debian_mirrors() -> Iterator[str]:
    """Where this machine gets its own packages: Debian's archive as it is reached from here."""
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")]
    texts = [place.read_text(errors="replace") for place in places if place.is_file()]
    found = re.findall(r"^[^#\n]*?(https?://\S+/debian)/?(?=\s|$)", "\n".join(texts), re.M)
    yield from dict.fromkeys(found)


def _download(bases: list[str], path: str) -> bytes:
    reasons = [] if bases else ["/etc/apt names none"]
    for base in bases:
        try:
            with urllib.request.urlopen(f"{base}/{path}", timeout=DOWNLOAD_TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except (urllib.error.URLError, OSError) as error:
            reasons.append(f"{base}: {error}")
    raise ArchiveUnreachable(f"Debian's archive gives no {path}: {'; '.join(reasons)}")


def _extract(package: bytes, root: Path) -> None:
    """Programs and libraries of a .deb, which is an `ar` archive with a tar in it."""
    with tarfile.open(fileobj=io.BytesIO(_ar_member(package, b"data.tar"))) as tar:
        for member in tar:
            path = root / member.name
            if not re.match(r"\./usr/(bin|sbin|lib|lib64)/", member.name):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                path.symlink_to(member.linkname)
            elif content := tar.extractfile(member):
                path.write_bytes(content.read())
                path.chmod(member.mode)


def _ar_member(archive: bytes, name: bytes) -> bytes:
    at = 8  # "!<arch>\n"; then for each member a header of 60 bytes, and its content
    while at < len(archive):
        size = int(archive[at + 48 : at + 58])
        if archive[at : at + 16].startswith(name):
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError(f"no {name!r} in the package")
