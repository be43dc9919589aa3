"""A plugin in Python on the agent's own session and socket, with a loop of its own.

What a test wants it to answer are plain functions: request bytes -> reply bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent.errors import GuestError
from edge_agent.loop import Loop
from edge_agent.nri import events
from edge_agent.nri.link import Link
from edge_agent.nri.session import Call, Incoming, Session, Updated

Handler = Callable[[bytes], bytes]


class NativePlugin:
    """A context manager: connected from entering to leaving, unless the runtime ends it.

    `handlers` are by method ("CreateContainer"); what has none is answered empty if it is
    in `exports`, which are the methods that the plugin pretends to have.
    """

    def __init__(
        self,
        path: Path,
        index: str,
        name: str,
        handlers: Mapping[str, Handler],
        exports: frozenset[str] | None = None,
        extra_events: int = 0,
    ) -> None:
        self.calls: list[Call] = []
        self.updated: list[Updated] = []
        self.closed = threading.Event()
        self.reason = ""
        self.handlers = handlers
        methods = exports if exports is not None else frozenset(handlers)
        self.session = Session(
            index,
            name,
            frozenset(events.EXPORTS[method] for method in methods),
            f"configuration of {name}",
            extra_events,
        )
        self._path = path
        self._loop = Loop()
        self._link: Link | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> NativePlugin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def update_containers(self, request: bytes) -> None:
        """Ask the runtime for updates, from any thread."""

        def send() -> None:
            assert self._link is not None
            self.session.update_containers(request)
            self._link.flush()

        self._loop.call_soon(send)

    def leave(self) -> None:
        """Close the connection; on the plugin's own thread, as a handler is called."""
        assert self._link is not None
        self._link.close("the plugin leaves")

    def called(self, event: str) -> list[Call]:
        return [call for call in self.calls if call.event == event]

    def _run(self) -> None:
        self._link = Link(self._loop, self._path, self.session, self._received, self._ended)
        self._loop.run()
        self._link.close("the plugin leaves")

    def _received(self, incoming: Incoming) -> None:
        if isinstance(incoming, Updated):
            self.updated.append(incoming)
            return
        if incoming.export:
            self.calls.append(incoming)
        methods = {export: method for method, export in events.EXPORTS.items()}
        handler = self.handlers.get(methods.get(incoming.export, ""))
        try:
            reply = b"" if handler is None else handler(incoming.payload)
            self.session.answer(incoming, reply)
        except GuestError as error:
            self.session.refuse(incoming, 2, str(error))

    def _ended(self, reason: str) -> None:
        self.reason = reason
        self.closed.set()
