"""Deployments at a real broker, taken by peers with the nodes' own rules."""

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest

from edge_agent.errors import OperatorError
from edge_agent.operator.folder import FleetFolder
from tests.operator.conftest import GUARD, Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]
Peers = Callable[..., list[Peer]]


def test_from_nothing_to_every_node(published: Home, peers: Peers) -> None:
    nodes = peers("board-1", "board-2", "board-3")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "--yes")
    for node in nodes:
        node.wait_for(1)
        assert node.runs() == {"20-guard": "1.0.0"}


def test_a_second_version_is_for_its_part_of_the_nodes_and_the_plan_says_which(
    published: Home, peers: Peers
) -> None:
    nodes = peers(*(f"board-{number}" for number in range(12)))
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    for node in nodes:
        node.wait_for(1)
    told = published.fleet("rollout", "guard", "1.1.0", "--percent", "25", "--json", "-y")
    plan = json.loads(told.splitlines()[0])
    assert (plan["generation"], plan["over"], plan["nodes"]) == (2, 1, 12)
    for node in nodes:
        node.wait_for(2)
    moved = {node.name for node in nodes if node.runs() == {"20-guard": "1.1.0"}}
    assert moved == {change["node"] for change in plan["changes"]}
    assert 0 < len(moved) < 12
    assert {change["kind"] for change in plan["changes"]} == {"replace"}


def test_a_rollback_brings_the_version_before(published: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--percent", "100", "-y")
    node.wait_for(2)
    assert node.runs() == {"20-guard": "1.1.0"}
    assert "guard 1.1.0 is taken back" in published.fleet("rollback", "guard", "-y")
    node.wait_for(3)
    assert node.runs() == {"20-guard": "1.0.0"}


def test_taking_back_a_first_release_ends_the_plugin(published: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    node.wait_for(1)
    code, _, errors = published.tried("rollback", "guard", "-y")
    assert code == 1
    assert "guard has no release before 1.0.0: this uninstalls the plugin on 1 node and" in errors
    assert "Give --uninstall to do that" in errors
    assert node.runs() == {"20-guard": "1.0.0"}
    code, told, errors = published.tried("rollback", "guard", "--uninstall")
    assert (code, "deletes what it keeps there" in told) == (1, True)  # nobody was asked
    told = published.fleet("rollback", "guard", "--uninstall", "-y")
    assert "20-guard  remove  1.0.0  -   1: board-1" in told
    node.wait_for(2)
    assert node.runs() == {}


def test_what_no_release_is_for_any_more_stays_and_the_plan_knows(
    published: Home, peers: Peers
) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    node.wait_for(1)
    told = published.fleet("rollout", "guard", "1.0.0", "--percent", "0", "-y")
    assert "nothing changes on the 1 node known" in told
    node.wait_for(2)
    assert node.runs() == {"20-guard": "1.0.0"}


def test_another_operators_deployment_is_not_overwritten_silently(
    published: Home, peers: Peers
) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    before = published.path.joinpath("deployed.toml").read_text()
    published.fleet("deploy", "-y")
    published.path.joinpath("deployed.toml").write_text(before)  # a clone that is behind
    code, _, errors = published.tried("deploy", "-y")
    assert code == 1
    assert "the broker has generation 2, and this folder deployed generation 1" in errors
    assert "--onto 2" in errors
    code, _, errors = published.tried("deploy", "-y", "--onto", "1")
    assert (code, "not 1; look again" in errors) == (1, True)
    assert "deployed generation 3" in published.fleet("deploy", "-y", "--onto", "2")
    node.wait_for(3)


def test_a_deployment_of_the_same_moment_is_noticed(published: Home) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    with published.opened() as mine, published.opened() as theirs:
        prepared = mine.prepare(mine.draft())
        theirs.deploy()
        with pytest.raises(OperatorError, match="another operator deployed at this moment"):
            mine.put(prepared, mine.sign(prepared))
        assert mine.current().generation == 2


def test_what_nobody_trusted_signed_is_replaced_and_told(published: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    with published.opened() as fleet:
        fleet.client.publish(fleet.topics.deployment, b'{"rubbish": 1}', retain=True)
    told = published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    assert "the broker has no valid deployment of this fleet" in told
    node.wait_for(1)


def test_a_release_whose_parts_are_not_at_the_broker_is_not_deployed(published: Home) -> None:
    with published.opened() as fleet:
        topics = fleet.client.retained((f"{fleet.topics.blobs}/+/0",))
        for topic in topics:
            fleet.client.publish(topic, b"", retain=True)
    code, _, errors = published.tried(
        *("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    )
    assert code == 1
    assert "guard 1.0.0 is not, or not wholly, at the broker; publish it again" in errors


def test_two_of_two_sign_in_turn(published: Home, peers: Peers) -> None:
    bob = Home(published.keys.parent / "bob", published.port, published.capsys)
    bob.fleet("keygen", "bob")
    bob.path = published.path  # the same folder, other keys
    published.fleet("trust", "rotate", "--add", str(bob.keys / "bob.pem"), "-y")
    file = FleetFolder(published.path).path / "fleet.toml"
    file.write_text(file.read_text().replace("threshold = 1", "threshold = 2"))
    (node,) = peers("board-1")
    words = ("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    code, told, _ = published.tried(*words)
    assert code == 1
    assert "nothing is published yet: only 1 of 2 signatures" in told
    sealed = published.path / "deployment-1.dsse.json"
    code, _, errors = bob.tried("deploy", "--signed", str(sealed), "-y")
    assert "1 of 2 signatures" in errors
    assert "2 signatures" in bob.fleet("sign", str(sealed), "-y")
    bob.fleet("deploy", "--signed", str(sealed), "-y")
    node.wait_for(1)
    assert node.runs() == {"20-guard": "1.0.0"}


def test_without_a_person_or_yes_nothing_is_deployed(published: Home) -> None:
    code, told, errors = published.tried(
        *("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20")
    )
    assert code == 1
    assert "generation 1 for the fleet greenhouse" in told
    assert errors == "nothing was changed: without a terminal to ask at, give --yes\n"
    assert "\n[[plugins]]" not in (published.path / "deployment.toml").read_text()


def test_comments_of_the_folder_survive_a_rollout(published: Home) -> None:
    file = published.path / "deployment.toml"
    file.write_text(file.read_text() + "# greenhouse 4 is away until May\n")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "10", "--index", "20", "-y")
    text = file.read_text()
    assert "# greenhouse 4 is away until May\n" in text
    assert text.startswith("# What runs on which nodes.")


def test_the_document_names_the_commit_that_it_was_made_from(published: Home) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = [git, "-C", str(published.path), *identity]
    published.fleet("rollout", "guard", "1.0.0", "--percent", "10", "--index", "20", "-y")
    subprocess.run([*command, "add", "-A"], check=True)
    subprocess.run([*command, "commit", "-qm", "first"], check=True)
    words = [*command, "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    for command_line, commit in (
        (("deploy",), head),
        (("rollout", "guard", "1.0.0", "--percent", "50"), f"{head}-dirty"),
    ):
        subprocess.run([*command, "checkout", "-q", "."], check=True)
        published.fleet(*command_line, "--onto", "1" if command_line == ("deploy",) else "2", "-y")
        with published.opened() as fleet:
            deployment = fleet.current().deployment
        assert deployment is not None
        assert json.loads(deployment.payload)["commit"] == commit


def test_a_mistake_in_the_folder_is_named_and_nothing_is_deployed(published: Home) -> None:
    file = published.path / "deployment.toml"
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    good = file.read_text()
    for wrong, said in (
        ('permision = ["env"]', "plugin guard: unknown key permision; did you mean permissions?"),
        ('failure_policy = "fail"', "failure_policy"),
        ('config_file = "none.conf"', "none.conf: cannot be read"),
        ('limits = { memory = "16 apples" }', "memory"),
    ):
        file.write_text(good.replace('\nindex = "20"', f'\nindex = "20"\n{wrong}'))
        code, _, errors = published.tried("plan")
        assert (code, said in errors) == (1, True), errors
        assert "deployment.toml" in errors or "none.conf" in errors


def test_what_a_plugin_may_change_must_be_written(published: Home) -> None:
    file = published.path / "deployment.toml"
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    written = file.read_text()
    assert 'permissions = ["*"]\n' in written
    for command in (("plan",), ("deploy", "-y")):
        file.write_text(written.replace('permissions = ["*"]\n', ""))
        code, _, errors = published.tried(*command)
        assert (code, "plugin guard: say what it may change" in errors) == (1, True), errors
    file.write_text(written.replace('["*"]', '["linux.resources"]'))
    assert "may change everything" not in published.fleet("plan")
    assert json.loads(published.fleet("plan", "--json"))["unrestricted"] == []
    file.write_text(written)
    assert "may change everything, hooks on the node included: 20-guard" in published.fleet("plan")
    assert json.loads(published.fleet("plan", "--json"))["unrestricted"] == ["20-guard"]


def test_everything_is_signed_as_every_node_understands_it(published: Home) -> None:
    """Nodes of 0.1.0 refuse a document with a permission that they do not know."""
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    with published.opened() as fleet:
        deployment = fleet.current().deployment
    assert deployment is not None
    assert "permissions" not in json.loads(deployment.payload)["plugins"][0]
    assert deployment.plugins[0].offers[0].release.settings.permissions is None


def test_a_version_never_changes_its_content(published: Home) -> None:
    code, _, errors = published.tried(
        "publish", str(GUARD), "--name", "guard", "--version", "1.1.0"
    )
    assert code == 1
    assert "a version never changes its content" in errors
