"""What the tests of the updater share: three modules, and a node on its way through its life."""

from tests.support.fleetnode import Board, Operator, plugin, release, wasm

A, B, C = wasm(1), wasm(2), wasm(3)


def restarted(board: Board, **changes: object) -> Board:
    """The node after a restart."""
    board.shelf.subscribed.clear()
    board.shelf.delivered.clear()
    return Board(board.folder, board.shelf, **changes)  # type: ignore[arg-type]


def proven(board: Board, operator: Operator) -> None:
    """Version 1 has been deployed, and kept."""
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.keep("10-guard")
