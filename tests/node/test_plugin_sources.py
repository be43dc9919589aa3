"""The folder's plugins and the fleet's as one set."""

from pathlib import Path
from typing import Any

from edge_agent.config import PluginSettings
from edge_agent.node.plugin_sources import PluginSources, Scan
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

# Three modules that are told apart.
OWN, FLEET, AGAIN, ANOTHER = (Digest.of(name) for name in (b"own", b"fleet", b"again", b"another"))


def release(identity: str, digest: Digest, path: str = "/x") -> Release:
    index, _, name = identity.partition("-")
    return Release(index, name, digest, 1, "", PluginSettings(), path=Path(path))


class Told:
    def __init__(self, with_fleet: bool) -> None:
        self.applied: list[tuple[dict[str, str], dict[str, str]]] = []
        self.kept: list[Any] = []
        self.sources = PluginSources(self._apply, self.kept.append, with_fleet)

    def _apply(self, releases: Any, errors: Any) -> None:
        digests = {identity: each.digest for identity, each in releases.items()}
        self.applied.append((digests, dict(errors)))

    def folder(self, **errors: str) -> None:
        releases = {PluginId("10-own"): release("10-own", OWN)}
        self.sources.folder(Scan(releases, errors))

    def fleet(self, *identities: str, keeps: tuple[Digest, ...] = ()) -> None:
        self.sources.fleet({PluginId(each): release(each, FLEET) for each in identities}, keeps)


def test_without_a_fleet_the_folder_is_all() -> None:
    told = Told(with_fleet=False)
    told.folder()
    assert told.applied == [({"10-own": OWN}, {})]
    assert told.kept == [{(OWN, False)}]


def test_with_a_fleet_both_are_waited_for_in_either_order() -> None:
    for first, second in (("folder", "fleet"), (FLEET, "folder")):
        told = Told(with_fleet=True)
        for half in (first, second):
            assert told.applied == []
            told.folder() if half == "folder" else told.fleet("20-its")
        assert told.applied == [({"10-own": OWN, "20-its": FLEET}, {})]


def test_a_fleet_that_has_deployed_nothing_does_not_hold_the_folder_back() -> None:
    told = Told(with_fleet=True)
    told.folder()
    told.sources.fleet_begun()
    assert told.applied == [({"10-own": OWN}, {})]


def test_what_was_planned_is_not_forgotten_when_the_disk_has_been_read() -> None:
    told = Told(with_fleet=True)
    told.fleet("20-its")
    told.sources.fleet_begun()
    told.folder()
    assert told.applied == [({"10-own": OWN, "20-its": FLEET}, {})]


def test_the_boards_own_file_wins_and_that_is_told() -> None:
    told = Told(with_fleet=True)
    told.folder()
    told.fleet("10-own")
    ((releases, errors),) = told.applied
    assert releases == {"10-own": OWN}
    assert "in place of what the fleet deploys" in errors["10-own"]


def test_an_unchanged_folder_is_not_told_again() -> None:
    told = Told(with_fleet=False)
    told.folder()
    told.folder()
    assert len(told.applied) == 1


def test_code_of_what_may_have_to_run_again_is_kept() -> None:
    told = Told(with_fleet=True)
    told.folder()
    told.fleet("20-its", keeps=(AGAIN,))
    assert told.kept == [{(OWN, False), (FLEET, False), (AGAIN, False), (AGAIN, True)}]


def test_no_code_goes_while_a_file_is_wrong() -> None:
    told = Told(with_fleet=False)
    told.folder(**{"30-broken": "not Wasm"})
    assert told.applied
    assert told.kept == []


def test_a_file_that_is_no_plugin_does_not_keep_all_code_for_ever() -> None:
    told = Told(with_fleet=False)
    told.folder(**{"notes.wasm": "plugins are named NN-name.wasm", "10-own": "its settings"})
    assert told.kept == [{(OWN, False)}]


def test_only_the_fleets_own_releases_are_found_as_deployed() -> None:
    told = Told(with_fleet=True)
    assert told.sources.deployed(PluginId("20-its"), FLEET) is None
    told.fleet("20-its")
    assert told.sources.deployed(PluginId("20-its"), FLEET) is not None
    assert told.sources.deployed(PluginId("20-its"), ANOTHER) is None
    assert told.sources.deployed(PluginId("10-own"), OWN) is None
