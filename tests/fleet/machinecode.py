"""A deployment that names machine code beside a module, and a node that it is for."""

from typing import Any

from edge_agent.store.release import Machine, Release
from tests.support.blobs import Cut, cut
from tests.support.fleetnode import Board, Operator, plugin, release, wasm
from tests.support.shelf import Shelf

MACHINE = Machine(
    "wasmer", "7.4.2", "riscv64", "elf,wide", "elf,wide,fuel=2", frozenset({"v", "b"})
)
FITTING: dict[str, Any] = {
    "engine": "wasmer",
    "version": "7.4.2",
    "target": "riscv64",
    "settings": "elf,wide",
    "features": ["v"],
}
MODULE, OTHER = wasm(1), wasm(2)
CODE, NEW = cut(b"\x7fELF code " * 400), cut(b"\x7fELF other " * 500)


def code(of: Cut, **changes: Any) -> dict[str, Any]:
    """An entry of a release's list."""
    blob = release("1", of)["blob"]
    return {**FITTING, "blob": blob, **changes}


def guard(version: str, module: Cut, *codes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return plugin("guard", release(version, module, code=list(codes)), **more)


def operator_with_code(shelf: Shelf) -> Operator:
    """Two modules and their code are at the broker."""
    operator = Operator(shelf)
    for it in (MODULE, OTHER, CODE, NEW):
        operator.upload(it)
    return operator


def again(board: Board, machine: Machine | None = MACHINE) -> Board:
    """The node after a restart."""
    board.shelf.subscribed.clear()
    board.shelf.delivered.clear()
    return Board(board.folder, board.shelf, machine=machine).start()


def wanted(board: Board) -> Release:
    (found,) = board.plans[-1].releases
    return found


def here(board: Board, of: Cut) -> bool:
    return board.layout.good(of.blob.digest)
