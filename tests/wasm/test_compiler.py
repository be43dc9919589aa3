import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import EdgeAgentError, EngineError, ModuleError, StoreError
from edge_agent.process import command as python_command
from edge_agent.store.digest import Digest
from edge_agent.wasm.compiler import MEMORY_BYTES, compile_module, explain
from edge_agent.wasm.compiler_process import NICENESS
from edge_agent.wasm.module import inspect
from edge_agent.wasm.modulefile import identify
from tests.support.compilers import compilers
from tests.support.costly import costly_module, wasmtime
from tests.support.engines import make
from tests.support.smalldisk import small_disk
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests" / "guests" / "bench.wasm"
ENDLESS = (10, 100_000)  # half a minute, if nobody ends it

needs_limits = pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    wasmtime()  # or skip
    return tmp_path / "artifact"


def compile_(wasm: Path | bytes, output: Path, engine: str = "wasmtime", **limits: Any) -> None:
    """A file, or the bytes of one beside the output."""
    if isinstance(wasm, bytes):
        data, wasm = wasm, output.with_name("module.wasm")
        wasm.write_bytes(data)
    compile_module(engine, wasm, identify(wasm)[0], output, **limits)


def confined(pid: int) -> bool:
    """Whether the compiler has set its limits and its filter, the last things before it begins."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        return f"{'Max data size':<26}{MEMORY_BYTES} " in limits and "\nSeccomp:\t2\n" in status
    except OSError:
        return False


def the_compiler(parent: int) -> int:
    """The one compiling child of a process, at work."""
    wait_until(lambda: any(map(confined, compilers(parent))), "the compiler at work")
    (pid,) = compilers(parent)
    return pid


def test_a_file_becomes_an_artifact_that_the_engine_loads(output: Path) -> None:
    compile_(BENCH, output)
    wasmtime().load(output, inspect(BENCH.read_bytes()), 512 << 10).close()
    assert output.stat().st_mode & 0o7777 == 0o400


def test_a_file_that_is_another_by_now_is_not_compiled(output: Path) -> None:
    with pytest.raises(ModuleError, match="changed while it was read"):
        compile_module("wasmtime", BENCH, identify(BENCH.with_name("edge.wasm"))[0], output)
    assert not output.exists()


def test_the_child_finds_the_package_from_any_folder(output: Path, tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from edge_agent.wasm.compiler import compile_module
        from edge_agent.wasm.modulefile import identify
        wasm = Path(sys.argv[2])
        compile_module("auto", wasm, identify(wasm)[0], Path("artifact"))
    """
    command = [sys.executable, "-c", code, str(ROOT), str(BENCH)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert output.stat().st_size > BENCH.stat().st_size


def test_the_child_imports_little() -> None:
    """It begins anew for each module: its imports were two thirds of what it executes."""
    if isinstance(engine := make("wasmi"), str):
        pytest.skip(engine)
    code = (
        "import edge_agent.store.digest, edge_agent.wasm.confinement;"
        "import edge_agent.wasm.compiler_process as process;"
        "from edge_agent.wasm.engine_selection import select_engine;"
        "process.compile_here(select_engine('wasmi')[0], process._EMPTY);"
        "print(*sys.modules)"
    )
    done = subprocess.run(python_command(code), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edge_agent_engines.edge_agent_engines" in loaded
    heavy = {"dataclasses", "edge_agent.config", "edge_agent.wasm.module", "logging", "pathlib"}
    assert not heavy & loaded


@pytest.mark.parametrize(
    ("wasm", "said"),
    [
        (b"", "not valid Wasm: "),
        (b"\0asm\1\0\0\0\1\5zzz", "not valid Wasm: failed to parse WebAssembly module"),
        (b"x" * (1 << 20), "not valid Wasm: "),
    ],
)
def test_a_bad_module_is_refused_with_the_engines_reason(
    output: Path, wasm: bytes, said: str
) -> None:
    with pytest.raises(ModuleError, match=said) as caught:
        compile_(wasm, output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_a_missing_module_file_is_named(output: Path, tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match=r"gone\.wasm: cannot be read: No such file"):
        compile_module("wasmtime", tmp_path / "gone.wasm", Digest.of_hex("0" * 64), output)
    assert not output.exists()


def test_an_engine_that_is_not_there_is_said(output: Path) -> None:
    with pytest.raises(EngineError, match="no adapter for the engine 'v8'"):
        compile_(BENCH, output, "v8")
    assert not output.exists()


def test_a_file_that_is_there_is_not_touched(output: Path) -> None:
    output.write_bytes(b"precious")
    with pytest.raises(StoreError, match="artifact: cannot be made: File exists"):
        compile_(BENCH, output)
    assert output.read_bytes() == b"precious"


@pytest.mark.system
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    wasmtime()  # or skip
    with small_disk(tmp_path / "disk", size_kib=16) as disk:
        with pytest.raises(StoreError, match=r"No space left on device; free some space"):
            compile_(BENCH, disk / "artifact")
        assert list(disk.iterdir()) == []


@needs_limits
def test_too_little_memory_is_said_with_the_limit(output: Path) -> None:
    with pytest.raises(EngineError, match="needed more than 64MiB of memory"):
        compile_(costly_module(1, 20_000), output, memory_bytes=64 << 20)
    assert not output.exists()


@needs_limits
def test_what_a_board_has_to_spare_is_the_limit(output: Path, tmp_path: Path) -> None:
    meminfo = tmp_path / "proc" / "meminfo"
    meminfo.parent.mkdir()
    meminfo.write_text(f"MemAvailable: {112 << 10} kB\n")
    with pytest.raises(EngineError, match="more than 64MiB of memory, which is what this node has"):
        compile_(costly_module(1, 20_000), output, system=tmp_path)
    assert not output.exists()
    meminfo.write_text("MemAvailable: 0 kB\n")
    compile_(BENCH, output, system=tmp_path)  # a small one is tried all the same
    assert output.exists()


def test_no_compiler_is_started_for_a_module_that_cannot_fit(output: Path, tmp_path: Path) -> None:
    """A board that has no more would stand still while it tries, again and again."""
    meminfo = tmp_path / "proc" / "meminfo"
    meminfo.parent.mkdir()
    meminfo.write_text(f"MemAvailable: {37 << 10} kB\n")
    module = BENCH.read_bytes()
    large = module + custom_section(9 << 20)
    with pytest.raises(EngineError, match="more than 24MiB of memory, which is what this node has"):
        compile_(large, output, system=tmp_path, timeout_s=0.0)
    assert not output.exists()
    with pytest.raises(EngineError, match="was stopped after 0 s"):
        compile_(module + custom_section(7 << 20), output, system=tmp_path, timeout_s=0.0)


def custom_section(size: int) -> bytes:
    body = b"\4none" + bytes(size)
    length, left = b"", len(body)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return b"\0" + length + bytes([left]) + body


@needs_limits
def test_too_little_memory_to_begin_is_said(output: Path) -> None:
    with pytest.raises(EngineError, match="needed more than 4MiB of memory"):
        compile_(BENCH, output, memory_bytes=4 << 20)


def test_too_long_is_stopped_and_leaves_no_process(output: Path) -> None:
    with pytest.raises(EngineError, match=r"was stopped after 0\.7 s: the module is too costly"):
        compile_(costly_module(*ENDLESS), output, timeout_s=0.7)
    assert not output.exists()
    assert compilers(os.getpid()) == []


@needs_limits
def test_a_killed_compiler_is_only_an_error(output: Path) -> None:
    caught: list[EdgeAgentError] = []

    def work() -> None:
        try:
            compile_(costly_module(*ENDLESS), output)
        except EdgeAgentError as error:
            caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    pid = the_compiler(os.getpid())
    assert os.getpriority(os.PRIO_PROCESS, pid) >= NICENESS
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGKILL)
    worker.join()
    assert isinstance(caught[0], EngineError)
    assert "the compiler was killed from outside" in str(caught[0])
    assert not output.exists()


@needs_limits
def test_the_compiler_dies_with_its_parent(output: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from edge_agent.wasm.compiler import compile_module
        from edge_agent.wasm.modulefile import identify
        wasm = Path(sys.argv[1])
        compile_module("wasmtime", wasm, identify(wasm)[0], Path(sys.argv[2]))
    """
    wasm = output.with_name("module.wasm")
    wasm.write_bytes(costly_module(*ENDLESS))
    parent = subprocess.Popen([sys.executable, "-c", code, str(wasm), str(output)])
    child = the_compiler(parent.pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: not confined(child), "the end of the compiler")
    assert output.stat().st_size == 0  # it was ended, and did not come to its end


def test_compiling_does_not_grow_the_parent(output: Path, tmp_path: Path) -> None:
    wasm = tmp_path / "module.wasm"
    wasm.write_bytes(costly_module(1, 20_000))
    code = """if True:
        import resource, sys
        from pathlib import Path
        from edge_agent.wasm.compiler import compile_module
        from edge_agent.wasm.modulefile import identify
        wasm = Path(sys.argv[1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        compile_module("wasmtime", wasm, identify(wasm)[0], Path(sys.argv[2]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    """
    command = [sys.executable, "-c", code, str(wasm), str(output)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    parent_kib, child_kib = map(int, ran.stdout.split())
    assert child_kib > 80 << 10  # else this test would say nothing
    assert parent_kib < 4 << 10


def test_what_a_child_says_is_bounded_and_its_end_is_kept() -> None:
    error = explain(3, "noise " * 1000 + "the reason", 1 << 20)
    assert isinstance(error, EngineError)
    assert str(error).startswith("the compiler ended with status 3: ")
    assert str(error).endswith("the reason")
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("code", "said", "kind", "text"),
    [
        (-signal.SIGSEGV, "", EngineError, "the compiler was ended by SIGSEGV"),
        (-signal.SIGABRT, "memory allocation of 9 bytes failed", EngineError, "more than 1MiB"),
        (-signal.SIGABRT, "assertion", EngineError, "was ended by SIGABRT: assertion"),
        (-signal.SIGKILL, "", EngineError, "was killed from outside"),
        (13, "", EngineError, "more than 1MiB of memory"),
        (10, "not valid Wasm: memory allocation of fun", ModuleError, "not valid Wasm: memory"),
        (1, "Traceback ... MemoryError", EngineError, "more than 1MiB of memory"),
    ],
)
def test_each_end_of_a_compiler_is_explained(
    code: int, said: str, kind: type[EdgeAgentError], text: str
) -> None:
    error = explain(code, said, 1 << 20)
    assert type(error) is kind
    assert text in str(error)
