"""Compiling in a child process, whose memory goes back and whose failure is only an error.

A compiler takes tens of times a module's size in memory and holds most of it for ever,
and a hostile module can make it take all there is. So it runs apart, with limits:

    parent (a worker thread)                    child (this module's `main`)
    module as stdin, new file as stdout   ->    reads it, checks its digest, confines itself
                                                (wasm/confinement), meters it if it is to
                                                be metered, compiles, writes, syncs
    exit status, last words on stderr     <-    exits; dies with its parent
"""

import logging
import os
import select
import signal
import sys
import time
from errno import EDQUOT, ENOMEM, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from edge_agent.config.units import format_size
from edge_agent.errors import (
    EdgeAgentError,
    EngineError,
    ModuleError,
    StoreError,
    SupersededError,
)
from edge_agent.subprocess_python import command
from edge_agent.wasm.module import MAX_MODULE_BYTES

if TYPE_CHECKING:
    import subprocess

    from edge_agent.store.digest import Digest
    from edge_agent.wasm.engine import Engine

log = logging.getLogger(__name__)

# A Go module of 10 MB takes 10 s of a fast processor; a small board takes ten times as
# long and does everything else first.
TIMEOUT_S = 300.0
MEMORY_BYTES = 512 << 20  # that Go module takes 230 MB
MAX_LAST_WORDS_BYTES = 4096  # kept of what the child says; a panic's reason is in its end
NICENESS = 10  # below everything that serves containers
_OUT_OF_MEMORY_SCORE = "1000"  # if memory runs out, this process goes first
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# How the child ends. Not 1 or 2, with which the interpreter itself reports failures.
_BAD_MODULE, _BAD_ENGINE, _BAD_DISK, _NO_MEMORY, _SUPERSEDED = 10, 11, 12, 13, 14
_EXITS: dict[int, type[EdgeAgentError]] = {
    _BAD_MODULE: ModuleError,
    _BAD_ENGINE: EngineError,
    _BAD_DISK: StoreError,
    _SUPERSEDED: SupersededError,
}
# Words of the allocators behind the compilers when the limit is reached.
_MEMORY_WORDS = ("memory allocation of", "Cannot allocate memory", "MemoryError", "out of memory")

# Before what a child could not give up, when all else went well.
_LACKING = "not confined: "

_EMPTY = b"\0asm\1\0\0\0"  # a module
_HERE = "here"  # no processor's name

_MAIN = "from edge_agent.wasm.compiler import main; main(sys.argv[1:])"


class Portably(NamedTuple):
    """For every processor of a kind (`uname -m`), in place of this machine's own."""

    target: str
    wide: bool  # whether memories reserve all that a pointer reaches


def compile_module(
    engine_name: str,
    wasm: Path,
    digest: "Digest",
    output: Path,
    *,
    metered: bool = False,
    portably: Portably | None = None,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> None:
    """Compile the module in `wasm`, which has this digest, into the new file
    `output`. Waits: only for worker threads.

    ModuleError: the engine refuses the module. SupersededError: it is another by now.
    EngineError: the compiler ran out of time or memory, crashed or could not be started.
    StoreError: the artifact could not be written. `output` does not exist after an error.
    """
    try:
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    except OSError as error:
        raise StoreError(f"{output}: cannot be made: {os.strerror(error.errno or 0)}") from error
    try:
        how = "metered" if metered else "plain"
        task = (engine_name, digest.hex, how, str(memory_bytes), _told_target(portably))
        code, said = _run(task, wasm, target, timeout_s)
        if code:
            raise explain(code, said, memory_bytes)
        _tell_lacking(said)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


def _told_target(portably: Portably | None) -> str:
    if portably is None:
        return _HERE
    return f"{portably.target} {'wide' if portably.wide else 'narrow'}"


_told: set[str] = set()


def _tell_lacking(said: str) -> None:
    """Log once what compilers here cannot give up."""
    lacking = said.removeprefix(_LACKING)
    if lacking != said and not _told:
        _told.add(lacking)
        level = logging.WARNING if "not filtered" in lacking else logging.INFO
        words = " ".join(lacking.split())
        log.log(level, "the compiler is less confined than it could be: %s", words)


def _run(task: tuple[str, ...], wasm: Path, target: int, timeout_s: float) -> tuple[int, str]:
    """The child's exit status, negative for a signal, and its last words."""
    import subprocess  # costs memory, and most starts compile nothing

    until = time.monotonic() + timeout_s
    source = _opened(wasm)
    try:
        child = subprocess.Popen(
            command(_MAIN, *task, str(os.getpid())),
            stdin=source,
            stdout=target,
            stderr=subprocess.PIPE,
            # A backtrace of the engine's would push out what it says first.
            env={**os.environ, "RUST_BACKTRACE": "0"},
            start_new_session=True,  # so that it can be killed with all that it started
        )
    except OSError as error:
        raise EngineError(f"the compiler cannot be started: {error}") from error
    finally:
        os.close(source)
    with child:
        try:
            said = _attend(child, until)
            code = child.wait(max(0.0, until - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise EngineError(
                f"the compiler was stopped after {timeout_s:g} s: the module is too costly for "
                "this node; make it smaller, or compile while the node is less busy"
            ) from None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    return code, said.decode(errors="replace")


def _opened(wasm: Path) -> int:
    try:
        return os.open(wasm, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ModuleError(f"{wasm}: cannot be read: {os.strerror(error.errno or 0)}") from error


def _attend(child: "subprocess.Popen[bytes]", until: float) -> bytes:
    """Listen to the child until it closes stderr: its last words. TimeoutError."""
    assert child.stderr is not None
    listen = child.stderr.fileno()
    poll = select.poll()
    poll.register(listen, select.POLLIN)
    said = b""
    while (left := until - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            heard = os.read(listen, MAX_LAST_WORDS_BYTES)
            if not heard:
                return said
            said = (said + heard)[-MAX_LAST_WORDS_BYTES:]
    raise TimeoutError


def explain(code: int, said: str, memory_bytes: int) -> EdgeAgentError:
    """The error behind a child's end; `code` is negative for a signal (as in subprocess)."""
    words = " ".join(said.split())
    if code == _NO_MEMORY or (code not in _EXITS and any(word in said for word in _MEMORY_WORDS)):
        return EngineError(
            f"the compiler needed more than {format_size(memory_bytes)} of memory: "
            "the module is too large or too intricate for this node; make it smaller"
        )
    if code in _EXITS:
        return _EXITS[code](words)
    if code == -signal.SIGKILL:
        return EngineError(
            "the compiler was killed from outside, most likely because the node ran out of "
            "memory; free some memory, the agent tries again when the plugin is next loaded"
        )
    end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return EngineError(f"the compiler {end}" + f": {words[-500:]}" * bool(words))


# From here on: the child.


def main(arguments: list[str]) -> NoReturn:
    """engine, digest, "metered" or "plain", bytes of memory, for which processor, parent's
    process; the module on stdin, the artifact to stdout."""
    engine_name, digest, kind, memory_bytes, target_name, parent = arguments
    portably = _read_target(target_name)
    target = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not get into the artifact
    _die_with(int(parent))
    _give_way()
    try:
        from edge_agent.store.digest import sha256_hex
        from edge_agent.wasm.choice import choose
        from edge_agent.wasm.confinement import confine

        engine, _ = choose(engine_name)
        _limit(int(memory_bytes))
        # All that is imported in the middle of it, while files can still be opened.
        compile_here(engine, _EMPTY, metered=kind == "metered", portably=portably)
        wasm = sys.stdin.buffer.read(MAX_MODULE_BYTES + 1)
        if sha256_hex(wasm) != digest:
            _leave(_SUPERSEDED, "it changed while it was read; it is read again")
        # Nothing looked into the module so far, and nothing is opened from here on.
        lacking = confine(lambda: _die_with(int(parent)))
        artifact = compile_here(engine, wasm, metered=kind == "metered", portably=portably)
    except MemoryError:
        os._exit(_NO_MEMORY)
    except (ModuleError, EngineError) as error:
        if f"(os error {ENOMEM})" in str(error):
            os._exit(_NO_MEMORY)
        _leave(_BAD_MODULE if isinstance(error, ModuleError) else _BAD_ENGINE, str(error))
    try:
        rest = memoryview(artifact)
        while rest:
            rest = rest[os.write(target, rest) :]
        os.fsync(target)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        advice = "; free some space on this disk" * (error.errno in (ENOSPC, EDQUOT))
        _leave(_BAD_DISK, f"the compiled module cannot be written: {reason}{advice}")
    _leave(0, _LACKING + "; ".join(lacking) if lacking else "")


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
        os._exit(_BAD_ENGINE)  # it died before the line above


def _give_way() -> None:
    """Everything else comes first."""
    os.nice(NICENESS)
    try:
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
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
