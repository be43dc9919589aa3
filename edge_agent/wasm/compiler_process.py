"""The compiler's own process: reads a module from stdin, writes its artifact to stdout, and ends.

Each module that is compiled begins an interpreter, so little is imported: no logging, no
configuration, no dataclasses. compiler.py is the parent.
"""

import os
import signal
import sys
from errno import EDQUOT, ENOMEM, ENOSPC
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from edge_agent.errors import EngineError, ModuleError

if TYPE_CHECKING:
    from edge_agent.wasm.engine import Engine

MAX_LAST_WORDS_BYTES = 4096  # kept of what the child says; a panic's reason is in its end
NICENESS = 10  # below everything that serves containers
_OUT_OF_MEMORY_SCORE = "1000"  # if memory runs out, this process goes first
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# How the child ends. Not 1 or 2, with which the interpreter itself reports failures.
BAD_MODULE, BAD_ENGINE, BAD_DISK, NO_MEMORY, SUPERSEDED = 10, 11, 12, 13, 14

# Before what a child could not give up, when all else went well.
LACKING = "not confined: "

_EMPTY = b"\0asm\1\0\0\0"  # a module
HERE = "here"  # no processor's name


class Portably(NamedTuple):
    """For every processor of a kind (`uname -m`), in place of this machine's own."""

    target: str
    wide: bool  # whether memories reserve all that a pointer reaches


def main(arguments: list[str]) -> NoReturn:
    """engine, digest, "metered" or "plain", most bytes of a module and of memory, for which
    processor, parent's process; the module on stdin, the artifact to stdout."""
    engine_name, digest, kind, module_bytes, memory_bytes, target_name, parent = arguments
    portably = _read_target(target_name)
    target = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get into the artifact
    _die_with(int(parent))
    _give_way()
    try:
        from edge_agent.store.digest import Digest
        from edge_agent.wasm.confinement import confine
        from edge_agent.wasm.engine_selection import select_engine

        engine, _ = select_engine(engine_name)
        _limit(int(memory_bytes))
        # All that is imported in the middle of it, while files can still be opened.
        compile_here(engine, _EMPTY, metered=kind == "metered", portably=portably)
        # No more: room for the largest module is memory that the limit counts.
        wasm = sys.stdin.buffer.read(min(os.fstat(0).st_size, int(module_bytes)) + 1)
        if Digest.of(wasm) != digest:
            _leave(SUPERSEDED, "it changed while it was read; it is read again")
        # Nothing looked into the module so far, and nothing is opened from here on.
        lacking = confine(lambda: _die_with(int(parent)))
        artifact = compile_here(engine, wasm, metered=kind == "metered", portably=portably)
    except MemoryError:
        os._exit(NO_MEMORY)
    except (ModuleError, EngineError) as error:
        if f"(os error {ENOMEM})" in str(error):
            os._exit(NO_MEMORY)
        _leave(BAD_MODULE if isinstance(error, ModuleError) else BAD_ENGINE, str(error))
    try:
        rest = memoryview(artifact)
        while rest:
            rest = rest[os.write(target, rest) :]
        os.fsync(target)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        advice = "; free some space on this disk" * (error.errno in (ENOSPC, EDQUOT))
        _leave(BAD_DISK, f"the compiled module cannot be written: {reason}{advice}")
    _leave(0, LACKING + "; ".join(lacking) if lacking else "")


def _read_target(told: str) -> Portably | None:
    target, _, width = told.partition(" ")
    return Portably(target, width == "wide") if width else None


def compile_here(
    engine: "Engine", wasm: bytes, *, metered: bool = False, portably: Portably | None = None
) -> bytes:
    """The artifact, made in this process. ModuleError. EngineError. MemoryError."""
    if metered:
        from edge_agent.wasm.metering import meter

        wasm = meter(wasm)
    if portably is None:
        return engine.compile(wasm)
    from edge_agent.wasm.engine import Portable

    if not isinstance(engine, Portable):
        raise EngineError(f"{engine.name} makes no code for other machines")
    return engine.compile_for(wasm, portably.target, portably.wide)


def _die_with(parent: int) -> None:
    """Be killed when the parent ends."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(BAD_ENGINE)  # it died before the line above


def _give_way() -> None:
    """Everything else comes first."""
    os.nice(NICENESS)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no pathlib
            file.write(_OUT_OF_MEMORY_SCORE)
    except OSError:
        pass  # a kernel that does not let us: the limit of memory remains


def _limit(memory_bytes: int) -> None:
    import resource

    # RLIMIT_DATA counts the memory that a process can write. RLIMIT_AS would count
    # the engine's library and its reservations of addresses as well.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no crash fills a small disk


def _leave(code: int, message: str) -> NoReturn:
    os.write(2, message.encode(errors="replace")[:MAX_LAST_WORDS_BYTES])
    os._exit(code)  # at once: there is nothing to give back, and much memory to walk
