"""What a node remembers: every step, and every way in which the files can be damaged."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import Limits, PluginSettings
from edge_agent.errors import StoreError
from edge_agent.store import catalogue
from edge_agent.store.catalogue import Catalogue, Kept, Known, Running, load, recover, save

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def running(digest: str = A, name: str = "guard", config: str = "") -> Running:
    settings = PluginSettings(Limits(memory_bytes=1 << 20), "Ignore", ("env",), "errors")
    return Running(name, "10", digest[7:10], digest, 1234, config, settings)


def step(before: Catalogue, generation: int, *wanted: Running) -> Catalogue:
    """A deployment is accepted and activated."""
    known = Known(generation, "ab" * 32, 1.5 + generation)
    after = catalogue.accepted(before, known, b"document %d" % generation)
    return catalogue.activated(after, wanted)


FIRST = step(Catalogue(), 1, running(A))
PROVEN = catalogue.kept(FIRST, "10-guard")
SECOND = step(PROVEN, 2, running(B))


def test_an_accepted_document_waits_and_what_runs_goes_on() -> None:
    after = catalogue.accepted(PROVEN, Known(2, "cd" * 32, 9.0), b"document 2")
    assert after == replace(PROVEN, known=Known(2, "cd" * 32, 9.0), pending="document 2")


@pytest.mark.parametrize("generation", [0, 1])
def test_a_generation_cannot_go_back(generation: int) -> None:
    with pytest.raises(ValueError, match="was accepted"):
        catalogue.accepted(PROVEN, Known(generation, "", 0.0), b"")


def test_a_document_that_cannot_be_fetched_keeps_its_generation() -> None:
    after = catalogue.abandoned(catalogue.accepted(PROVEN, Known(7, "", 0.0), b"x"))
    assert after == replace(PROVEN, known=Known(7, "", 0.0))


def test_activation_puts_a_new_plugin_on_probation() -> None:
    assert FIRST.active == "document 1"
    assert FIRST.pending == ""
    assert FIRST.plugins == {"10-guard": Kept(running(A), None, True)}


def test_activation_keeps_the_proven_release_to_go_back_to() -> None:
    assert SECOND.plugins == {"10-guard": Kept(running(B), running(A), True)}
    # B was not proven when C came: A is what to go back to.
    third = step(SECOND, 3, running(C))
    assert third.plugins == {"10-guard": Kept(running(C), running(A), True)}


def test_activation_leaves_what_is_the_same_alone() -> None:
    assert step(PROVEN, 2, running(A)).plugins == PROVEN.plugins
    assert step(SECOND, 3, running(B)).plugins == SECOND.plugins


def test_activation_ends_what_is_no_longer_wanted() -> None:
    after = step(PROVEN, 2, running(B, "logger"))
    assert list(after.plugins) == ["10-logger"]


def test_a_new_configuration_is_on_probation_too() -> None:
    after = step(PROVEN, 2, running(A, config="new"))
    assert after.plugins["10-guard"] == Kept(running(A, config="new"), running(A), True)


def test_activation_without_anything_pending_keeps_the_document() -> None:
    assert catalogue.activated(PROVEN, [running(A)]) == PROVEN


def test_a_release_that_passed_is_proven_and_the_one_before_stays() -> None:
    after = catalogue.kept(SECOND, "10-guard")
    assert after.plugins == {"10-guard": Kept(running(B), running(A), False)}
    assert after.digests == {A, B}


def test_a_rejected_release_gives_way_to_the_one_before() -> None:
    after = catalogue.rejected(SECOND, "10-guard", "trap")
    assert after.plugins == {"10-guard": Kept(running(A), None, False)}
    assert after.rejected == {B: "trap"}
    assert after.known == SECOND.known
    assert after.digests == {A}


def test_a_rejected_first_release_leaves_nothing() -> None:
    after = catalogue.rejected(FIRST, "10-guard", "timeout")
    assert after.plugins == {}
    assert after.rejected == {A: "timeout"}


def test_a_rejected_configuration_does_not_reject_its_module() -> None:
    new = running(A, config="new")
    after = catalogue.rejected(step(PROVEN, 2, new), "10-guard", "start")
    assert after.plugins == {"10-guard": Kept(running(A), None, False)}
    assert after.rejected == {new.setup: "start"}
    assert new.setup.startswith(A + "+")
    assert new.setup != running(A).setup


def test_crashes_are_counted_for_each_module() -> None:
    after = catalogue.crashed(catalogue.crashed(catalogue.crashed(PROVEN, A), B), A)
    assert after.crashes == {A: 2, B: 1}


def test_a_released_module_has_nothing_held_against_it() -> None:
    held = catalogue.quarantined(catalogue.crashed(PROVEN, A), A, "crash")
    held = replace(held, rejected={A: "x", A + "+00": "y", B: "z"})
    assert catalogue.quarantined(held, B, "b").quarantined == {A: "crash", B: "b"}
    after = catalogue.released(held, A)
    assert (after.crashes, after.quarantined, after.rejected) == ({}, {}, {B: "z"})


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    now = Catalogue()
    for number in range(catalogue.MAX_REMEMBERED + 3):
        now = catalogue.crashed(now, str(number))
        now = catalogue.quarantined(now, str(number), "x")
    assert len(now.crashes) == len(now.quarantined) == catalogue.MAX_REMEMBERED
    assert "2" not in now.crashes
    assert "3" in now.crashes
    assert "3" in now.quarantined


def test_a_trust_set_is_remembered() -> None:
    after = catalogue.trusted(PROVEN, b"set 2", "files")
    assert after == replace(PROVEN, trust="set 2", trust_root="files")


FULL = replace(
    catalogue.quarantined(catalogue.crashed(SECOND, C), C, 'crash "twice"'),
    rejected={A: "tr\u00e4p"},
    pending='{"kind":"edge-agent.deployment"}',
    trust="{}",
    trust_root="ab",
    plugins={
        **SECOND.plugins,
        "20-bare": Kept(Running("bare", "20", "1", C, 9, "", PluginSettings())),
    },
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "catalogue.json"


def copy_of(path: Path) -> Path:
    return path.with_name("catalogue.2.json")


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
    "huge": lambda path: path.write_bytes(b" " * (catalogue.MAX_FILE_BYTES + 1)),
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


def test_what_a_later_agent_added_is_left_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_checksum", lambda *_: "same")
    save(path, FULL)
    _body(path, invented=[1])
    copy_of(path).unlink()
    assert load(path) == FULL


def test_a_catalogue_that_is_too_large_is_not_written(path: Path) -> None:
    save(path, FIRST)
    with pytest.raises(StoreError, match="possible"):
        save(path, replace(FIRST, pending="x" * catalogue.MAX_FILE_BYTES))
    assert load(path) == FIRST
