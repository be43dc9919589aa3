"""The first file system: its form, and the order of the kernel's modules."""

from __future__ import annotations

import gzip

from tests.boards.initrd import FOLDER, PROGRAM, cpio, dependencies, in_order, initrd

MODULES = {
    "ext4": b"\x7fELF\0depends=jbd2,mbcache\0softdep=pre: crypto-crc32c\0",
    "jbd2": b"\x7fELF\0depends=\0",
    "mbcache": b"\x7fELF\0license=GPL\0depends=\0",
    "virtio_net": b"\x7fELF\0depends=net_failover\0",
    "net_failover": b"\x7fELF\0depends=failover\0",
    "failover": b"\x7fELF\0depends=\0",
}


def test_what_a_module_depends_on_is_loaded_before_it() -> None:
    order = list(in_order(("ext4", "virtio-net", "jbd2"), MODULES.get))
    assert order == ["jbd2", "mbcache", "ext4", "failover", "net_failover", "virtio_net"]


def test_what_is_part_of_the_kernel_is_not_loaded() -> None:
    assert in_order(("virtio_pci",), MODULES.get) == {}


def test_soft_dependencies_are_read_too() -> None:
    assert dependencies(MODULES["ext4"]) == ["jbd2", "mbcache", "crypto_crc32c"]


def test_the_archive_has_the_form_of_cpio() -> None:
    # As GNU cpio 2.13 writes it (-H newc), but for times, links and inodes.
    zeros, none = "0" * 8, "0" * 64
    expected = (
        f"070701{1:08X}000041ED{zeros}{zeros}{1:08X}{zeros}{zeros}{none[:32]}00000004{zeros}bin\0\0\0"
        f"070701{2:08X}000081ED{zeros}{zeros}{1:08X}{zeros}00000005{none[:32]}00000009{zeros}"
        "bin/tool\0\0" + "12345\0\0\0"
        f"070701{3:08X}{zeros}{zeros}{zeros}{1:08X}{zeros}{zeros}{none[:32]}0000000B{zeros}"
        "TRAILER!!!\0\0\0\0"
    )
    made = cpio({"bin": (FOLDER, b""), "bin/tool": (PROGRAM, b"12345")})
    assert made == expected.encode()


def test_modules_are_numbered_in_their_order() -> None:
    raw = gzip.decompress(initrd(b"busybox", b"#!", {"b": b"first", "a": b"second"}))
    assert raw.index(b"modules/00-b.ko\0") < raw.index(b"modules/01-a.ko\0")
    assert raw == gzip.decompress(initrd(b"busybox", b"#!", {"b": b"first", "a": b"second"}))
