"""A Debian package's bytes, deb(5): an `ar` of a version, control.tar and data.tar.

Pure, and the same bytes for the same input wherever it runs: owners, times and order come from
here, not from the disk, so neither root nor dpkg is needed.
"""

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

# xz as dpkg-deb has it by default: 9 MB of memory to unpack, which any board has.
XZ_PRESET = 6
GZIP_LEVEL = 1  # who wants it small takes xz


@dataclass(frozen=True)
class File:
    """What lies at a path of the package."""

    content: bytes
    mode: int = 0o644


class Folder:
    """An empty folder that must be there."""


@dataclass(frozen=True)
class Link:
    """A symbolic link, which may lead into another package."""

    target: str


Entries = Mapping[str, File | Folder | Link]
"""Absolute path -> what is there. Folders above are made by themselves."""


def deb(control: Mapping[str, File], entries: Entries, time: int, compression: str) -> bytes:
    """The package. `control`: `control` without Installed-Size, maintainer scripts and so on.

    `time` (seconds since 1970) is everything's; `compression` is `xz` or `gz`.
    """
    files = {path: entry for path, entry in entries.items() if isinstance(entry, File)}
    sums = "".join(
        f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {path[1:]}\n"
        for path, file in sorted(files.items())
    )
    size = f"Installed-Size: {installed_kib(entries)}\n".encode()
    described = File(control["control"].content + size)
    about = {**control, "control": described, "md5sums": File(sums.encode())}
    members = {
        "debian-binary": b"2.0\n",
        f"control.tar.{compression}": _compressed(
            _tar({f"/{name}": file for name, file in about.items()}, time), compression
        ),
        f"data.tar.{compression}": _compressed(_tar(entries, time), compression),
    }
    return b"!<arch>\n" + b"".join(_ar_member(*member, time) for member in members.items())


def installed_kib(entries: Entries) -> int:
    """KiB on the disk, as Debian counts: whole KiB for a file, one for a folder or a link."""
    sizes = [-(-len(each.content) // 1024) for each in entries.values() if isinstance(each, File)]
    links = sum(isinstance(each, Link) for each in entries.values())
    return sum(sizes) + links + len(_folders(entries))


def _ar_member(name: str, content: bytes, time: int) -> bytes:
    header = f"{name:<16}{time:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def _tar(entries: Entries, time: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted({*_folders(entries), *entries}):
            entry = entries.get(path, Folder())
            info = tarfile.TarInfo(f".{path}")
            info.mtime, info.uname, info.gname = time, "root", "root"
            if isinstance(entry, Folder):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(entry, Link):
                info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
                tar.addfile(info)
            else:
                info.size, info.mode = len(entry.content), entry.mode
                tar.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def _folders(entries: Entries) -> set[str]:
    """All folders of the package, the root as "/"."""
    above = {str(folder) for path in entries for folder in PurePosixPath(path).parents}
    return above | {path for path, entry in entries.items() if isinstance(entry, Folder)}


def _compressed(content: bytes, compression: str) -> bytes:
    if compression == "xz":
        return lzma.compress(content, preset=XZ_PRESET)
    return gzip.compress(content, GZIP_LEVEL, mtime=0)
