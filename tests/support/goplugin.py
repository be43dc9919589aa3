"""A native plugin in Go, built when it is needed; what it does is told in tests/peers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.gobuild import native_plugin_binary
from tests.support.lineprocess import LineProcess
from tests.support.wait import TIMEOUT_S


class NativePlugin:
    """A native NRI plugin on upstream's stub; see its README.md for the ``arguments``."""

    def __init__(
        self,
        socket: Path,
        *arguments: str,
        idx: str = "10",
        name: str = "native",
        annotations: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        memory_limit: int | None = None,
        events: Sequence[str] = (),
        trace: bool = True,
    ) -> None:
        self.name = f"{idx}-{name}"
        command = [str(native_plugin_binary()), "--socket", str(socket), "--commands"]
        command += ["--idx", idx, "--name", name]
        for key, value in (annotations or {}).items():
            command += ["--annotation", f"{key}={value}"]
        for key, value in (env or {}).items():
            command += ["--env", f"{key}={value}"]
        if memory_limit is not None:
            command += ["--memory-limit", str(memory_limit)]
        if events:
            command += ["--events", ",".join(events)]
        if trace:
            command += ["--trace"]
        self._trace = trace
        self._lines = LineProcess([*command, *arguments])
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        if self._trace:
            try:
                self.wait_for("Synchronize")
            except BaseException:
                self._lines.end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.end()

    @property
    def pid(self) -> int:
        return self._lines.pid

    def log(self) -> str:
        return self._lines.log()

    def wait_for(self, event: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The next event of this kind; all that come before it are kept in ``events``."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._lines.receive(deadline - time.monotonic())
            self.events.append(line)
            if line["event"] == event:
                return line

    def update(self, container: str, memory_limit: int) -> dict[str, Any]:
        """Ask the runtime on its own to change a container; {"failed": number, "error": text}."""
        self._lines.send({"op": "update", "container": container, "memory_limit": memory_limit})
        return self.wait_for("updated")

    def drop(self) -> None:
        """Close the connection to the runtime, now."""
        self._lines.send({"op": "drop"})

    def stop(self) -> int:
        self._lines.close_input()
        return self._lines.wait(TIMEOUT_S)

    def kill(self) -> None:
        self._lines.kill()
