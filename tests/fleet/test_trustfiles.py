"""The trusted keys as files on a node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import ConfigError
from edge_agent.fleet.trustfiles import read_root
from edge_agent.fleet_protocol.keys import public_pem
from edge_agent.fleet_protocol.trust import TrustSet
from tests.fleet_protocol.papers import FLEET, KEYS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, key in zip("cab", KEYS, strict=False):
        (tmp_path / f"{name}.pem").write_text(public_pem(key.public))
    (tmp_path / "README").write_text("not a key")
    return tmp_path


def read(folder: Path, threshold: int = 2) -> TrustSet:
    return read_root(folder, fleet=FLEET, threshold=threshold)


def test_all_pem_files_are_trusted(folder: Path) -> None:
    expected = tuple(key.public for key in (KEYS[1], KEYS[2], KEYS[0]))
    assert read(folder) == TrustSet(FLEET, 1, 2, expected)


def test_their_version_may_stand_beside_them(folder: Path) -> None:
    (folder / "version").write_text("4\n")
    assert read(folder).version == 4


def _copies(folder: Path) -> None:
    for number in range(17):
        (folder / f"{number}.pem").write_text("")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a damaged key": (lambda folder: (folder / "a.pem").write_text("x"), r"a\.pem: 0 PEM blocks"),
    "a private key": (
        lambda folder: (folder / "a.pem").write_text(KEYS[0].to_pem()),
        r"a\.pem: it is a private key",
    ),
    "not text": (lambda folder: (folder / "a.pem").write_bytes(b"\xff"), r"a\.pem:1: not UTF-8"),
    "a folder": (lambda folder: (folder / "d.pem").mkdir(), r"d\.pem: cannot be read"),
    "a key twice": (
        lambda folder: (folder / "d.pem").write_text((folder / "a.pem").read_text()),
        "twice",
    ),
    "too many": (_copies, "at most 16"),
    "no keys": (
        lambda folder: [path.unlink() for path in folder.glob("*.pem")],  # type: ignore[func-returns-value]
        r"no key is trusted; put .*\*\.pem",
    ),
    "a version in words": (lambda folder: (folder / "version").write_text("two"), "whole number"),
    "a huge version": (lambda folder: (folder / "version").write_text("9" * 99), "whole number"),
    "version 0": (lambda folder: (folder / "version").write_text("0"), "version is 0"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=said):
        read(folder)


def test_a_threshold_above_the_keys_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="threshold is 4; it must be 1 to 3"):
        read(folder, threshold=4)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: No such file.*fleet init"):
        read(tmp_path / "nowhere")
