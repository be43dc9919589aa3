"""What a compiler can still do once it is confined: tried from inside, on this kernel."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_agent.errors import EngineError
from edge_agent.wasm.compiler import compile_module
from edge_agent.wasm.confinement import COMPILER_ID, architecture, forbidden
from edge_agent.wasm.modulefile import identify
from tests.support.compilers import compilers
from tests.support.costly import costly_module
from tests.support.engines import make
from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests" / "guests" / "bench.wasm"
ENGINES = ("wasmer", "wasmtime", "wasmi")

pytestmark = pytest.mark.not_emulated("QEMU's user mode has no seccomp")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

PRELUDE = """if True:
    import ctypes, json, os, signal, socket, sys, threading
    from edge_agent.wasm.confinement import confine, filter_calls
    libc = ctypes.CDLL(None, use_errno=True)
    def tried(call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            return error.errno
        return 0
    def raw(*arguments):
        ctypes.set_errno(0)
        return ctypes.get_errno() if libc.syscall(*arguments) < 0 else 0
"""

ATTEMPTS = (
    PRELUDE
    + """
    parent, mine = os.getppid(), os.getpid()
    lacking = confine(lambda: None)
    print(json.dumps({
        "lacking": lacking,
        "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
        "refused": {
            "a socket": tried(socket.socket),
            "a socket of the machine": tried(socket.socket, socket.AF_UNIX),
            "a pair of sockets": tried(socket.socketpair),
            "reading a file": tried(os.open, "/etc/hostname", os.O_RDONLY),
            "reading its own /proc": tried(os.open, "/proc/self/status", os.O_RDONLY),
            "writing a file": tried(os.open, "/tmp/x", os.O_WRONLY | os.O_CREAT),
            "removing a file": tried(os.unlink, "/tmp/x"),
            "another mode": tried(os.fchmod, 1, 0o777),
            "a program": tried(os.execv, "/bin/true", ["true"]),
            "a process": tried(os.fork),
            "a signal to its parent": tried(os.kill, parent, 0),
            "a signal to its parent's thread": raw(NR["tgkill"], parent, parent, 0),
            "its parent's limits": raw(NR["prlimit64"], parent, 7, None, None),
            "ptrace": raw(NR["ptrace"], 16, parent, 0, 0),
            "its parent's memory": raw(NR["process_vm_readv"], parent, None, 0, None, 0, 0),
            "a namespace": raw(NR["unshare"], 0x10000000),
            "a thread in a namespace": raw(NR["clone"], 0x10000000 | 17, None, None, None, None),
            "root": tried(os.setresuid, 0, 0, 0),
            "outliving its parent": libc.prctl(1, 0, 0, 0, 0) and ctypes.get_errno(),
            "bpf": raw(NR["bpf"], 0, None, 0),
            "io_uring": raw(NR["io_uring_setup"], 1, None),
        },
        "clone3": raw(435, None, 0),
        "a newer call": raw(463, None, 0),
    }), flush=True)
    worker = threading.Thread(target=os.getpid)  # allowed, with its memory
    worker.start()
    worker.join()
    os.write(1, b"written\\n")
    assert raw(NR["prlimit64"], 0, 7, None, None) == 0
    os.abort()  # a signal to itself
    """
)

TRIED = ("tgkill", "prlimit64", "ptrace", "process_vm_readv", "unshare", "clone", "bpf")


def skip_without(engine: str) -> None:
    made = make(engine)
    if isinstance(made, str):
        pytest.skip(made)


def inside(program: str) -> subprocess.CompletedProcess[str]:
    headers = numbers("x86-64" if os.uname().machine == "x86_64" else "generic")
    known = {name: headers[name] for name in (*TRIED, "io_uring_setup")}
    program = program.replace("if True:", f"if True:\n    NR = {known!r}", 1)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def numbers(kind: str) -> dict[str, int]:
    """The kernel's own, from the headers that zig brings (the newest for ARM and RISC-V) or the
    system has."""
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        pytest.skip("the kernel's headers come with ziglang, which is not installed")
    folder = Path(spec.origin).parent / "lib" / "libc" / "include"
    files = {
        "x86-64": [folder / "x86-linux-any" / "asm" / "unistd_64.h"],
        "generic": [folder / "aarch64-linux-any" / "asm" / "unistd_64.h"],
        "riscv64": [folder / "riscv-linux-any" / "asm" / "unistd_64.h"],
        "arm": sorted((folder / "arm-linux-any" / "asm").glob("unistd-*.h")),
    }[kind]
    pattern = r"#define\s+__NR_(\w+)\s+\(?(?:__NR_SYSCALL_BASE\s*\+\s*)?(\d+)\)?"
    text = "".join(file.read_text() for file in files)
    return {name: int(number) for name, number in re.findall(pattern, text)}


@pytest.mark.system
@needs_root
def test_a_confined_process_reaches_nothing_but_what_is_open() -> None:
    done = inside(ATTEMPTS)
    assert done.returncode == -signal.SIGABRT, done.stderr
    first, _, rest = done.stdout.partition("\n")
    said = json.loads(first)
    assert said["lacking"] == []
    assert said["ids"] == [COMPILER_ID] * 6
    assert set(said["refused"].values()) == {errno.EPERM}, said["refused"]
    assert said["clone3"] == said["a newer call"] == errno.ENOSYS
    assert rest == "written\n"


def test_a_kernel_that_refuses_the_filter_is_named() -> None:
    """As one that has none would: here the first filter forbids the second."""
    done = inside(PRELUDE + "\n    print(repr(filter_calls(libc)), filter_calls(libc))")
    assert done.stdout == "'' Operation not permitted\n", done.stderr


@pytest.mark.parametrize(
    ("machine", "pointer_bytes", "kind"),
    [
        ("x86_64", 8, "x86-64"),
        ("aarch64", 8, "generic"),
        ("riscv64", 8, "riscv64"),
        ("aarch64", 4, "arm"),
        ("armv6l", 4, "arm"),
    ],
)
def test_the_numbers_are_the_kernels(machine: str, pointer_bytes: int, kind: str) -> None:
    known = architecture(machine, pointer_bytes)
    assert known is not None
    listed, headers = forbidden(known.column), numbers(kind)
    assert len(listed) > 120
    assert {name: headers.get(name, number) for name, number in listed.items()} == listed
    assert {"socket", "openat", "execve", "ptrace", "kill", "mount"} <= listed.keys()
    # What one has and the other lacks is a name of that architecture only.
    missing = set(forbidden(0)) - set(listed)
    assert not missing & headers.keys(), missing & headers.keys()


def test_a_processor_without_a_list_is_told_as_such() -> None:
    assert architecture("ppc64le", 8) is None


@pytest.mark.system
@needs_root
@pytest.mark.parametrize("engine", ENGINES)
def test_each_engines_compiler_works_confined_with_all_its_threads(
    engine: str, tmp_path: Path
) -> None:
    skip_without(engine)
    wasm = tmp_path / "module.wasm"
    wasm.write_bytes(costly_module(10, 100_000))
    caught: list[Exception] = []

    def work() -> None:
        try:
            compile_module(engine, wasm, identify(wasm)[0], tmp_path / "artifact")
        except EngineError as error:
            caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[dict[str, str]] = []

    def confined() -> bool:
        seen[:] = [status for pid in compilers(os.getpid()) for status in threads(pid)]
        return bool(seen) and all(each["Seccomp"] == "2" for each in seen)

    try:
        wait_until(confined, "a confined compiler with all its threads")
        for status in seen:
            assert status["Uid"].split() == [str(COMPILER_ID)] * 4
            assert status["Gid"].split() == [str(COMPILER_ID)] * 4
            assert (status["Groups"].strip(), status["NoNewPrivs"]) == ("", "1")
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    finally:
        for pid in compilers(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        worker.join()
    assert "killed from outside" in str(caught[0])


def threads(pid: int) -> list[dict[str, str]]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            lines = (task / "status").read_text().splitlines()
        except OSError:
            continue
        pairs = (line.partition(":") for line in lines)
        found.append({name: value.strip() for name, _, value in pairs})
    return found


@pytest.mark.system
@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_confined_compiler_makes_the_artifact(
    engine: str, metered: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    skip_without(engine)
    output = tmp_path / "artifact"
    compile_module(engine, BENCH, identify(BENCH)[0], output, metered=metered)
    assert output.stat().st_size > 0
    assert output.stat().st_uid == os.geteuid()
    assert "not filtered" not in caplog.text


@pytest.mark.system
@needs_root
def test_without_the_capabilities_it_stays_the_same_user_and_says_so_once(tmp_path: Path) -> None:
    """As in a container that dropped them all."""
    program = """if True:
        import ctypes, logging, sys
        from pathlib import Path
        libc = ctypes.CDLL(None)
        for capability in range(41):
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
        class header(ctypes.Structure):
            _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))
        libc.capset(ctypes.byref(header(0x20080522, 0)), (ctypes.c_uint32 * 6)())
        logging.basicConfig(level=logging.INFO, stream=sys.stdout)
        from edge_agent.wasm.compiler import compile_module
        from edge_agent.wasm.modulefile import identify
        wasm = Path(sys.argv[1])
        for name in ("a", "b"):
            compile_module("auto", wasm, identify(wasm)[0], Path(sys.argv[2]) / name)
    """
    command = [sys.executable, "-c", program, str(BENCH), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    (line,) = done.stdout.splitlines()
    assert "it runs as the agent's user (CAP_SETUID, CAP_SETGID, CAP_KILL missing)" in line
