"""Machine code that the fleet made for this node: what it must be made for, and loading it.

What the signed deployment names by its digest, and nothing else, may come to the engine: the bytes
behind the very descriptor that is mapped are compared with it each time, as a node's own artifacts
are with their sidecars (edge_agent.wasm.artifacts). docs/adr/0050.
"""

import os
from typing import TYPE_CHECKING

from edge_agent.errors import EngineError
from edge_agent.store.digest import Digest, sha256
from edge_agent.store.release import Code, Machine
from edge_agent.wasm.artifacts import OPENED, mapped
from edge_agent.wasm.engine import FUEL_RULES, Engine, Module, Portable

if TYPE_CHECKING:
    from edge_agent.wasm.modulefile import ModuleFile

_PART_BYTES = 64 << 10  # read at once


def machine(engine: Engine) -> Machine | None:
    """The machine that code must be made for to run here; None: the engine loads no code of other
    machines."""
    features = engine.features() if isinstance(engine, Portable) else None
    if features is None:
        return None
    settings = engine.settings()
    return Machine(
        engine=engine.name,
        version=engine.version,
        target=os.uname().machine,
        settings=settings,
        metered=settings_of(settings, True),
        features=features,
    )


def settings_of(settings: str, metered: bool) -> str:
    """The engine's settings, and whether code made with them counts its fuel."""
    return f"{settings},fuel={FUEL_RULES}" if metered else settings


def load(engine: Engine, code: Code, source: "ModuleFile") -> Module:
    """The module that the file is the code of. EngineError: it is not what was signed for, or not
    this engine's."""
    try:
        fd = os.open(code.path, OPENED)
    except OSError as error:
        raise EngineError(f"{code.path}: {os.strerror(error.errno or 0)}") from error
    try:
        if _digest(fd) != code.digest:
            raise EngineError(f"{code.path} is refused: it is not what the deployment names")
        return mapped(engine, fd, code.path, source)
    except OSError as error:
        raise EngineError(f"{code.path}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)


def _digest(fd: int) -> Digest:
    """The digest of the file behind a descriptor. OSError."""
    digest = sha256()
    buffer = bytearray(_PART_BYTES)
    view = memoryview(buffer)
    at = 0
    while count := os.preadv(fd, [buffer], at):
        digest.update(view[:count])
        at += count
    return Digest.made(digest)
