"""The plugin folder: what is taken, when, and what is told of the rest."""

import os
from pathlib import Path

import pytest

from edge_agent.config import Limits
from edge_agent.node.plugin_sources import MAX_CONFIG_BYTES, MAX_TOLD, PluginFolder
from edge_agent.store.release import PluginId

GUESTS = Path(__file__).parent.parent / "guests"


@pytest.fixture
def folder(tmp_path: Path) -> PluginFolder:
    return PluginFolder(tmp_path, Limits(), "all")


def put(path: Path, content: bytes = (GUESTS / "bench.wasm").read_bytes()) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.rename(path)


def test_what_is_there_at_the_start_is_taken_at_once(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "10-a.wasm")
    put(tmp_path / "10-a.conf", b"level=1\n")
    put(tmp_path / "10-a.toml", b'failure_policy = "Ignore"\n[limits]\nmemory = "1MiB"\n')
    scan = folder.scan()
    assert not scan.errors
    release = scan.releases[PluginId("10-a")]
    assert (release.index, release.name, release.config) == ("10", "a", "level=1\n")
    assert release.settings.failure_policy == "Ignore"
    assert release.settings.limits.memory_bytes == 1 << 20


def test_a_new_file_is_taken_when_two_scans_found_it_the_same(
    folder: PluginFolder, tmp_path: Path
) -> None:
    folder.scan()
    put(tmp_path / "10-a.wasm")
    assert not folder.scan().releases
    assert list(folder.scan().releases) == ["10-a"]


def test_a_file_that_grows_is_left_alone(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "10-a.wasm")
    before = folder.scan().releases[PluginId("10-a")]
    whole = (GUESTS / "hostile.wasm").read_bytes()
    with (tmp_path / "10-a.wasm").open("wb") as file:
        for at in range(0, len(whole), len(whole) // 4):
            file.write(whole[at : at + len(whole) // 4])
            file.flush()
            assert folder.scan().releases[PluginId("10-a")] == before
    folder.scan()
    assert folder.scan().releases[PluginId("10-a")].size == len(whole)


@pytest.mark.parametrize("suffix", [".conf", ".toml"])
def test_a_changed_configuration_is_another_release(
    folder: PluginFolder, tmp_path: Path, suffix: str
) -> None:
    put(tmp_path / "10-a.wasm")
    before = folder.scan().releases[PluginId("10-a")]
    put(tmp_path / f"10-a{suffix}", b'report = "errors"\n')
    folder.scan()
    after = folder.scan().releases[PluginId("10-a")]
    assert after != before
    assert after.digest == before.digest


def test_a_removed_module_is_gone_and_a_stray_configuration_is_nothing(
    folder: PluginFolder, tmp_path: Path
) -> None:
    put(tmp_path / "10-a.wasm")
    put(tmp_path / "10-a.conf", b"x")
    folder.scan()
    (tmp_path / "10-a.wasm").unlink()
    scan = folder.scan()
    assert (scan.releases, scan.errors) == ({}, {})


@pytest.mark.parametrize(
    ("suffix", "content", "told"),
    [
        (".toml", b"failure_polcy = 'Fail'\n", "failure_policy"),
        (".toml", b"not toml", "10-a.toml"),
        (".conf", b"\xff\xfe", "not UTF-8 at byte 0"),
        (".conf", b"x" * (MAX_CONFIG_BYTES + 1), "at most 1MiB"),
    ],
)
def test_a_wrong_file_is_told_and_the_release_before_stays(
    folder: PluginFolder, tmp_path: Path, suffix: str, content: bytes, told: str
) -> None:
    put(tmp_path / "10-a.wasm")
    put(tmp_path / "20-b.wasm")
    before = folder.scan().releases
    put(tmp_path / f"10-a{suffix}", content)
    folder.scan()
    scan = folder.scan()
    assert scan.releases == before
    assert told in scan.errors["10-a"]
    assert str(tmp_path) in scan.errors["10-a"]
    (tmp_path / f"10-a{suffix}").unlink()
    folder.scan()
    assert not folder.scan().errors


def test_a_module_with_another_name_is_told(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "plugin.wasm")
    assert "NN-name.wasm" in folder.scan().errors["plugin.wasm"]


def test_hidden_and_other_files_are_nothing(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "10-a.wasm.tmp")
    (tmp_path / ".10-b.wasm").write_bytes(b"")
    (tmp_path / "README.md").write_text("")
    (tmp_path / "10-c.wasm").symlink_to(tmp_path / "nowhere")
    scan = folder.scan()
    assert (scan.releases, scan.errors) == ({}, {})


def test_an_unreadable_module_is_told_and_the_others_run(
    folder: PluginFolder, tmp_path: Path
) -> None:
    put(tmp_path / "10-a.wasm")
    (tmp_path / "20-b.wasm").mkdir()
    scan = folder.scan()
    assert list(scan.releases) == ["10-a"]
    assert "20-b.wasm" in scan.errors["20-b"]


def test_a_folder_that_vanishes_keeps_its_plugins(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "10-a.wasm")
    before = folder.scan().releases
    away = tmp_path.with_name("away")
    tmp_path.rename(away)
    try:
        scan = folder.scan()
        assert scan.releases == before
        assert "No such file" in scan.errors[str(tmp_path)]
    finally:
        away.rename(tmp_path)


def test_another_configuration_is_applied_to_what_is_right(
    folder: PluginFolder, tmp_path: Path
) -> None:
    """SIGHUP: nothing that runs ends because of it."""
    put(tmp_path / "10-a.wasm")
    put(tmp_path / "20-b.wasm")
    before = folder.scan().releases
    put(tmp_path / "20-b.toml", b"not toml")
    folder.scan()
    folder.configure(tmp_path, Limits(memory_bytes=1 << 20), "errors")
    scan = folder.scan()
    assert scan.releases[PluginId("10-a")].settings.limits.memory_bytes == 1 << 20
    assert scan.releases[PluginId("20-b")] == before[PluginId("20-b")]
    assert list(scan.errors) == ["20-b"]


def test_another_configuration_in_the_middle_of_a_write_waits_for_its_end(
    folder: PluginFolder, tmp_path: Path
) -> None:
    put(tmp_path / "10-a.wasm")
    before = folder.scan().releases
    (tmp_path / "10-a.wasm").write_bytes(b"\0asm")
    folder.configure(tmp_path, Limits(), "all")
    assert folder.scan().releases == before


def test_another_folder_that_is_not_there_keeps_the_plugins(
    folder: PluginFolder, tmp_path: Path
) -> None:
    put(tmp_path / "10-a.wasm")
    before = folder.scan().releases
    folder.configure(tmp_path / "nowhere", Limits(), "all")
    for _ in range(2):
        scan = folder.scan()
        assert scan.releases == before
        assert str(tmp_path / "nowhere") in scan.errors


@pytest.mark.parametrize("name", ["10-a.wasm", "10-a.conf", "10-a.toml"])
def test_a_named_pipe_is_told_and_not_waited_for(
    folder: PluginFolder, tmp_path: Path, name: str
) -> None:
    put(tmp_path / "10-a.wasm")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert f"{name}: is not a file" in folder.scan().errors["10-a"]


def test_two_plugins_may_have_the_same_index(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "10-a.wasm")
    put(tmp_path / "10-b.wasm")
    assert list(folder.scan().releases) == ["10-a", "10-b"]


def test_more_than_a_hundred_are_told(folder: PluginFolder, tmp_path: Path) -> None:
    put(tmp_path / "00-first.wasm")
    for number in range(100):
        os.link(tmp_path / "00-first.wasm", tmp_path / f"50-{number:03}.wasm")
    scan = folder.scan()
    assert len(scan.releases) == 100
    assert list(scan.errors) == ["50-099"]


def test_of_thousands_of_files_that_are_not_taken_some_are_told(
    folder: PluginFolder, tmp_path: Path
) -> None:
    put(tmp_path / "10-a.wasm")
    for number in range(2000):
        os.link(tmp_path / "10-a.wasm", tmp_path / f"copy-{number}.wasm")
    scan = folder.scan()
    assert list(scan.releases) == ["10-a"]
    assert len(scan.errors) == MAX_TOLD + 1
    assert scan.errors[str(tmp_path)] == f"{tmp_path}: {2000 - MAX_TOLD} more files are not taken"


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("10-a", ("10", "a")),
        ("00-a.b_c+d-e", ("00", "a.b_c+d-e")),
        ("1-a", None),
        ("100-a", None),
        ("10-", None),
        ("10-a b", None),
        ("10-ä", None),
        ("ab-a", None),
        ("10-" + "n" * 247, ("10", "n" * 247)),  # with .wasm the longest name of a file
        ("10-" + "n" * 248, None),
        ("10-a\n", None),
    ],
)
def test_names_are_those_of_nri(stem: str, expected: tuple[str, str] | None) -> None:
    found = PluginId.parse(stem)
    assert (None if found is None else found.parts) == expected
    assert found in (None, stem)
