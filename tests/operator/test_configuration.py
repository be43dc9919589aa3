"""Configuration as part of a release, at a real broker, taken by peers by the nodes' rules."""

import json
import tomllib
from collections.abc import Callable

import pytest

from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]
Peers = Callable[..., list[Peer]]
FIRST = ("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
OLD, NEW = "[default]\nmemory = 64Mi\n", "[default]\nmemory = 96Mi\n"


def configured(home: Home) -> None:
    """The plugin has a configuration for all its releases, and runs with it."""
    home.fleet(*FIRST)
    file = home.path / "deployment.toml"
    file.write_text(
        file.read_text().replace('\nindex = "20"', '\nindex = "20"\nconfig_file = "guard.conf"')
    )
    (home.path / "guard.conf").write_text(OLD)
    (home.path / "guard-2.conf").write_text(NEW)
    home.fleet("deploy", "-y")


def configs(nodes: list[Peer]) -> list[str]:
    return [node.config_of("20-guard") for node in nodes]


def test_a_configuration_goes_out_by_steps_and_back(published: Home, peers: Peers) -> None:
    nodes = peers("board-1", "board-2", "board-3")
    configured(published)
    words = ("--config-file", str(published.path / "guard-2.conf"), "--nodes", "board-2")
    told = published.fleet("rollout", "guard", "1.0.0+2", *words, "-y")
    assert "guard 1.0.0+2 at 1 named node: 1 of 3 nodes: board-2" in told
    assert "20-guard: configuration on 1 node" in told
    lines = [line.strip() for line in told.splitlines()]
    assert "-memory = 64Mi" in lines
    assert "+memory = 96Mi" in lines
    for node in nodes:
        node.wait_for(3)
    assert configs(nodes) == [OLD, NEW, OLD]
    text = (published.path / "deployment.toml").read_text()
    assert 'module = "1.0.0"' in text
    assert 'config_file = "guard-2.conf"' in text
    published.fleet("rollout", "guard", "1.0.0+2", "--percent", "100", "-y")
    for node in nodes:
        node.wait_for(4)
    assert configs(nodes) == [NEW, NEW, NEW]
    assert "guard 1.0.0+2 is taken back" in published.fleet("rollback", "guard", "-y")
    for node in nodes:
        node.wait_for(5)
    assert configs(nodes) == [OLD, OLD, OLD]


def test_a_watched_configuration_is_taken_back_where_it_fails(
    published: Home, peers: Peers
) -> None:
    nodes = peers("board-1", "board-2", dislikes=frozenset(["1.0.0+2"]))
    configured(published)
    words = ("--config-file", str(published.path / "guard-2.conf"), "--count", "1", "--watch", "-y")
    code, told, _ = published.tried("rollout", "guard", "1.0.0+2", *words)
    assert (code, "too many failed: taken back" in told) == (1, True)
    for node in nodes:
        node.wait_for(4)
    assert configs(nodes) == [OLD, OLD]
    assert "1.0.0+2" not in (published.path / "deployment.toml").read_text()


def test_the_plan_shows_what_an_edited_configuration_and_settings_change(
    published: Home, peers: Peers
) -> None:
    peers("board-1", "board-2")
    configured(published)
    (published.path / "guard.conf").write_text(NEW)
    file = published.path / "deployment.toml"
    file.write_text(
        file.read_text().replace('\nindex = "20"', '\nindex = "20"\nfailure_policy = "Ignore"')
    )
    assert "this changes on all of them at once" in published.fleet("plan")
    plan = json.loads(published.fleet("plan", "--json"))
    (difference,) = plan["differences"]
    assert (difference["identity"], difference["nodes"]) == ("20-guard", 2)
    lines = difference["text"].splitlines()
    assert [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        *("-memory = 64Mi", "+memory = 96Mi"),
        *("-failure_policy = Fail", "+failure_policy = Ignore"),
    ]
    assert {change["kind"] for change in plan["changes"]} == {"settings"}


def test_nodes_that_do_not_know_the_second_kind_are_named(published: Home, peers: Peers) -> None:
    peers("board-1")
    peers("board-2", form=1)
    configured(published)
    words = ("--config-file", str(published.path / "guard-2.conf"), "--percent", "100", "-y")
    told = published.fleet("rollout", "guard", "1.0.0+2", *words)
    assert "1 node would refuse it" in told
    assert "board-2" in told.partition("would refuse it")[2]


def test_a_release_is_monitored_and_then_enforced_and_the_plan_says_so(
    published: Home, peers: Peers
) -> None:
    [node] = peers("board-1")
    told = published.fleet(*FIRST, "--mode", "monitor")
    assert "only monitored, so that it changes and refuses nothing: 20-guard 1.0.0" in told
    node.wait_for(1)
    assert 'mode = "monitor"' in (published.path / "deployment.toml").read_text()
    assert json.loads(published.fleet("plan", "--json"))["monitored"] == ["20-guard 1.0.0"]
    assert "20-guard 1.0.0, monitored" in published.fleet("nodes")
    assert "monitored: would adjust 0, reject 0" in published.fleet("node", "board-1")
    words = ("1.0.0+enforce", "--mode", "enforce", "--nodes", "board-1")
    told = published.fleet("rollout", "guard", *words, "-y")
    lines = [line.strip() for line in told.splitlines()]
    assert "-mode = monitor" in lines
    assert "+mode = enforce" in lines
    node.wait_for(2)
    assert ", monitored" not in published.fleet("nodes")
    # The release itself is changed for the nodes that it has.
    published.fleet("rollout", "guard", "1.0.0", "--mode", "enforce", "-y")
    node.wait_for(3)
    assert json.loads(published.fleet("plan", "--json"))["monitored"] == []


def test_nodes_that_know_no_mode_are_named_only_where_something_is_monitored(
    published: Home, peers: Peers
) -> None:
    peers("board-1")
    peers("board-2", form=2)
    told = published.fleet(*FIRST, "--mode", "enforce")
    assert "would refuse it" not in told, "it means what every node does"
    told = published.fleet("rollout", "guard", "1.0.0", "--mode", "monitor", "-y")
    assert "1 node would refuse it and keep what they run" in told
    assert "board-2" in told.partition("their agents know no monitor mode: ")[2]


def test_one_shot_plugins_are_said_and_nodes_that_know_none_named(
    published: Home, peers: Peers
) -> None:
    peers("board-1")
    peers("board-2", form=3)
    told = published.fleet(*FIRST, "--instance", "lasting")
    assert "would refuse it" not in told, "it means what every node does"
    told = published.fleet("rollout", "guard", "1.0.0", "--instance", "per-event", "-y")
    assert "a fresh instance for each event: 20-guard 1.0.0" in told
    assert "board-2" in told.partition("their agents know no one-shot plugins: ")[2]
    assert 'instance = "per-event"' in (published.path / "deployment.toml").read_text()
    assert json.loads(published.fleet("plan", "--json"))["one_shot"] == ["20-guard 1.0.0"]


def test_a_configuration_outside_the_folder_and_a_module_that_is_not_there_are_refused(
    published: Home,
) -> None:
    configured(published)
    outside = published.path.parent / "guard.conf"
    outside.write_text(NEW)
    for version, file, said in (
        ("1.0.0+2", outside, "must be in the fleet's folder"),
        ("3.0.0+2", published.path / "guard-2.conf", "guard 3.0.0 was not published"),
    ):
        words = ("rollout", "guard", version, "--config-file", str(file), "--percent", "10", "-y")
        code, _, errors = published.tried(*words)
        assert (code, said in errors) == (1, True), errors


def test_a_further_release_of_a_module_begins_as_the_one_before(
    published: Home, peers: Peers
) -> None:
    """So the next list of a policy that is only monitored is only monitored, too."""
    [node] = peers("board-1")
    (published.path / "a.conf").write_text(OLD)
    (published.path / "b.conf").write_text(NEW)
    published.fleet(*FIRST, "--mode", "monitor", "--config-file", str(published.path / "a.conf"))
    more = ("--config-file", str(published.path / "b.conf"), "--percent", "100", "-y")
    told = published.fleet("rollout", "guard", "1.0.0+2", *more)
    assert "only monitored, so that it changes and refuses nothing: 20-guard 1.0.0+2" in told
    node.wait_for(2)
    assert configs([node]) == [NEW]
    told = published.fleet(
        "rollout", "guard", "1.0.0+3", "--mode", "enforce", "--percent", "50", "-y"
    )
    assert "+memory" not in told
    newest = _newest(published)
    assert (newest["version"], newest["mode"]) == ("1.0.0+3", "enforce")
    assert newest["config_file"] == "b.conf"
    # Another module begins with what the plugin has.
    published.fleet("rollout", "guard", "1.1.0", "--percent", "50", "-y")
    assert _newest(published).keys() == {"version", "rollout"}


def _newest(home: Home) -> dict[str, object]:
    document = tomllib.loads((home.path / "deployment.toml").read_text())
    newest: dict[str, object] = document["plugins"][0]["releases"][0]
    return newest


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ((), '["*"]'),
        (("--permissions", "none"), "[]"),
        (("--permissions", "env, linux.resources"), '["env", "linux.resources"]'),
    ],
)
def test_what_a_new_plugin_may_change(
    published: Home, words: tuple[str, ...], written: str
) -> None:
    told = published.fleet(*FIRST, *words)
    assert f"permissions = {written}\n" in (published.path / "deployment.toml").read_text()
    assert ("may change everything" in told) is (not words)


def test_what_a_plugin_may_change_is_changed_in_the_file_only(published: Home) -> None:
    code, _, errors = published.tried(*FIRST, "--permissions", "environment")
    assert (code, "environment" in errors) == (1, True)
    published.fleet(*FIRST)
    before = (published.path / "deployment.toml").read_text()
    words = ("rollout", "guard", "1.1.0", "--percent", "10", "--permissions", "none", "-y")
    code, _, errors = published.tried(*words)
    assert (code, "has the plugin guard with its permissions already" in errors) == (1, True)
    assert (published.path / "deployment.toml").read_text() == before
