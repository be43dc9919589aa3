"""The store under every interruption: killed, without power, on a disk that fails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import PluginSettings
from edge_agent.errors import StoreError
from edge_agent.store import catalogue, catalogue_store, files
from edge_agent.store.catalogue import Catalogue, Known
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.release import PluginId, Release
from tests.support.faults import survives

OLD, NEW = b"\0asm old" * 50, b"\0asm new" * 70
OLD_DIGEST, NEW_DIGEST = map(Digest.of, (OLD, NEW))


def names(layout: Layout) -> set[tuple[str, str]]:
    return {(each.name, each.digest) for each in layout.releases()}


OLD_ALONE, BOTH = {("guard", OLD_DIGEST)}, {("guard", OLD_DIGEST), ("guard", NEW_DIGEST)}


def one_release(root: Path) -> None:
    Layout(root / "store").add_module("guard", "1", OLD)


def judge_layout(root: Path) -> None:
    """The old release is whole, the new one is whole or is not, and can be added again."""
    layout = Layout(root / "store")
    assert names(layout) <= BOTH  # also before anything is mended
    layout.check()
    assert names(layout) in (OLD_ALONE, BOTH)
    assert layout.blob(OLD_DIGEST).read_bytes() == OLD
    for digest in [each.digest for each in layout.releases()]:
        assert layout.good(digest)
    assert layout.add_module("guard", "2", NEW) == NEW_DIGEST
    assert names(layout) == BOTH
    assert layout.check() == []
    assert not list((root / "store").rglob(f"{files.TEMPORARY_PREFIX}*"))


def both_are_here(root: Path) -> None:
    layout = Layout(root / "store")
    assert names(layout) == BOTH
    assert layout.check() == []


def test_adding_a_release_is_all_or_nothing(tmp_path: Path) -> None:
    counts = survives(
        tmp_path,
        one_release,
        lambda root: Layout(root / "store").add_module("guard", "2", NEW),
        judge_layout,
        done=both_are_here,
    )
    assert counts["kill"] > 25
    assert counts["power"] > 20
    assert counts["error"] > 20


def test_the_first_release_in_a_new_store_is_all_or_nothing(tmp_path: Path) -> None:
    def judge(root: Path) -> None:
        layout = Layout(root / "store")
        layout.check()
        assert names(layout) in (set(), OLD_ALONE)
        one_release(root)
        assert names(layout) == OLD_ALONE
        assert layout.check() == []

    counts = survives(tmp_path, lambda _: None, one_release, judge)
    assert counts["kill"] > 40


def test_copying_a_file_in_is_all_or_nothing(tmp_path: Path) -> None:
    source = tmp_path / "guard.wasm"
    source.write_bytes(NEW)
    survives(
        tmp_path,
        one_release,
        lambda root: Layout(root / "store").add_module("guard", "2", source),
        judge_layout,
        done=both_are_here,
    )
    assert source.read_bytes() == NEW


def fetched(root: Path) -> Path:
    """The new module as a transfer leaves it, not yet on the disk for certain."""
    layout = Layout(root / "store")
    folder = layout.incoming(NEW_DIGEST)
    files.make_folder(folder)
    fd = os.open(folder / "module", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, NEW)
    finally:
        os.close(fd)
    return folder / "module"


def test_moving_in_what_was_fetched_is_all_or_nothing(tmp_path: Path) -> None:
    def act(root: Path) -> None:
        try:
            module = fetched(root)
        except OSError as error:
            raise StoreError("not fetched") from error
        Layout(root / "store").add_module("guard", "2", module)

    counts = survives(tmp_path, one_release, act, judge_layout, done=both_are_here)
    assert counts["kill"] > 20


def test_a_module_that_comes_again_is_there_for_good(tmp_path: Path) -> None:
    """Its manifest is here already, so nothing else is written that would sync the folder."""

    def prepare(root: Path) -> None:
        one_release(root)
        layout = Layout(root / "store")
        layout.add_module("guard", "2", NEW)
        files.write(fetched(root), NEW)
        layout.blob(NEW_DIGEST).unlink()

    def act(root: Path) -> None:
        layout = Layout(root / "store")
        layout.add_module("guard", "2", layout.incoming(NEW_DIGEST) / "module")

    survives(tmp_path, prepare, act, judge_layout, done=both_are_here)


def test_collecting_keeps_what_is_to_be_kept(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        one_release(root)
        layout = Layout(root / "store")
        layout.add_module("guard", "2", NEW)
        folder = layout.incoming(Digest.of_hex("a" * 64))
        files.make_folder(folder)
        files.write(folder / "0", b"part")

    def act(root: Path) -> None:
        Layout(root / "store").collect([OLD_DIGEST])

    survives(tmp_path, prepare, act, judge_layout)


def test_checking_a_damaged_store_mends_it_in_the_end(tmp_path: Path) -> None:
    def prepare(root: Path) -> None:
        one_release(root)
        layout = Layout(root / "store")
        layout.blob(layout.add_module("guard", "2", NEW)).write_bytes(b"damaged")
        (root / "store" / "index.json").write_bytes(b"{")
        (root / "store" / ".new-abc-index.json").write_bytes(b"half")

    survives(tmp_path, prepare, lambda root: Layout(root / "store").check(), judge_layout)


BEFORE = catalogue.kept(
    catalogue.activated(
        catalogue.accepted(Catalogue(), Known(7, "ab" * 32, 1.0), b"{}"),
        [Release("10", "guard", OLD_DIGEST, 9, "", PluginSettings(), "1")],
    ),
    PluginId("10-guard"),
)
AFTER = catalogue.accepted(BEFORE, Known(8, "cd" * 32, 2.0), b'{"generation":8}')


def test_the_catalogue_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    def judge(root: Path) -> None:
        path = root / "catalogue.json"
        found = catalogue_store.load(path)
        assert found in (BEFORE, AFTER)
        assert catalogue_store.recover(path) == found
        catalogue_store.save(path, AFTER)
        assert catalogue_store.load(path) == AFTER

    counts = survives(
        tmp_path,
        lambda root: catalogue_store.save(root / "catalogue.json", BEFORE),
        lambda root: catalogue_store.save(root / "catalogue.json", AFTER),
        judge,
        done=lambda root: _same(catalogue_store.load(root / "catalogue.json"), AFTER),
    )
    assert counts["kill"] > 12
    assert counts["power"] > 10


def _same(found: object, expected: object) -> None:
    assert found == expected


def test_a_generation_that_was_saved_is_never_forgotten(tmp_path: Path) -> None:
    """Also when one of the two files is damaged while the power goes."""

    def act(root: Path) -> None:
        path = root / "catalogue.json"
        for generation in (8, 9):
            found = catalogue_store.recover(path)
            known = Known(generation, "cd" * 32, 2.0)
            catalogue_store.save(path, replace(found, known=known))

    def judge(root: Path) -> None:
        path = root / "catalogue.json"
        found = catalogue_store.recover(path).known.generation
        assert found in (7, 8, 9)
        for copy in (path, path.with_name("catalogue.2.json")):
            data = copy.read_bytes()
            copy.write_bytes(b"damaged")
            assert catalogue_store.load(path).known.generation == found
            copy.write_bytes(data)

    survives(
        tmp_path, lambda root: catalogue_store.save(root / "catalogue.json", BEFORE), act, judge
    )


def test_the_first_catalogue_is_there_or_not(tmp_path: Path) -> None:
    def judge(root: Path) -> None:
        assert catalogue_store.recover(root / "store" / "catalogue.json") in (Catalogue(), AFTER)

    survives(
        tmp_path,
        lambda _: None,
        lambda root: catalogue_store.save(root / "store" / "catalogue.json", AFTER),
        judge,
        done=lambda root: _same(catalogue_store.load(root / "store" / "catalogue.json"), AFTER),
    )


# The harness itself: it must find what is wrong.


def careless(root: Path, *, sync: bool, place: bool, whole: bool = True) -> None:
    """Replace a file, wrongly unless everything is asked for."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        fd = os.open(root / ("new" if whole else "file"), flags)
        os.write(fd, b"new content")
        if sync:
            os.fsync(fd)
        os.close(fd)
        if whole:
            (root / "new").replace(root / "file")
        if place:
            files.sync_folder(root)
    except OSError as error:
        raise StoreError(str(error)) from error


CARELESS = [
    ({"sync": True, "place": True}, ""),
    ({"sync": False, "place": True}, "power lost"),
    ({"sync": True, "place": False}, "power lost when all was done"),
    ({"sync": True, "place": True, "whole": False}, "killed at point"),
]


@pytest.mark.parametrize(("how", "found"), CARELESS, ids=[str(how) for how, _ in CARELESS])
def test_the_harness_finds_what_is_careless(
    tmp_path: Path, how: dict[str, bool], found: str
) -> None:
    def try_it() -> None:
        survives(
            tmp_path,
            lambda root: (root / "file").write_bytes(b"old"),
            lambda root: careless(root, **how),
            lambda root: _among((root / "file").read_bytes(), b"old", b"new content"),
            done=lambda root: _same((root / "file").read_bytes(), b"new content"),
        )

    if not found:
        try_it()
        return
    with pytest.raises(AssertionError) as caught:
        try_it()
    assert found in " ".join(caught.value.__notes__)


def _among(found: object, *expected: object) -> None:
    assert found in expected


def test_the_harness_finds_an_error_that_is_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        survives(tmp_path, lambda _: None, lambda root: (root / "x").mkdir(), lambda _: None)


def test_the_harness_finds_a_folder_that_was_made_and_not_synced(tmp_path: Path) -> None:
    def act(root: Path) -> None:
        (root / "x").mkdir()
        files.write(root / "x" / "file", b"content")

    with pytest.raises(AssertionError) as caught:
        survives(
            tmp_path,
            lambda _: None,
            act,
            lambda _: None,
            done=lambda root: _same((root / "x" / "file").exists(), True),
        )
    assert "power lost when all was done" in " ".join(caught.value.__notes__)
