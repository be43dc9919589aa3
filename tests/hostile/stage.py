"""Who must not be harmed: boards that answer a runtime all the time, and an operator's tools.

Everything is the real thing: agents and commands are processes of their own. What is asserted has
nothing to do with how fast they are; a limit of time stands for "for ever" only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.sim.board import another_build
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import ROOT, Agent, guest

HANGS_S = 400.0  # a command that takes longer ends never
MAX_TOOL_BYTES = 700 << 20  # what a tool may take at its largest
MAX_AGENT_BYTES = 160 << 20
MAX_STATE_BYTES = 48 << 20  # of the disk: queue, store and compiled code
CONFIG = "[default]\nmemory.default = 64Mi\n"
LIMIT = 64 << 20
PLUGIN, IDENTITY = "guard", "20-guard"
GOOD = guest("resource-guard").read_bytes()
# It does in Configure what no release survives.
BAD_CONFIG = "configure:trap\n"


def release(version: str) -> bytes:
    """A build of the good plugin."""
    return another_build(GOOD, version)


class Ran(NamedTuple):
    """One command that ended."""

    words: tuple[str, ...]
    code: int
    output: str
    errors: str
    peak_bytes: int


class Tools:
    """`edge-agent fleet` in a folder; each command must end in order, whatever it meets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = "edge_agent"  # what is run
        self.path = folder / "fleet"
        self.keys = folder / "keys"
        self.ran: list[Ran] = []
        self._number = 0

    def run(self, *words: str) -> Ran:
        """Any outcome but a defect: a traceback, no end, memory without bound."""
        self._number += 1
        out, err = (self.folder / f"{self._number}.{end}" for end in ("out", "err"))
        place = () if words[0] in ("keygen", "init") else ("-C", str(self.path))
        at = 2 if words[0] == "trust" else 1
        command = [sys.executable, "-m", self.module, "fleet", *words[:at], *place]
        command += ["--keys", str(self.keys), *words[at:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        cwd = self.path if self.path.exists() else ROOT
        with out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                env=environment,
                stdout=output,
                stderr=errors,
            )
        code, peak = _wait(process, words)
        ran = Ran(
            words, code, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"), peak
        )
        out.unlink()
        err.unlink()
        assert "Traceback" not in ran.output + ran.errors, f"{words}: {ran.errors[-4000:]}"
        assert code in (0, 1, 2), f"{words} ended with {code}: {ran.errors[-2000:]}"
        assert code == 0 or ran.errors or ran.output, f"{words} failed without a word"
        assert peak < MAX_TOOL_BYTES, f"{words} took {peak >> 20} MiB"
        assert all(each.isprintable() for each in (ran.output + ran.errors).split("\n")), words
        self.ran.append(ran)
        return ran

    def well(self, *words: str) -> Ran:
        """One that must succeed."""
        ran = self.run(*words)
        assert ran.code == 0, f"{words}: {ran.output[-2000:]}{ran.errors[-2000:]}"
        return ran

    def round(self, number: int) -> None:
        """Every command that looks, asks and changes; `PLUGIN` 2.NUMBER.0 is published then."""
        module = self.folder / "round.wasm"
        module.write_bytes(release(f"{number}"))
        asked: tuple[tuple[str, ...], ...] = (
            *(("nodes",), ("nodes", "--json"), ("node", "evil"), ("results", "--json")),
            *(("watch", "--seconds", "1"), ("request", "evil", "diagnose", "--timeout", "3")),
        )
        for words in asked:
            self.run(*words)
        done: tuple[tuple[str, ...], ...] = (
            *(("node", "good-1"), ("plan",), ("gc", "-y"), ("deploy", "-y")),
            ("publish", str(module), "--name", PLUGIN, "--version", f"2.{number}.0"),
            ("request", "good-1", "logs", "--timeout", "120"),
            ("request", "good-2", "sync", "--timeout", "120"),
        )
        for words in done:
            self.well(*words)

    def read_results(self) -> None:
        """All that waits."""
        for _ in range(100):
            ran = self.well("results", "--json")
            if not ran.errors:
                return
        raise AssertionError(f"results do not end: {ran.errors}")


def _wait(process: subprocess.Popen[bytes], words: tuple[str, ...]) -> tuple[int, int]:
    """Exit code and most memory."""
    end = time.monotonic() + HANGS_S
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss * 1024
        if time.monotonic() > end:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise AssertionError(f"{words} does not end")
        time.sleep(0.05)


class Board:
    """One agent at a runtime that creates containers all the time."""

    def __init__(
        self,
        folder: Path,
        name: str,
        mqtt: Mapping[str, Any],
        trust: Path,
        fleet: str = "default",
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.name = name
        self.runtime = SimRuntime(folder / "nri.sock", request_timeout_s=HANGS_S)
        self.agent = Agent(
            folder,
            sockets=[folder / "nri.sock"],
            level="info",
            node=name,
            fleet=fleet,
            mqtt={"reconnect_min": "50ms", "reconnect_max": "500ms", **mqtt},
            updates={"trust_dir": str(trust), "probation": "1s", "probation_events": 3},
        )
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.answered = 0
        self.unanswered: list[str] = []
        self.peak_bytes = 0

    @contextmanager
    def there(self) -> Iterator[Board]:
        """Runtime and agent run inside."""
        with self.runtime, self.agent:
            try:
                yield self
            finally:
                self.calm()

    def busy(self) -> None:
        """From now on containers are created one after the other, until `calm`."""
        self._thread = threading.Thread(target=self._create)
        self._thread.start()

    def _create(self) -> None:
        number = 0
        while not self._over.wait(0.05):
            number += 1
            pod = self.runtime.run_pod(f"pod-{number}").pod
            made = self.runtime.create_container(pod, "app")
            if not made.ok:
                self.unanswered.append(str(made.error))
            elif made.container.linux.resources.memory.limit.value != LIMIT:
                self.unanswered.append("created without the plugin")
            else:
                self.answered += 1
            self.runtime.stop_pod(pod)
            self.runtime.pods.clear()
            self.runtime.containers.clear()
            self.peak_bytes = max(self.peak_bytes, _rss(self.agent.pid))

    def calm(self) -> None:
        """No further container."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def versions(self) -> set[str]:
        """Of the plugin, as it answers here now."""
        return {
            str(each.get("version")) for each in self.agent.status()["plugins"] if _answers(each)
        }

    def wait_version(self, version: str) -> None:
        self.agent.wait_for(
            lambda status: any(
                each.get("version") == version and _answers(each) for each in status["plugins"]
            ),
            f"{self.name} runs {version}",
            timeout_s=HANGS_S,
        )

    def check(self) -> None:
        """It has answered all, and is as small as ever."""
        assert not self.unanswered, self.unanswered[:3]
        assert self.answered > 0
        assert self.peak_bytes < MAX_AGENT_BYTES, f"{self.name}: {self.peak_bytes >> 20} MiB"
        stored = sum(each.stat().st_size for each in _files(self.folder / "state"))
        assert stored < MAX_STATE_BYTES, f"{self.name}: {stored >> 20} MiB on the disk"
        log = self.agent.log()
        assert "Traceback" not in log, log[log.index("Traceback") - 2000 :][:8000]


def _answers(plugin: dict[str, Any]) -> bool:
    """Whether this release answers: while the one before still does, `running` names that."""
    return plugin["status"] == "running" and "running" not in plugin


def _files(folder: Path) -> Iterator[Path]:
    for each in folder.rglob("*"):
        try:
            if each.is_file():
                yield each
        except OSError:
            continue


def _rss(pid: int) -> int:
    try:
        with Path(f"/proc/{pid}/statm").open() as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
