"""The real agent as a process of its own, with a configuration made for a test.

with Agent(tmp_path, sockets=[nri_sock]) as agent:
    agent.put("10-bench", BENCH)
    agent.wait_running("10-bench")
    agent.put("10-bench", OTHER, config="...")       # an atomic rename
    agent.wait_for(lambda status: ..., "what is waited for")
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edge_agent.control import ask
from edge_agent.errors import ControlError, NotRunningError
from tests.support.wait import TIMEOUT_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
GUESTS = ROOT / "tests" / "guests"

STOP_TIMEOUT_S = 60.0
MAX_SHOWN_CHARS = 16 * 1024  # of the log, in a failure's text

Status = dict[str, Any]
Entry = dict[str, Any]
"""One plugin at one runtime, as `edge-agent status` tells it."""


def guest(name: str) -> Path:
    """A plugin of the project or of the tests that is checked in, by its name."""
    project = PLUGINS / name / f"{name}.wasm"
    return project if project.exists() else GUESTS / f"{name}.wasm"


class Agent:
    """Started on entry, ended on exit. Killed and started again it keeps folder and state.

    `plugins` and their `configs` are there at its start, which is quicker than `put` later: a file
    that appears is taken after two scans, those of the start at once.
    `settings` are further keys of agent.toml: values, or tables such as `limits`, `mqtt`, `nri`
    (beside its sockets) and `labels`. Keyword `level` is the log's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sockets: Sequence[Path],
        plugins: Mapping[str, Path | bytes] | None = None,
        configs: Mapping[str, str] | None = None,
        level: str = "debug",
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.plugin_dir = folder / "plugins"
        self.config_path = folder / "agent.toml"
        # A socket's path has at most 107 bytes: in the folder itself, with a short name.
        self.control_socket = folder / "control"
        self.log_path = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = settings
        self._sockets = sockets
        self._level = level
        self.plugin_dir.mkdir(parents=True, exist_ok=True)
        for identity, module in (plugins or {}).items():
            self.put(identity, module, config=(configs or {}).get(identity))
        self.configure()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
            print(self.log_end())  # pytest shows it beside the failure
        else:
            self.stop()

    # --- the process

    def configure(self, *, sockets: Sequence[Path] | None = None, **changes: Any) -> None:
        """Write agent.toml; `changes` come on top of the settings. `reload` applies them."""
        self._sockets = self._sockets if sockets is None else sockets
        self._settings = {**self._settings, **changes}
        tables: dict[str, Any] = {
            "node": "node-under-test",
            "plugin_dir": "plugins",
            "state_dir": "state",
            "control_socket": str(self.control_socket),
            **self._settings,
        }
        quick = {"reconnect_min": "20ms", "reconnect_max": "200ms"}
        tables["nri"] = {
            **quick,
            "sockets": [str(each) for each in self._sockets],
            **tables.get("nri", {}),
        }
        tables["log"] = {"level": self._level, "format": "json", **tables.get("log", {})}
        rename_into(self.config_path, _toml(tables).encode())

    def start(self) -> None:
        """Start it and wait until it answers on its control socket."""
        assert self._process is None, "it runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "-c", str(self.config_path)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_for(lambda _: True, "the agent answers")

    def stop(self) -> int:
        """SIGTERM; its exit code, which is 0 when it ended in order."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the agent does not end; its log:\n{self.log_end()}") from None
        assert code == 0, f"the agent ended with {code}; its log:\n{self.log_end()}"
        return code

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """That runs, or ended by itself."""
        assert self._process is not None, "it does not run"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    # --- plugins; a file appears under its name only when it is whole

    def put(
        self,
        identity: str,
        module: Path | bytes | None = None,
        *,
        config: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Add or replace NN-name.wasm, .conf and .toml as far as given, the module last."""
        if settings is not None:
            rename_into(self.plugin_dir / f"{identity}.toml", _toml(settings).encode())
        if config is not None:
            rename_into(self.plugin_dir / f"{identity}.conf", config.encode())
        if module is not None:
            content = module.read_bytes() if isinstance(module, Path) else module
            rename_into(self.plugin_dir / f"{identity}.wasm", content)

    def remove(self, identity: str) -> None:
        """Remove the module and what lies beside it, the module first."""
        for suffix in (".wasm", ".conf", ".toml"):
            (self.plugin_dir / f"{identity}{suffix}").unlink(missing_ok=True)

    # --- what it says

    def status(self) -> Status:
        """As `edge-agent status` gets it."""
        return ask(self.control_socket, "status")

    def entries(self, identity: str, status: Status | None = None) -> list[Entry]:
        """The plugin at each runtime that is there; before any is, one that waits."""
        found = self.status() if status is None else status
        return [each for each in found["plugins"] if _identity(each) == identity]

    def entry(self, identity: str, socket: Path | None = None) -> Entry:
        """The plugin at one runtime (the only one if none is named)."""
        found = [
            each
            for each in self.entries(identity)
            if socket is None or each.get("runtime") == str(socket)
        ]
        assert len(found) == 1, f"{identity} is there {len(found)} times: {self.status()}"
        return found[0]

    def wait_for(
        self, condition: Callable[[Status], object], what: str, timeout_s: float = TIMEOUT_S
    ) -> Status:
        """The first status that fulfils the condition; fails when the agent ends before."""
        found: list[Status] = []

        def look() -> bool:
            assert self._process is not None, "it does not run"
            assert self._process.poll() is None, f"the agent ended; its log:\n{self.log_end()}"
            try:
                status = self.status()
            except NotRunningError:
                return False
            except ControlError:
                return False  # it starts, or is too busy for this question
            found[:] = [status]
            return bool(condition(status))

        try:
            wait_until(look, what, timeout_s)
        except AssertionError as error:
            last = json.dumps(found[0], indent=1) if found else "none"
            raise AssertionError(f"{error}; last status:\n{last}\nlog:\n{self.log_end()}") from None
        return found[0]

    def wait_running(self, *identities: str, runtimes: int = 1) -> Status:
        """Wait until what lies in the plugin folder now answers at this many runtimes."""
        wanted = {each: self._digest(each) for each in identities}

        def answers(status: Status) -> bool:
            return all(
                sum(_answers(entry, wanted[each]) for entry in self.entries(each, status))
                >= runtimes
                for each in identities
            )

        return self.wait_for(answers, f"{', '.join(identities)} at {runtimes} runtime(s)")

    def wait_refusing(self, identity: str, error: str) -> Status:
        """Wait until creations are refused for this error. They are before that, too, for another
        reason: while the plugin is compiled."""
        return self.wait_for(
            lambda status: any(
                "refusing" in each and error in each.get("error", "")
                for each in self.entries(identity, status)
            ),
            f"creations are refused since {identity} does not run: {error}",
        )

    def wait_replaced(self, identity: str, restarts: int) -> Status:
        """Wait until the plugin has been replaced more often than `restarts` at each runtime."""
        return self.wait_for(
            lambda status: all(
                entry["restarts"] > restarts and _answers(entry, self._digest(identity))
                for entry in self.entries(identity, status)
            ),
            f"{identity} is replaced",
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far, one object for each line; what is not JSON stands as its message."""
        return [_line(each) for each in self.log().splitlines()]

    def messages(self, plugin: str | None = None) -> list[str]:
        """The messages of the log; with `plugin` those about or from it."""
        return [
            str(line.get("message", ""))
            for line in self.lines
            if plugin is None or line.get("plugin") == plugin
        ]

    def wait_for_line(self, words: str, times: int = 1, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until this many messages of the log contain the words."""
        try:
            wait_until(
                lambda: sum(words in each for each in self.messages()) >= times,
                f"{times} log line(s) with {words!r}",
                timeout_s,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; log:\n{self.log_end()}") from None

    def log(self) -> str:
        """All that it wrote since the folder was made, restarts included."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_end(self) -> str:
        """For a failure's text: the last part of the log."""
        return self.log()[-MAX_SHOWN_CHARS:]

    def _digest(self, identity: str) -> str:
        content = (self.plugin_dir / f"{identity}.wasm").read_bytes()
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


def rename_into(path: Path, content: bytes) -> None:
    """Write beside `path` and rename: readers see the old content or the new."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def _identity(entry: Entry) -> str:
    return f"{entry['index']}-{entry['name']}" if "index" in entry else str(entry["name"])


def _answers(entry: Entry, digest: str) -> bool:
    said = (entry["status"], entry.get("digest"), entry.get("running", digest))
    return said == ("running", digest, digest) and "refusing" not in entry


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {"message": text}
    return line if isinstance(line, dict) else {"message": text}


def _toml(values: Mapping[str, Any]) -> str:
    """Strings, numbers, booleans, lists of them, and tables of these one level deep."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    # What JSON writes for these is TOML as well.
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items() if value is not None]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += [
                "",
                f"[{name}]",
                *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in table.items()),
            ]
    return "\n".join(lines) + "\n"
