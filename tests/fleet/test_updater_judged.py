"""What the host says of releases on a node: kept, rejected, quarantined, and what follows."""

import pytest

from edge_agent.fleet.transfer.parts import IDLE_S
from edge_agent.fleet_protocol import deployment
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId
from tests.fleet.updating import A, B, C, proven, restarted
from tests.support.fleetnode import (
    Board,
    Operator,
    plugin,
    release,
    wasm,
)


def test_kept_release_becomes_the_one_to_go_back_to(board: Board, operator: Operator) -> None:
    proven(board, operator)
    assert not board.plans[-1].releases[0].on_probation
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard", "trap: unreachable")
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    assert board.status()["rejected"] == {B.blob.digest: "trap: unreachable"}
    assert board.layout.has(A.blob.digest)


def test_rejected_release_is_not_tried_again_after_a_restart_or_a_new_generation(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard")
    board = restarted(board).start()
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("2-again", B)))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}


def test_next_release_of_the_deployment_runs_when_the_first_is_rejected(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("2", B), release("1", A)))
    board.start()
    assert board.running() == {"10-guard": "2"}
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}
    assert board.plans[-1].releases[0].on_probation, "it has not been proven here"


def test_first_release_ever_that_is_rejected_leaves_nothing(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.reject("10-guard")
    assert board.running() == {}


def test_rejected_configuration_brings_the_old_one_back_and_blames_no_module(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("1", A), config="bad"))
    board.wait(1)
    board.reject("10-guard")
    (wanted,) = board.plans[-1].releases
    assert wanted.config == ""
    operator.deploy(plugin("guard", release("1", A), config="good"))
    board.wait(1)
    assert board.plans[-1].releases[0].config == "good"


def test_rejection_while_another_deployment_is_on_its_way(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    missing = wasm(9)
    operator.deploy(plugin("guard", release("3", missing)))
    board.wait(1)
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}
    assert board.status()["pending"] == 3
    board = restarted(board).start()
    assert board.status()["pending"] == 3
    operator.upload(missing)
    board.wait(5 * IDLE_S)
    assert board.running() == {"10-guard": "3"}


@pytest.mark.parametrize(
    ("identity", "digest"),
    [("10-guard", B.blob.digest), ("20-guard", A.blob.digest), ("10-folder", A.blob.digest)],
)
def test_word_on_something_else_changes_nothing(
    board: Board, operator: Operator, identity: str, digest: Digest
) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    before = list(board.plans)
    board.updater.verdict(PluginId(identity), digest, False, "late")
    assert board.plans == before
    assert board.status()["rejected"] == {}


def test_word_on_a_proven_release_changes_nothing(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}


def test_rejection_under_one_name_leaves_what_is_proven_under_another(
    board: Board, operator: Operator
) -> None:
    # The same module, which one of its configurations does not suit.
    guard = plugin("guard", release("1", A), config="good")
    operator.deploy(guard)
    board.start()
    board.keep("10-guard")
    operator.deploy(guard, plugin("logger", release("1", A), config="bad", index="20"))
    board.wait(1)
    board.reject("20-logger")
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    board = restarted(board)
    board.start()
    assert board.running() == {"10-guard": "1"}
    # Nor does it go back to one before, which the same deployment names second.
    operator.deploy(plugin("guard", release("1", A), release("0", B), config="good"))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}


def test_word_on_another_configuration_of_the_module_changes_nothing(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("1", A), config="first"))
    board.start()
    first = board.plans[-1].releases[0].setup
    operator.deploy(plugin("guard", release("1", A), config="second"))
    board.wait(1)
    second = board.plans[-1].releases[0].setup
    board.updater.verdict(PluginId("10-guard"), A.blob.digest, False, "late", first)
    board.updater.verdict(PluginId("10-guard"), A.blob.digest, True, "late", first)
    assert board.plans[-1].releases[0].on_probation
    assert board.status()["rejected"] == {}
    board.updater.verdict(PluginId("10-guard"), A.blob.digest, True, "", second)
    assert not board.plans[-1].releases[0].on_probation


def test_a_rejection_goes_when_its_deployment_goes(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B), release("1", A)))
    board.wait(1)
    board.reject("10-guard")
    assert board.status()["rejected"] == {B.blob.digest: "trap"}
    operator.deploy(plugin("guard", release("2", B), release("1", A), report="errors"))
    board.wait(1)
    board.keep("10-guard")
    assert board.status()["rejected"] == {B.blob.digest: "trap"}  # it is still named
    operator.deploy(plugin("guard", release("1", A), report="errors"))
    board.wait(1)
    assert board.status()["rejected"] == {}
    assert restarted(board).start().status()["rejected"] == {}
    operator.deploy(plugin("guard", release("2", B), release("1", A), report="errors"))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}  # named anew, it is tried anew


def test_a_rejected_configuration_is_forgotten_with_its_deployment(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("1", A), config="bad"))
    board.wait(1)
    board.reject("10-guard")
    (held,) = board.status()["rejected"]
    assert held.startswith(f"{A.blob.digest}+")
    board = restarted(board).start()
    assert list(board.status()["rejected"]) == [held]
    operator.deploy(plugin("guard", release("1", A), config="mended"))
    board.wait(1)
    assert board.status()["rejected"] == {}


# --- configuration as part of a release


SECOND_KIND = {"kind": deployment.KIND_2}


def configured(board: Board) -> str:
    """What Configure gets."""
    return board.plans[-1].releases[0].config


def test_a_releases_own_configuration_is_tried_kept_and_taken_back(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    old, new = release("1", A), release("1+2", A, config="new", permissions=["env"])
    operator.deploy(plugin("guard", new, old), **SECOND_KIND)
    board.wait(1)
    assert board.running() == {"10-guard": "1+2"}
    assert (configured(board), board.plans[-1].releases[0].on_probation) == ("new", True)
    assert board.plans[-1].releases[0].settings.permissions == ("env",)
    board = restarted(board).start()
    assert (configured(board), board.plans[-1].releases[0].on_probation) == ("new", True)
    board.keep("10-guard")
    assert not board.plans[-1].releases[0].on_probation
    operator.deploy(plugin("guard", old))
    board.wait(1)
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")


def test_a_releases_own_configuration_that_fails_condemns_neither_module_nor_the_one_before(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    old, bad = release("1", A), release("1+2", A, config="bad")
    operator.deploy(plugin("guard", bad, old), **SECOND_KIND)
    board.wait(1)
    board.reject("10-guard")
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")
    (held,) = board.status()["rejected"]
    assert held.startswith(f"{A.blob.digest}+")
    board = restarted(board).start()
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")
    operator.deploy(plugin("guard", release("1+3", A, config="good"), old), **SECOND_KIND)
    board.wait(1)
    assert (board.running(), configured(board)) == ({"10-guard": "1+3"}, "good")
    assert board.status()["rejected"] == {}


# --- monitored first, then enforced


THIRD_KIND = {"kind": deployment.KIND_3}


def mode(board: Board) -> tuple[str, bool]:
    """The mode of the one plugin, and whether it is on probation."""
    [planned] = board.plans[-1].releases
    return planned.settings.mode, planned.on_probation


def test_the_same_module_is_monitored_then_enforced_and_goes_back_if_it_fails(
    board: Board, operator: Operator
) -> None:
    operator.upload(A)
    operator.deploy(plugin("guard", release("1", A), mode="monitor"), **THIRD_KIND)
    board.start()
    board.wait(1)
    assert mode(board) == ("monitor", True)
    board.keep("10-guard")
    board = restarted(board).start()
    assert mode(board) == ("monitor", False)
    enforced = release("1+enforce", A, mode="enforce")
    operator.deploy(plugin("guard", enforced, release("1", A), mode="monitor"), **THIRD_KIND)
    board.wait(1)
    assert (board.running(), mode(board)) == ({"10-guard": "1+enforce"}, ("enforce", True))
    board = restarted(board).start()
    assert mode(board) == ("enforce", True)
    board.reject("10-guard")
    assert (board.running(), mode(board)) == ({"10-guard": "1"}, ("monitor", False))
    [held] = board.status()["rejected"]
    assert held.startswith(f"{A.blob.digest}+"), "the module is not to blame"
    operator.deploy(plugin("guard", release("1", A)))  # of the first kind: it would enforce
    board.wait(1)
    assert mode(board) == ("monitor", False), "which was rejected here"
    operator.deploy(plugin("guard", release("1", A), config="mended"))
    board.wait(1)
    assert mode(board) == ("enforce", True)
    assert board.status()["form"] == 4


# --- quarantine


def test_quarantined_module_gives_way_to_the_one_before_for_good(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.keep("10-guard")
    for _ in range(2):  # the host says so with each start
        board.updater.quarantine(B.blob.digest, "the agent died in it")
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    assert board.status()["quarantined"] == {B.blob.digest: "the agent died in it"}
    board = restarted(board).start()
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("3", C)))
    board.wait(1)
    assert board.running() == {"10-guard": "3"}


def test_release_request_lifts_it(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.updater.quarantine(A.blob.digest, "died")
    assert board.running() == {}
    assert board.unusable() == {"10-guard": "died"}  # the host may have to refuse containers
    assert board.updater.unquarantine(PluginId("20-other")) == 0
    assert board.running() == {}
    assert board.updater.unquarantine(PluginId("10-guard")) == 1
    assert board.running() == {"10-guard": "1"}
    assert board.unusable() == {}
    assert restarted(board).start().running() == {"10-guard": "1"}


def test_a_module_that_is_gone_from_the_disk_is_missed(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.layout.blob(A.blob.digest).unlink()
    board = restarted(board).start()
    [missed] = board.plans[0].releases
    assert (missed.identity, missed.version) == ("10-guard", "1")
    assert "not on this node's disk" in missed.unusable
    assert board.running() == {"10-guard": "1"}  # the broker has it still


def test_a_first_release_that_is_rejected_is_not_missed(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.reject("10-guard")
    assert board.running() == board.unusable() == {}


def test_release_request_lets_a_rejected_release_be_tried_again(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard")
    assert board.updater.unquarantine(PluginId("10-guard")) == 1
    board.turn()
    assert board.running() == {"10-guard": "2"}
    assert board.plans[-1].releases[0].on_probation
