"""What a node remembers, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.config import Limits, PluginSettings
from edge_agent.store import catalogue
from edge_agent.store.catalogue import Catalogue, Kept, Known
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

A, B, C = (Digest.of_hex(letter * 64) for letter in "abc")


def running(digest: Digest = A, name: str = "guard", config: str = "") -> Release:
    settings = PluginSettings(Limits(memory_bytes=1 << 20), "Ignore", ("env",), "errors")
    return Release("10", name, digest, 1234, config, settings, digest[7:10])


def step(before: Catalogue, generation: int, *wanted: Release) -> Catalogue:
    """A deployment is accepted and activated."""
    known = Known(generation, "ab" * 32, 1.5 + generation)
    after = catalogue.accepted(before, known, b"document %d" % generation)
    return catalogue.activated(after, wanted)


FIRST = step(Catalogue(), 1, running(A))
PROVEN = catalogue.kept(FIRST, PluginId("10-guard"))
SECOND = step(PROVEN, 2, running(B))


def test_an_accepted_document_waits_and_what_runs_goes_on() -> None:
    after = catalogue.accepted(PROVEN, Known(2, "cd" * 32, 9.0), b"document 2")
    assert after == replace(PROVEN, known=Known(2, "cd" * 32, 9.0), pending="document 2")


@pytest.mark.parametrize("generation", [0, 1])
def test_a_generation_cannot_go_back(generation: int) -> None:
    with pytest.raises(ValueError, match="was accepted"):
        catalogue.accepted(PROVEN, Known(generation, "", 0.0), b"")


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
    assert after.plugins[PluginId("10-guard")] == Kept(running(A, config="new"), running(A), True)


def test_activation_without_anything_pending_keeps_the_document() -> None:
    assert catalogue.activated(PROVEN, [running(A)]) == PROVEN


def test_a_release_that_passed_is_proven_and_the_one_before_stays() -> None:
    after = catalogue.kept(SECOND, PluginId("10-guard"))
    assert after.plugins == {"10-guard": Kept(running(B), running(A), False)}
    assert after.digests == {A, B}


def test_a_rejected_release_gives_way_to_the_one_before() -> None:
    after = catalogue.rejected(SECOND, PluginId("10-guard"), "trap")
    assert after.plugins == {"10-guard": Kept(running(A), None, False)}
    assert after.rejected == {B: "trap"}
    assert after.known == SECOND.known
    assert after.digests == {A}


def test_a_rejected_first_release_leaves_nothing() -> None:
    after = catalogue.rejected(FIRST, PluginId("10-guard"), "timeout")
    assert after.plugins == {}
    assert after.rejected == {A: "timeout"}


def test_a_rejected_configuration_does_not_reject_its_module() -> None:
    new = running(A, config="new")
    after = catalogue.rejected(step(PROVEN, 2, new), PluginId("10-guard"), "start")
    assert after.plugins == {"10-guard": Kept(running(A), None, False)}
    assert after.rejected == {new.setup: "start"}
    assert new.setup.startswith(A + "+")
    assert new.setup != running(A).setup


def test_a_released_module_has_nothing_held_against_it() -> None:
    held = catalogue.quarantined(PROVEN, A, "crash")
    held = replace(held, rejected={A: "x", A + "+00": "y", B: "z"})
    assert catalogue.quarantined(held, B, "b").quarantined == {A: "crash", B: "b"}
    after = catalogue.unquarantined(held, A)
    assert (after.quarantined, after.rejected) == ({}, {B: "z"})


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    def of(number: int) -> Digest:
        return Digest.of(b"%d" % number)

    now = Catalogue()
    for number in range(catalogue.MAX_REMEMBERED + 3):
        now = catalogue.quarantined(now, of(number), "x")
    assert len(now.quarantined) == catalogue.MAX_REMEMBERED
    assert of(2) not in now.quarantined
    assert of(3) in now.quarantined


def test_a_trust_set_is_remembered() -> None:
    after = catalogue.trusted(PROVEN, b"set 2", "files")
    assert after == replace(PROVEN, trust="set 2", trust_root="files")


def test_a_setup_keeps_the_name_that_it_had_before_there_were_runtimes() -> None:
    """What was rejected under it by the version before stays rejected."""
    digest = Digest.of_hex("00" * 32)
    before = f"{digest}+12d46863cb960b82"  # as that version named it
    release = Release("10", "guard", digest, 8, "a", PluginSettings())
    assert release.setup == before
    assert replace(release, settings=PluginSettings(runtimes=("docker",))).setup != before
