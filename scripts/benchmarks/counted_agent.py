"""An agent that callgrind runs: everything of `edge-agent run`, and marks around what is counted.

    python -m scripts.benchmarks.counted_agent FOLDER MARKS KIND [BURDEN]

MARKS is callgrind_marks.c as a library, KIND one of KINDS. Each part is counted for FEW and for
MANY rounds, as "KIND FEW" and "KIND MANY", SERIES times: what the difference leaves out is not of
a round, and what only some series have (a timer, two threads that met) is not of the path. BURDEN,
for the test of the count itself, is so many turns of an empty loop with each event.

Everything is some 50 times slower here, so what depends on the clock is made slower too.
"""

import ctypes
import logging
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ

from edge_agent import agent, logs, notify, process
from edge_agent.config import load_agent_config
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.loop import Loop
from edge_agent.store.digest import Digest
from edge_agent.wasm import compiler, compiler_process
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.guestlog import AgentLog, GuestLog
from scripts.benchmarks import guests

EMPTY, C, PUBLISHED = "empty plugin", "C plugin", "C plugin, results published"
KINDS = (EMPTY, C, PUBLISHED)
LINE = "line of log"  # counted with C
REFERENCE = "reference"  # counted with each
FEW, MANY, SERIES = 100, 200, 3  # MqttConfig.batch_records, and twice as many
SLOWER = 50
_PLUGIN = "10-counted"
_LINE = b"\x0a\x1dadjusted container-of-the-day\x10\x02"  # a LogRequest
_LOOK_S = 0.2


class Counted:
    """The agent, and the process that is its runtime and broker."""

    def __init__(self, folder: Path, marks: ctypes.CDLL, kind: str, burden: int) -> None:
        self._marks = marks
        command = [sys.executable, "-m", "scripts.benchmarks.counted_peer", f"{folder}/nri.sock"]
        self._peer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._peer.stdout is not None
        port = self._peer.stdout.readline().removeprefix("broker ").strip()
        path = _configured(folder, kind, port)
        config = load_agent_config(path)
        fd = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.log = logs.start(config.log, fd=fd)
        self.loop = Loop()
        self._agent = agent.Agent(self.loop, config, path, notify.from_environment({}, os.getpid()))
        if burden:
            self._burden(burden)
        self._agent.start()
        self._ask("plugin")

    def count(self, kind: str) -> None:
        """The events of this kind, once not counted."""
        self._serve(FEW)
        self.between(kind, self._serve)

    def between(self, name: str, work: Callable[[int], object]) -> None:
        """Count what this does, for so many rounds."""
        for rounds in (FEW, MANY) * SERIES:
            self._marks.count_begin()
            work(rounds)
            self._marks.count_end(f"{name} {rounds}".encode())

    def _serve(self, events: int) -> None:
        """A full batch of results is sent before the next one begins, or how many are packed at
        once would depend on which thread runs when."""
        for _ in range(events // FEW):
            sent = self._sent()
            self._ask(f"events {FEW}")
            while sent is not None and (now := self._sent()) is not None and now - sent < FEW:
                self.loop.turn(time.monotonic() + _LOOK_S)
            self.log.flush()

    def _sent(self) -> int | None:
        """Results that the broker has acknowledged; None: there is no broker."""
        remote = self._agent._remote
        return remote.link.outbound.results.outbox.sent if remote is not None else None

    def _ask(self, what: str) -> None:
        """Turn the loop until the peer has done it."""
        told, answers = self._peer.stdin, self._peer.stdout
        assert told is not None
        assert answers is not None
        done: list[str] = []
        self.loop.watch(answers, EVENT_READ, lambda _: done.append(answers.readline()))
        told.write(f"{what}\n")
        while not done:
            self.loop.turn()
        self.loop.unwatch(answers)
        if done != ["done\n"]:
            raise RuntimeError(f"the peer ended: {done}")

    def _burden(self, turns: int) -> None:
        report = self._agent._supervisor._report

        def burdened(result: EventResult) -> None:
            for _ in range(turns):
                pass
            report(result)

        self._agent._supervisor._report = burdened


def _configured(folder: Path, kind: str, port: str) -> Path:
    plugins = folder / "plugins"
    plugins.mkdir()
    # Or a placeholder would be registered first while the module is compiled.
    (plugins / f"{_PLUGIN}.toml").write_text('failure_policy = "Ignore"\n')
    module = guests.empty_plugin() if kind == EMPTY else guests.c_plugin()
    (plugins / f"{_PLUGIN}.wasm").write_bytes(module)
    mqtt = f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\nmetrics_interval = "1h"\nbatch = "5s"\n'
    path = folder / "agent.toml"
    path.write_text(
        f'node = "counted"\nplugin_dir = "{plugins}"\nstate_dir = "{folder}/state"\n'
        f'control_socket = "{folder}/control.sock"\n[nri]\nsockets = ["{folder}/nri.sock"]\n'
        f'[log]\nlevel = "info"\n[limits]\nlog_lines_per_s = 10000\n'
        f"{mqtt if kind == PUBLISHED else ''}"
    )
    return path


def _compile_here(
    engine_name: str, wasm: Path, _: Digest, output: Path, *, metered: bool, **_limits: object
) -> None:
    """In place of compiler.compile_module: valgrind's processor is not the machine's, and code of a
    process outside of it may use what valgrind's lacks."""
    engine, _why = select_engine(engine_name)
    output.write_bytes(compiler_process.compile_here(engine, wasm.read_bytes(), metered=metered))


def count_lines(counted: Counted) -> None:
    """A line of a plugin's log, from the guest's bytes to the file."""
    guest_log = GuestLog(AgentLog(_PLUGIN), 1_000_000, 4096)

    def lines(count: int) -> None:
        for _ in range(count // FEW):  # so many at once fit into the handler's queue
            for _ in range(FEW):
                guest_log.request(_LINE, len(_LINE))
            counted.log.flush()

    lines(FEW)
    counted.between(LINE, lines)


def reference(turns: int) -> int:
    """What any Python does all the time; how large its counts are tells builds of it apart."""
    found: dict[str, int] = {}
    header = struct.Struct(">IIBB")
    for turn in range(turns):
        name = f"key {turn % 64}"
        packed = header.pack(turn, len(name), 1, 0) + name.encode()
        length, size, *_ = header.unpack_from(memoryview(packed))
        found[name] = found.get(name, 0) + length + size + len(sorted(packed))
    return sum(found.values())


def main(folder: Path, marks: Path, kind: str, burden: int = 0) -> None:
    """Count, and end at once."""
    process.keep_heap_small()
    sys.setswitchinterval(agent.SWITCH_INTERVAL_S * SLOWER)
    logs.GATHER_SECONDS *= SLOWER
    compiler.compile_module = _compile_here  # type: ignore[assignment]  # called with names
    library = ctypes.CDLL(str(marks))
    counted = Counted(folder, library, kind, burden)
    counted.count(kind)
    if kind == C:
        count_lines(counted)
    counted.between(REFERENCE, reference)
    logging.shutdown()
    os._exit(0)  # the peer's stdin ends, and the peer with it


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
