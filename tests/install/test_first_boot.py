"""configs/first-boot on a Debian with cloud-init and containerd: what a card's first start does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import guest
from tests.support.board import Board, why_not
from tests.support.debian import DebianUnreachable
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "first-boot"
CARD = "/boot/firmware/edge-agent"
NODE = "board-7"
# As cloud-init's own services run them, one after the other, at a boot.
STAGES = (
    ("init", "--local"),
    ("init",),
    ("modules", "--mode=config"),
    ("modules", "--mode=final"),
)
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
PLUGIN = "10-bench"


@pytest.fixture(scope="module")
def board(package: Path) -> Iterator[Board]:
    """With the files of a card, none of which was used yet."""
    if reason := why_not():
        pytest.skip(reason)
    try:
        made = Board("trixie", ("apt", "cloud-init", "containerd", "runc"))
    except DebianUnreachable as error:
        pytest.skip(str(error))
    with made as board:
        # Where cloud-init looks beside partitions, which a machine of namespaces has none of.
        board.run("mkdir", "-p", "/var/lib/cloud/seed/nocloud", f"{CARD}/etc/plugins")
        for name in ("user-data", "meta-data"):
            board.put(FOLDER / name, f"/var/lib/cloud/seed/nocloud/{name}")
        board.put(FOLDER / "first-boot", f"{CARD}/first-boot")
        board.put(package, f"{CARD}/{package.name}")
        board.put(guest("bench"), f"{CARD}/etc/plugins/{PLUGIN}.wasm")
        board.path(f"{CARD}/etc/{NODE}.key").write_text("secret")
        yield board


def write_configuration(board: Board, text: str) -> None:
    board.path(f"{CARD}/etc/agent.toml").write_text(text)


def by_hand(board: Board) -> str:
    return board.run("sh", "-c", f"sh {CARD}/first-boot 2>&1; echo $?")


def runs(board: Board) -> bool:
    """Whether the card's plugin runs at containerd."""
    status = board.status()
    plugins = status["plugins"] if status is not None else []
    return [(each["name"], each["status"]) for each in plugins] == [("bench", "running")]


def test_what_is_missing_on_the_card_is_named(board: Board) -> None:
    said = by_hand(board)
    assert said.endswith("no etc/agent.toml in /boot/firmware/edge-agent\n1\n")
    assert not board.path("/usr/bin/edge-agent").exists()


def test_a_mistake_in_the_configuration_leaves_the_agent_as_the_package_has_it(
    board: Board,
) -> None:
    write_configuration(board, 'nods = "board-7"\n')
    said = by_hand(board)
    assert "nods" in said
    assert said.endswith("is not right; the agent runs as the package has it\n1\n")
    shipped = (ROOT / "configs" / "agent.toml").read_text()
    assert board.path("/etc/edge-agent/agent.toml").read_text() == shipped
    assert not board.path("/etc/edge-agent/agent.toml.new").exists()
    assert board.unit("ActiveState") == "active"
    assert board.path(f"{CARD}/etc/{NODE}.key").exists()


def test_cloud_init_makes_it_a_board_with_a_runtime_and_the_agent(board: Board) -> None:
    write_configuration(board, f'node = "{NODE}"\n')
    for stage in STAGES:
        board.run("cloud-init", *stage)
    wait_until(lambda: runs(board), "the card's plugin runs")
    status = board.status()
    assert status is not None
    assert status["node"] == NODE
    assert board.path("/etc/hostname").read_text() == f"{NODE}\n"
    key = board.path(f"/etc/edge-agent/{NODE}.key")
    assert key.read_text() == "secret"
    assert key.stat().st_mode & 0o777 == 0o600
    assert not board.path(f"{CARD}/etc/{NODE}.key").exists()


def test_run_again_it_takes_what_lies_there_now(board: Board) -> None:
    write_configuration(board, 'node = "board-8"\n')
    assert by_hand(board).endswith("\n0\n")
    wait_until(lambda: runs(board), "the card's plugin runs")
    status = board.status()
    assert status is not None
    assert status["node"] == "board-8"
    text = board.path(CONTAINERD_CONFIG).read_text()
    assert len(re.findall("io.containerd.nri.v1.nri", text)) == 1
    assert board.path(f"/etc/edge-agent/{NODE}.key").read_text() == "secret"
