"""The catalogue on disk: what is saved is loaded, in whatever way the files are damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import strictjson
from edge_agent.config import PluginSettings
from edge_agent.errors import StoreError
from edge_agent.store import catalogue
from edge_agent.store.catalogue import Catalogue, Kept
from edge_agent.store.catalogue_store import MAX_FILE_BYTES, load, recover, save
from edge_agent.store.release import PluginId, Release
from tests.store.test_catalogue import FIRST, PROVEN, SECOND, A, C

FULL = replace(
    catalogue.quarantined(SECOND, C, 'crash "twice"'),
    rejected={A: "tr\u00e4p"},
    pending='{"kind":"edge-agent.deployment"}',
    trust="{}",
    trust_root="ab",
    plugins={
        **SECOND.plugins,
        PluginId("20-bare"): Kept(Release("20", "bare", C, 9, "", PluginSettings(), "1")),
        PluginId("30-meant"): Kept(
            Release("30", "meant", C, 9, "", PluginSettings(runtimes=("docker", "/a.sock")), "1")
        ),
    },
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "catalogue.json"


def copy_of(path: Path) -> Path:
    return path.with_name("catalogue.2.json")


def checksum_of(serial: int, body: object) -> str:
    """As the file's format has it."""
    return hashlib.sha256(strictjson.dumps([1, serial, body])).hexdigest()


@pytest.mark.parametrize("value", [Catalogue(), FIRST, SECOND, FULL])
def test_what_is_saved_is_loaded(path: Path, value: Catalogue) -> None:
    save(path, value)
    assert load(path) == value
    save(path, PROVEN)
    save(path, value)
    assert load(path) == value
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "catalogue.2.json",
        "catalogue.json",
    ]


def test_the_epoch_is_kept_where_agents_that_know_none_pass_over_it(path: Path) -> None:
    value = replace(FULL, known=catalogue.Known(3, "ab", 5.0, 2))
    save(path, value)
    assert load(path) == value
    body = json.loads(path.read_bytes())["body"]
    assert body["known"] == [3, "ab", 5.0]  # what 0.1.0 makes a Known of
    del body["epoch"]
    for copy in (path, copy_of(path)):
        checksum = checksum_of(7, body)
        copy.write_text(json.dumps({"format": 1, "serial": 7, "sha256": checksum, "body": body}))
    assert load(path).known == catalogue.Known(3, "ab", 5.0, 0)


def test_without_a_file_it_is_empty(path: Path) -> None:
    assert load(path) == recover(path) == Catalogue()
    assert not path.exists()


def _flip(part: float) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(len(data) * part)] ^= 1
        path.write_bytes(data)

    return flip


def _body(path: Path, **fields: object) -> None:
    file = json.loads(path.read_bytes())
    file["body"].update(fields)
    path.write_text(json.dumps(file))


def _instead(path: Path, make: Callable[[], None]) -> None:
    path.unlink()
    make()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "huge": lambda path: path.write_bytes(b" " * (MAX_FILE_BYTES + 1)),
    "a folder": lambda path: _instead(path, path.mkdir),
    "missing, a link to nothing": lambda path: _instead(path, lambda: path.symlink_to("nowhere")),
    "a list": lambda path: path.write_bytes(b"[]"),
    "another generation written in": lambda path: _body(path, known=[1, "", 0.0]),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    **{f"a bit at {tenth}/10": _flip(tenth / 10) for tenth in range(10)},
}


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("second", [False, True])
def test_one_damaged_file_costs_nothing(
    path: Path, spoil: Callable[[Path], object], second: bool
) -> None:
    save(path, FIRST)
    save(path, FULL)
    spoil(copy_of(path) if second else path)
    assert load(path) == FULL


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE.keys())
def test_both_files_are_good_again_after_recovery(
    path: Path, spoil: Callable[[Path], object]
) -> None:
    save(path, FULL)
    spoil(path)
    if path.is_dir():
        path.rmdir()
    assert recover(path) == FULL
    assert path.read_bytes() == copy_of(path).read_bytes()
    copy_of(path).unlink()
    assert load(path) == FULL


def test_a_good_pair_is_not_written_anew(path: Path) -> None:
    save(path, FULL)
    before = path.stat().st_ino
    assert recover(path) == FULL
    assert path.stat().st_ino == before


SPOILED = {
    name: spoil
    for name, spoil in DAMAGE.items()
    if name not in ("missing", "missing, a link to nothing")
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_with_both_damaged_nothing_is_guessed(path: Path, spoil: Callable[[Path], object]) -> None:
    save(path, FULL)
    spoil(path)
    spoil(copy_of(path))
    with pytest.raises(StoreError, match=r"catalogue.json.*catalogue.2.json.*store forget"):
        load(path)
    with pytest.raises(StoreError):
        recover(path)


def test_the_newer_file_counts_whichever_it_is(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(path, FIRST)
    old = path.read_bytes()
    save(path, SECOND)
    path.write_bytes(old)
    assert load(path) == SECOND
    path.write_bytes(copy_of(path).read_bytes())
    copy_of(path).write_bytes(old)
    assert load(path) == SECOND
    assert not caplog.records
    copy_of(path).write_bytes(b"rubbish")
    assert load(path) == SECOND
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_later_format_is_not_read(path: Path) -> None:
    save(path, FULL)
    for each in (path, copy_of(path)):
        each.write_text(json.dumps({**json.loads(each.read_bytes()), "format": 2}))
    with pytest.raises(StoreError, match="format 2"):
        load(path)


def test_what_a_later_agent_added_is_left_out(path: Path) -> None:
    save(path, FULL)
    copy_of(path).unlink()
    file = json.loads(path.read_bytes())
    file["body"]["invented"] = [1]
    file["sha256"] = checksum_of(file["serial"], file["body"])
    path.write_text(json.dumps(file))
    assert load(path) == FULL


def test_a_catalogue_that_is_too_large_is_not_written(path: Path) -> None:
    save(path, FIRST)
    with pytest.raises(StoreError, match="possible"):
        save(path, replace(FIRST, pending="x" * MAX_FILE_BYTES))
    assert load(path) == FIRST


MODES = {
    "10-plain": ("enforce", None),
    "10-watched": ("monitor", None),
    "10-was-watched": ("enforce", "monitor"),
    "10-becomes-watched": ("monitor", "enforce"),
    "10-both": ("enforce", "enforce"),
}


def modes(found: Catalogue) -> dict[str, tuple[str, str | None]]:
    return {
        identity: (
            kept.current.settings.mode,
            None if kept.previous is None else kept.previous.settings.mode,
        )
        for identity, kept in found.plugins.items()
    }


def in_modes() -> Catalogue:
    def release(name: str, version: str, mode: str | None) -> Release | None:
        if mode is None:
            return None
        settings = PluginSettings(mode="monitor" if mode == "monitor" else "enforce")
        return Release("10", name, C, 9, "", settings, version)

    plugins = {}
    for identity, (current, previous) in MODES.items():
        name = identity[3:]
        kept = release(name, "2", current)
        assert kept is not None
        plugins[PluginId(identity)] = Kept(kept, release(name, "1", previous))
    return Catalogue(plugins=plugins)


def test_an_older_agent_finds_nothing_to_enforce_that_is_only_monitored(path: Path) -> None:
    """It reads `plugins` and leaves out what it does not know: so agents of 3ee8d79 and eb44f01
    were seen to do with such a file."""
    save(path, in_modes())
    assert modes(load(path)) == MODES
    body = json.loads(path.read_bytes())["body"]
    older = {
        identity: [each and each["version"] for each in (kept["current"], kept["previous"])]
        for identity, kept in body["plugins"].items()
    }
    assert older == {
        "10-plain": ["2", None],
        "10-was-watched": ["2", None],
        "10-both": ["2", "1"],
    }
    assert "monitor" not in json.dumps(body["plugins"])


def test_without_a_monitored_release_the_file_is_that_of_older_agents(path: Path) -> None:
    save(path, FULL)
    text = path.read_text()
    assert "monitor" not in text
    assert '"mode"' not in text


def test_what_an_older_agent_made_of_the_file_is_read(path: Path) -> None:
    """Installed again, it writes what it knows; monitored plugins come with their deployment."""
    save(path, in_modes())
    for copy in (path, copy_of(path)):
        file = json.loads(copy.read_bytes())
        del file["body"]["monitored"]
        file["sha256"] = checksum_of(file["serial"], file["body"])
        copy.write_text(json.dumps(file))
    expected = {key: MODES[key] for key in ("10-plain", "10-both")}
    assert modes(load(path)) == {**expected, "10-was-watched": ("enforce", None)}


def test_an_older_agent_finds_no_one_shot_plugin_that_it_would_let_last(path: Path) -> None:
    """It reads `plugins`, and of d3a1cbf `monitored`."""

    def release(name: str, instance: str, mode: str = "enforce") -> Release:
        settings = PluginSettings(mode=mode, instance=instance)  # type: ignore[arg-type]
        return Release("10", name, C, 9, "", settings, instance)

    lasting, one_shot = "lasting", "per-event"
    plugins = {
        PluginId("10-fresh"): Kept(release("fresh", one_shot), None),
        PluginId("10-was"): Kept(release("was", lasting), release("was", one_shot)),
        PluginId("10-becomes"): Kept(release("becomes", one_shot), release("becomes", lasting)),
        PluginId("10-both"): Kept(release("both", one_shot, "monitor"), None),
        PluginId("10-watched"): Kept(
            release("watched", lasting, "monitor"), release("watched", one_shot)
        ),
        PluginId("10-plain"): Kept(release("plain", lasting), None),
    }
    catalogue = Catalogue(plugins=plugins)
    save(path, catalogue)
    assert load(path).plugins == plugins
    body = json.loads(path.read_bytes())["body"]
    older = {**body["plugins"], **body["monitored"]}
    assert {
        identity: [each and each["version"] for each in (kept["current"], kept["previous"])]
        for identity, kept in older.items()
    } == {"10-was": [lasting, None], "10-watched": [lasting, None], "10-plain": [lasting, None]}
    assert '"instance"' not in json.dumps(older)
    save(path, FULL)
    assert '"instance"' not in path.read_text()


def test_times_and_thresholds_come_back_and_are_left_out_where_there_are_none(path: Path) -> None:
    settings = PluginSettings(timer=30.0, pressure=(("memory", "some 20% over 10s"),))
    release = Release("10", "guard", C, 9, "", settings, "1")
    plugins = {PluginId("10-guard"): Kept(release, None)}
    save(path, Catalogue(plugins=plugins))
    assert load(path).plugins == plugins
    save(path, FULL)
    assert not {"timer", "pressure"} & set(re.findall(r"[a-z]+", path.read_text()))


def test_settings_of_before_there_were_runtimes_are_read(path: Path) -> None:
    save(path, FULL)
    for copy in (path, copy_of(path)):
        file = json.loads(copy.read_bytes())
        for kept in file["body"]["plugins"].values():
            for running in filter(None, (kept["current"], kept["previous"])):
                del running["settings"]["runtimes"]
        file["sha256"] = checksum_of(file["serial"], file["body"])
        copy.write_text(json.dumps(file))
    found = load(path).plugins
    assert {each.current.settings.runtimes for each in found.values()} == {None}
    assert found.keys() == FULL.plugins.keys()
