"""A runtime that makes specifications as containerd does, on an NRI of choice (Go).

What it does is told in ``tests/peers/spec-runtime/README.md``.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.gobuild import PeerError, require_go, spec_runtime_binary
from tests.support.lineprocess import LineProcess

ANSWER_TIMEOUT_S = 120.0
Spec = dict[str, Any]


class SpecRuntime:
    """A context manager. ``newer``: NRI 0.8.0 instead of 0.6.1; it is built when it is needed."""

    def __init__(
        self, socket: Path, *, version: str, name: str = "containerd", newer: bool = False
    ) -> None:
        require_go()
        self._start = {"socket": str(socket), "name": name, "version": version}
        self._lines = LineProcess([str(spec_runtime_binary(newer=newer))])
        self._next = 0

    def __enter__(self) -> Self:
        try:
            self._ask("start", **self._start)
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

    def create(self, container: str, spec: Spec | None = None) -> Spec:
        """The specification that the container gets; AssertionError: its creation failed."""
        made = self._ask("create", container=container, spec=spec or {})
        assert not made["error"], made["error"]
        found: Spec = made["spec"]
        return found

    def refused(self, container: str) -> str:
        """Why the creation fails, or ""."""
        error: str = self._ask("create", container=container)["error"]
        return error

    def _ask(self, operation: str, **fields: Any) -> Any:
        self._next += 1
        self._lines.send({"id": self._next, "op": operation, **fields})
        answer = self._lines.receive(ANSWER_TIMEOUT_S)
        if "fault" in answer:
            raise PeerError(f"{answer['fault']}\n{self._lines.log()}")
        return answer.get("result")
