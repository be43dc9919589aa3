"""What `scripts/build-wasm3` makes: one library for each architecture, and no Python in it."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

import pytest

from edge_agent.wasm.engines import wasm3_capi as capi
from scripts.deb import wasm3
from scripts.deb.wheels import MACHINES, WheelError

# e_flags of ELF, as far as they say how floating-point numbers are passed.
HARD_FLOAT = {"armhf": (0x400, 0x600), "riscv64": (0x4, 0x6)}  # EF_ARM_ABI_FLOAT_*, EF_RISCV_*


def binary(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("edge_agent_wasm3/libwasm3.so")


def made(arch: str) -> Path:
    try:
        return wasm3.wasm3_wheel(arch)
    except WheelError as error:
        if "pip gives no" not in str(error):
            raise
        pytest.skip(f"PyPI cannot be reached: {error}")


@pytest.mark.parametrize("arch", MACHINES)
def test_it_has_what_the_adapter_calls(arch: str) -> None:
    names = set(binary(made(arch)).split(b"\0"))
    assert {name.encode() for name in (*capi._SIGNATURES, *capi._QUICK)} <= names
    assert b"PyInit_wasm3" not in names


@pytest.mark.parametrize("arch", HARD_FLOAT)
def test_floating_point_numbers_are_passed_as_debian_does(arch: str) -> None:
    library = binary(made(arch))
    at = 48 if library[4] == 2 else 36  # in the header of 64 or of 32 bits
    wanted, mask = HARD_FLOAT[arch]
    assert struct.unpack_from("<I", library, at)[0] & mask == wanted


def test_the_one_for_32_bit_arm_is_for_the_first_raspberry_pi_too() -> None:
    # Tag_CPU_name in .ARM.attributes: what the code was made for.
    assert b"\x05arm1176jzf-s\0" in binary(made("armhf"))


def test_the_same_source_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = binary(made("armhf"))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path))  # nothing is left of before
    assert wasm3.library("armhf") == first


def test_another_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "edge-agent" / "wheels" / wasm3.SOURCE
    source.parent.mkdir(parents=True)
    source.write_bytes(b"something else")
    with pytest.raises(WheelError, match=f"{source} is not the source that is pinned"):
        wasm3.library("amd64")


def test_the_wheel_says_for_which_boards_it_is_and_lists_its_files() -> None:
    wheel = made("armhf")
    with zipfile.ZipFile(wheel) as archive:
        info = "edge_agent_wasm3-0.5.0.dist-info"
        tags = re.findall(r"^Tag: (.*)$", archive.read(f"{info}/WHEEL").decode(), re.M)
        record = archive.read(f"{info}/RECORD").decode()
        assert [line.partition(",")[0] for line in record.splitlines()] == archive.namelist()
    assert tags == ["py3-none-linux_armv6l", "py3-none-linux_armv7l"]
    assert wheel.name == "edge_agent_wasm3-0.5.0-py3-none-linux_armv6l.linux_armv7l.whl"
