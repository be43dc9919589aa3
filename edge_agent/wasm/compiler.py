"""Compiles a module in a child process: its memory is freed, and its crash is only an error.

A compiler takes tens of times a module's size in memory and holds most of it for ever,
and a hostile module can make it take all there is. So it runs apart, with limits:

    parent (a worker thread)                    child (compiler_process.py)
    module as stdin, new file as stdout   ->    reads it, checks its digest, confines itself
                                                (wasm/confinement), meters it if it is to
                                                be metered, compiles, writes, syncs
    exit status, last words on stderr     <-    exits; dies with its parent
"""

import logging
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.config.units import format_size
from edge_agent.errors import (
    EdgeAgentError,
    EngineError,
    ModuleError,
    StoreError,
    SupersededError,
)
from edge_agent.process import command
from edge_agent.wasm.compiler_process import (
    BAD_DISK,
    BAD_ENGINE,
    BAD_MODULE,
    HERE,
    LACKING,
    MAX_LAST_WORDS_BYTES,
    NO_MEMORY,
    SUPERSEDED,
    Portably,
)
from edge_agent.wasm.module import MAX_MODULE_BYTES

if TYPE_CHECKING:
    import subprocess

    from edge_agent.store.digest import Digest

log = logging.getLogger(__name__)

# A Go module of 10 MB takes 10 s of a fast processor; a small board takes ten times as
# long and does everything else first.
TIMEOUT_S = 300.0
MEMORY_BYTES = 512 << 20  # that Go module takes 230 MB
_EXITS: dict[int, type[EdgeAgentError]] = {
    BAD_MODULE: ModuleError,
    BAD_ENGINE: EngineError,
    BAD_DISK: StoreError,
    SUPERSEDED: SupersededError,
}
# Words of the allocators behind the compilers when the limit is reached.
_MEMORY_WORDS = ("memory allocation of", "Cannot allocate memory", "MemoryError", "out of memory")

# Nothing that it makes becomes garbage before it ends.
_MAIN = (
    "import gc; gc.disable(); from edge_agent.wasm.compiler_process import main; main(sys.argv[1:])"
)


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
    system: Path = Path("/"),
) -> None:
    """Compile the module in `wasm`, which has this digest, into the new file
    `output`. Waits: only for worker threads.

    It may take `memory_bytes`, and less where `system` has less free (wasm/spare_memory.py).

    ModuleError: the engine refuses the module. SupersededError: it is another by now.
    EngineError: the compiler ran out of time or memory, crashed or could not be started.
    StoreError: the artifact could not be written. `output` does not exist after an error.
    """
    # Most starts compile nothing.
    from edge_agent.wasm.spare_memory import compilers_share, is_too_little

    try:
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    except OSError as error:
        raise StoreError(f"{output}: cannot be made: {os.strerror(error.errno or 0)}") from error
    try:
        how = "metered" if metered else "plain"
        share = compilers_share(memory_bytes, system)
        if share < memory_bytes and is_too_little(share, _size(wasm)):
            raise explain(NO_MEMORY, "", share, scarce=True)
        bounds = (str(MAX_MODULE_BYTES), str(share))
        task = (engine_name, digest, how, *bounds, _told_target(portably))
        code, said = _run(task, wasm, target, timeout_s)
        if code:
            raise explain(code, said, share, scarce=share < memory_bytes)
        _tell_lacking(said)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


def _told_target(portably: Portably | None) -> str:
    if portably is None:
        return HERE
    return f"{portably.target} {'wide' if portably.wide else 'narrow'}"


_told: set[str] = set()


def _tell_lacking(said: str) -> None:
    """Log once what compilers here cannot give up."""
    lacking = said.removeprefix(LACKING)
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
        raise _unreadable(wasm, error) from error


def _size(wasm: Path) -> int:
    try:
        return wasm.stat().st_size
    except OSError as error:
        raise _unreadable(wasm, error) from error


def _unreadable(wasm: Path, error: OSError) -> ModuleError:
    return ModuleError(f"{wasm}: cannot be read: {os.strerror(error.errno or 0)}")


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


def explain(code: int, said: str, memory_bytes: int, *, scarce: bool = False) -> EdgeAgentError:
    """The error behind a child's end; `code` is negative for a signal (as in subprocess).

    `scarce`: `memory_bytes` is less than usual, since this node has no more free.
    """
    words = " ".join(said.split())
    if code == NO_MEMORY or (code not in _EXITS and any(word in said for word in _MEMORY_WORDS)):
        if scarce:
            return EngineError(
                f"the compiler needs more than {format_size(memory_bytes)} of memory, which is "
                "what this node has to spare; free some memory or make the module smaller, the "
                "agent tries again when the plugin is next loaded"
            )
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
