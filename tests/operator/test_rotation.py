"""Trust that changes hands, followed by the nodes' own rules."""

import json
import re
import shutil
from io import StringIO

import pytest
from rich.console import Console

from edge_agent.cli import fleet_watch
from edge_agent.fleet.trustfiles import read_root
from edge_agent.fleet_protocol import trust
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.rollout import Course
from edge_agent.operator.rollout_driver import follow
from edge_agent.operator.rotation import chained
from tests.operator.conftest import Home
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]


def operator(home: Home, name: str) -> Home:
    """Another one, with a key of their own and the same folder."""
    other = Home(home.keys.parent / name, home.port, home.capsys)
    other.fleet("keygen", name)
    other.path = home.path
    return other


def public(home: Home, name: str) -> str:
    return str(home.keys / f"{name}.pem")


def test_a_node_follows_two_rotations_from_the_first_keys(home: Home) -> None:
    first = FleetFolder(home.path).trust_set()
    bob = operator(home, "bob")
    home.fleet("trust", "rotate", "--add", public(bob, "bob"), "-y")
    told = bob.fleet("trust", "rotate", "--remove", "alice", "-y")
    assert "the fleet trusts version 3: bob" in told
    with bob.opened() as fleet:
        raw = fleet.client.kept(fleet.topics.trust)
    assert raw is not None
    assert trust.rotated(raw, first) == FleetFolder(home.path).trust_set()
    root = read_root(home.path / "trust", fleet="greenhouse", threshold=1)  # for new nodes
    assert root == FleetFolder(home.path).trust_set()
    text = (home.path / "fleet.toml").read_text()
    assert 'keys = ["bob"]' in text
    assert "version = 3" in text
    assert "# Public keys, trust/NAME.pem." in text  # comments stay


def test_a_new_key_must_sign_where_the_threshold_needs_it(home: Home) -> None:
    bob = operator(home, "bob")
    words = ("trust", "rotate", "--add", public(bob, "bob"), "--threshold", "2", "-y")
    code, told, _ = home.tried(*words)
    assert code == 1
    assert "nothing is published yet: only 1 of 2 signatures of the new keys" in told
    sealed = str(home.path / "trust-2.dsse.json")
    with home.opened() as fleet:
        assert fleet.client.kept(fleet.topics.trust) is None
    told = bob.fleet("sign", sealed, "-y", "--json")
    assert json.loads(told) == {"file": sealed, "signatures": 2}
    told = home.fleet("trust", "rotate", "--add", public(bob, "bob"), "--signed", sealed, "-y")
    assert "the fleet trusts version 2: alice, bob" in told
    assert FleetFolder(home.path).trust_set().threshold == 2


def test_a_new_epoch_that_several_sign_is_named_in_what_is_to_be_typed_next(home: Home) -> None:
    bob = operator(home, "bob")
    words = ("trust", "rotate", "--add", public(bob, "bob"), "--threshold", "2", "-y")
    code, told, _ = home.tried(*words, "--new-epoch")
    assert code == 1
    assert f"--signed {home.path / 'trust-2.dsse.json'} --new-epoch\n" in told
    assert "--new-epoch" not in home.tried(*words)[1]


def test_a_key_that_is_not_trusted_cannot_rotate(home: Home) -> None:
    mallory = operator(home, "mallory")
    words = ("trust", "rotate", "--add", public(mallory, "mallory"), "-y")
    code, told, _ = mallory.tried(*words)
    assert (code, "only 0 of 1 signatures of the present keys" in told) == (1, True)
    with home.opened() as fleet:
        assert fleet.client.kept(fleet.topics.trust) is None


def test_rotating_to_nothing_or_to_no_change_is_refused(home: Home) -> None:
    for words, said in (
        ((), "nothing would change"),
        (("--remove", "alice"), "no such set of keys"),
        (("--remove", "carol"), "carol is none of the trusted keys: alice"),
        (("--threshold", "2"), "no such set of keys"),
    ):
        code, _, errors = home.tried("trust", "rotate", *words, "-y")
        assert (code, said in errors) == (1, True), errors


def test_somebody_elses_rotation_is_not_overwritten(home: Home) -> None:
    bob = operator(home, "bob")
    before = (home.path / "fleet.toml").read_text()
    home.fleet("trust", "rotate", "--add", public(bob, "bob"), "-y")
    (home.path / "fleet.toml").write_text(before)  # a clone that is behind
    carol = operator(home, "carol")
    code, _, errors = home.tried("trust", "rotate", "--add", public(carol, "carol"), "-y")
    assert (code, "another operator rotated" in errors) == (1, True), errors


def with_new_keys(home: Home) -> Home:
    """Bob's clone, in which alice's key is rotated out and a deployment signed anew."""
    bob = operator(home, "bob")
    home.fleet("trust", "rotate", "--add", public(bob, "bob"), "-y")
    bob.path = home.path.with_name("clone")
    shutil.copytree(home.path, bob.path)
    bob.fleet("trust", "rotate", "--remove", "alice", "-y")
    bob.fleet("deploy", "-y")
    return bob


def test_a_watch_goes_on_over_a_rotation(published: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    with published.opened() as fleet:  # with the keys of before
        with_new_keys(published)
        console = Console(file=StringIO(), width=80, height=24, force_terminal=True)
        monkeypatch.setattr(fleet_watch, "terminal", lambda: console)
        fleet_watch.watch_on_screen(fleet, 1.5)
        assert isinstance(console.file, StringIO)
        drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    assert "trust became version 3" in drawn
    assert re.findall(r"greenhouse +generation (\d+)", drawn)[-1] == "2"


def test_a_watched_rollout_goes_on_over_a_rotation_in_its_folder(published: Home) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    bob = operator(published, "bob")
    published.fleet("trust", "rotate", "--add", public(bob, "bob"), "-y")
    with bob.opened() as fleet:
        steps = follow(fleet, "guard", "1.0.0", Course())
        assert next(steps).current.generation == 1
        bob.fleet("trust", "rotate", "--remove", "alice", "-y")
        for _ in range(60):
            assert next(steps).current.generation == 1
            if fleet.trust.version == 3:
                break
        assert fleet.trust.version == 3
        assert fleet.settings.keys == ("bob",)


def test_a_chain_stays_within_a_message() -> None:
    raw: bytes | None = None
    link = b'{"payload":"' + b"x" * 3000 + b'"}'
    for _ in range(100):
        raw = chained(raw, link)
    assert raw is not None
    assert len(raw) <= 64 << 10
    assert raw.count(b"payload") == 21
