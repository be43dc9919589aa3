"""The first file system of a kernel: busybox, the modules that reach the disk, and a script."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

# Disk, network, randomness from the host, and what doctor asks about sockets. Debian's file systems
# ask for their checksums by other names than the modules'.
MODULES = (
    *("virtio_pci", "virtio_blk", "crc32c_generic", "crc32_generic"),
    *("virtio_net", "overlay", "virtio_rng", "unix_diag"),
)
FOLDER, PROGRAM = 0o040755, 0o100755


def initrd(busybox: bytes, init: bytes, modules: Mapping[str, bytes]) -> bytes:
    """A compressed cpio archive; `modules` are loaded in this order."""
    entries: dict[str, tuple[int, bytes]] = dict.fromkeys(
        ("bin", "dev", "modules", "proc", "root", "sys"), (FOLDER, b"")
    )
    entries["bin/busybox"] = (PROGRAM, busybox)
    entries["init"] = (PROGRAM, init)
    for number, (name, content) in enumerate(modules.items()):
        entries[f"modules/{number:02}-{name}.ko"] = (PROGRAM, content)
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def cpio(entries: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive in the form `newc`: path -> (mode, content)."""
    out = bytearray()
    trailer = {"TRAILER!!!": (0, b"")}
    for number, (path, (mode, content)) in enumerate({**entries, **trailer}.items(), 1):
        name = path.encode() + b"\0"
        links, time = 1, 0
        fields = (number, mode, 0, 0, links, time, len(content), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)


def modules_of(folder: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Name -> content of the wanted kernel modules and of what they need, in the order of loading.

    A name that is not in `folder` is part of the kernel itself.
    """
    files = {_name(path.name): path for path in folder.rglob("*.ko*")}

    def content(name: str) -> bytes | None:
        path = files.get(name)
        if path is None:
            return None
        raw = path.read_bytes()
        return lzma.decompress(raw) if path.suffix == ".xz" else raw

    return in_order(wanted, content)


def in_order(wanted: Iterable[str], content: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """What the modules say they depend on comes before them."""
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or (module := content(name)) is None:
            return
        for dependency in dependencies(module):
            add(dependency)
        ordered[name] = module

    for name in wanted:
        add(_name(name))
    return ordered


def dependencies(module: bytes) -> list[str]:
    """The modules that a module's section `.modinfo` names, those of `softdep=pre:` among them."""
    hard = re.search(rb"\0depends=([^\0]*)\0", module)
    names = hard[1].decode().split(",") if hard else []
    for soft in re.findall(rb"\0softdep=pre: ([^\0]*)\0", module):
        names += soft.decode().split()
    return [_name(name) for name in names if name]


def _name(module: str) -> str:
    """Files have `-` where the kernel says `_`."""
    return module.partition(".ko")[0].replace("-", "_")
