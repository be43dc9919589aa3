"""The NRI service of a simulated runtime: its socket, its plugins, events to all of them.

It follows containerd/nri's pkg/adaptation in what a plugin can notice: one plugin is
accepted at a time, registers, is configured and synchronised before the next; events go
to the plugins in the order of their indices under one lock; a late or closed plugin is
dropped and the event goes on without it; an error status ends the event.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from google.protobuf.message import DecodeError

from edge_agent.pb import nri_pb2
from edge_agent.sim.plugin_connection import (
    EVENTS,
    GENERATIONS,
    UNKNOWN,
    Answer,
    Generation,
    Outcome,
    Plugin,
    PluginConnection,
    PluginGone,
    Reply,
    ask,
)

REQUEST_TIMEOUT_S = 2.0  # upstream's default
REGISTRATION_TIMEOUT_S = 5.0  # the same


class NriService:
    """A context manager: listens on `path` from `start` to `stop`.

    `refuse(index, name)` judges a registration: a text refuses it. A new plugin is synchronised
    with `pods` and `containers`, in parts of `split_sync` each.
    """

    def __init__(
        self,
        path: Path | str,
        generation: str = "new",
        name: str = "sim",
        version: str = "v1.0.0",
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        refuse: Callable[[str, str], str] = lambda index, name: "",  # noqa: ARG005
        split_sync: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.generation = GENERATIONS[generation]
        self.name = name
        self.version = version
        self.request_timeout_s = request_timeout_s
        self.refuse = refuse
        self.split_sync = split_sync
        self.pods: dict[str, nri_pb2.PodSandbox] = {}
        self.containers: dict[str, nri_pb2.Container] = {}
        self.dropped: list[str] = []  # "10-name: why", the oldest first
        self.unsolicited: list[nri_pb2.UpdateContainersRequest] = []
        self._lock = threading.RLock()  # held for one event at a time, as upstream's
        self._changed = threading.Condition(self._lock)
        self._plugins: list[Plugin] = []
        self._connections: list[PluginConnection] = []
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    def update(self, updates: Iterable[nri_pb2.ContainerUpdate]) -> list[str]:
        """Apply updates; returns the ids of containers that are not there: here there are none."""
        return [update.container_id for update in updates]

    # --- life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; a socket file that is there already goes."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
            listener.listen()
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._accepting = threading.Thread(
            target=self._accept, args=(listener,), name="sim-accept", daemon=True
        )
        self._accepting.start()

    def stop(self) -> None:
        """Close the socket and every connection."""
        listener, self._listener = self._listener, None
        accepting, self._accepting = self._accepting, None
        if listener is None or accepting is None:
            return
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        for connection in list(self._connections):
            connection.close("the runtime stops")
        accepting.join()
        for connection in list(self._connections):
            connection.close("the runtime stops")
            connection.join()
        listener.close()

    def restart(self) -> None:
        """As when a runtime's service is restarted: plugins have to come again."""
        self.stop()
        self.start()

    # --- plugins

    def plugins(self) -> list[Plugin]:
        """The plugins that are served, in their order."""
        with self._lock:
            return list(self._plugins)

    def plugin(self, name: str) -> Plugin:
        """The plugin of that name. LookupError."""
        for plugin in self.plugins():
            if plugin.name == name:
                return plugin
        raise LookupError(f"no plugin {name}")

    def wait_for_plugins(self, count: int, timeout_s: float = 30.0) -> list[Plugin]:
        """Return once exactly `count` plugins are served. TimeoutError."""
        return self.wait_until(lambda found: len(found) == count, f"{count} plugins", timeout_s)

    def wait_until(
        self, condition: Callable[[list[Plugin]], bool], what: str, timeout_s: float = 30.0
    ) -> list[Plugin]:
        """Return once `condition` holds for the plugins served. TimeoutError, with `what`."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._plugins), timeout_s):
                served = ", ".join(plugin.identity for plugin in self._plugins) or "none"
                dropped = "; ".join(self.dropped[-5:]) or "none"
                raise TimeoutError(
                    f"waited {timeout_s:g} s for {what}; served: {served}; dropped: {dropped}"
                )
            return list(self._plugins)

    def send_raw(self, name: str, data: bytes) -> None:
        """Misbehave: send these very bytes to a plugin. PluginGone."""
        self.plugin(name).connection.send_raw(data)

    # --- events

    def event(self, method: str, **fields: Any) -> Outcome:
        """Any event to all plugins that want it; `fields` are those of its request."""
        request = getattr(nri_pb2, f"{method}Request")(**fields)
        outcome = Outcome(method, request, pod=request.pod)
        if "container" in fields:
            outcome.container.CopyFrom(request.container)
        with self._lock:
            for answer in self.ask_all(outcome, method, request):
                self.read_reply(outcome, answer, method)
        return outcome

    def ask_all(self, outcome: Outcome, method: str, request: Any) -> Iterator[Answer]:
        """Ask one plugin after the other, until an error is noted in `outcome`.

        The lock must be held. `request` may be changed between two plugins.
        """
        if EVENTS[method] > self.generation.last_event:
            return
        for plugin in [plugin for plugin in self._plugins if plugin.subscribed(method)]:
            answer = ask(plugin, self.generation, method, request, self.request_timeout_s)
            outcome.answers.append(answer)
            if answer.dropped:
                plugin.connection.close(answer.error)
                self._forget(plugin, answer.error)
            elif answer.error:
                outcome.error = answer.error  # the plugin's own words, as upstream's
            yield answer
            if outcome.error:
                return

    def read_reply(self, outcome: Outcome, answer: Answer, method: str) -> Any:
        """The decoded reply, None with an error; takes updates and evictions from it."""
        if answer.error or answer.method != method:
            return None
        try:
            reply = getattr(nri_pb2, f"{method}Response").FromString(answer.reply)
        except DecodeError:
            outcome.error = f"plugin {answer.plugin}: its reply is no {method}Response"
            return None
        outcome.updates += getattr(reply, "update", ())
        outcome.evictions += getattr(reply, "evict", ())
        return reply

    # --- plugins come and go

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return  # stopped
            self._admit(connected)

    def _admit(self, connected: socket.socket) -> None:
        """Registration, configuration, synchronisation: the next plugin waits meanwhile."""
        registered: list[nri_pb2.RegisterPluginRequest] = []
        arrived = threading.Event()

        def serve(method: str, payload: bytes) -> Reply:
            if method == "UpdateContainers":
                return self._unsolicited(payload)
            request = nri_pb2.RegisterPluginRequest.FromString(payload)
            refusal = _unfit(request) or self.refuse(request.plugin_idx, request.plugin_name)
            if refusal:
                return Reply(code=UNKNOWN, text=refusal)
            registered.append(request)
            arrived.set()
            return Reply()

        def gone(reason: str) -> None:
            arrived.set()
            # This is the connection's thread, for which an event may be waiting with the
            # lock in its hands: the lock is waited for on another one.
            threading.Thread(target=self._forget, args=(plugin, reason), daemon=True).start()

        plugin = Plugin(PluginConnection(connected, serve, gone))
        self._connections.append(plugin.connection)
        plugin.connection.start()
        arrived.wait(REGISTRATION_TIMEOUT_S)
        try:
            if not registered:
                raise PluginGone(plugin.connection.reason or "it did not register in time")
            request = registered[0]
            plugin.index, plugin.name = request.plugin_idx, request.plugin_name
            plugin.nri_version = request.NRI_version
            _configure(plugin, self.generation, self.name, self.version, self.request_timeout_s)
            with self._changed:
                _synchronise(plugin, self.sync_parts(), self.request_timeout_s)
                if plugin.connection.closed.is_set():
                    raise PluginGone(plugin.connection.reason)
                self._plugins.append(plugin)
                self._plugins.sort(key=lambda one: one.index)
                self._changed.notify_all()
        except (PluginGone, DecodeError) as error:
            plugin.connection.close(str(error))
            self._forget(plugin, str(error))

    def sync_parts(self) -> list[nri_pb2.SynchronizeRequest]:
        """What a new plugin is synchronised with; all but the last part have `more`."""
        pods, containers = list(self.pods.values()), list(self.containers.values())
        size = self.split_sync or max(len(pods), len(containers), 1)
        parts: list[nri_pb2.SynchronizeRequest] = []
        while pods or containers or not parts:
            parts.append(
                nri_pb2.SynchronizeRequest(
                    pods=pods[:size], containers=containers[:size], more=True
                )
            )
            del pods[:size], containers[:size]
        parts[-1].more = False
        return parts

    def _unsolicited(self, payload: bytes) -> Reply:
        request = nri_pb2.UpdateContainersRequest.FromString(payload)
        with self._lock:
            self.unsolicited.append(request)
            response = nri_pb2.UpdateContainersResponse()
            for missing in self.update(request.update):
                response.failed.add(container_id=missing)
            self._changed.notify_all()
        return Reply(response.SerializeToString())

    def _forget(self, plugin: Plugin, reason: str) -> None:
        with self._changed:
            if plugin.connection in self._connections:
                self._connections.remove(plugin.connection)
                self.dropped.append(f"{plugin.identity}: {reason}")
            if plugin in self._plugins:
                self._plugins.remove(plugin)
            self._changed.notify_all()


# --- the steps of a plugin before its first event


def _unfit(request: nri_pb2.RegisterPluginRequest) -> str:
    """Why a plugin cannot register under such a name; empty: it can."""
    if not re.fullmatch(r"[0-9]{2}", request.plugin_idx):
        return f"invalid plugin index {request.plugin_idx!r}"
    if not re.fullmatch(r"[a-zA-Z0-9_.+-]+", request.plugin_name):
        return f"invalid plugin name {request.plugin_name!r}"
    return ""


def _configure(
    plugin: Plugin, generation: Generation, runtime: str, version: str, timeout_s: float
) -> None:
    """Learn what the plugin subscribes to. PluginGone: it answers badly."""
    request = nri_pb2.ConfigureRequest(
        runtime_name=runtime,
        runtime_version=version,
        registration_timeout=int(REGISTRATION_TIMEOUT_S * 1000),
        request_timeout=int(timeout_s * 1000),
        NRI_version=generation.nri_version,
    )
    reply = _call(plugin, "Configure", request, timeout_s)
    valid = (1 << generation.last_event) - 1
    events = nri_pb2.ConfigureResponse.FromString(reply.payload).events
    if events & ~valid:
        raise PluginGone(f"invalid plugin events: {events & ~valid:#x}")
    plugin.events = events or valid


def _synchronise(
    plugin: Plugin, parts: Sequence[nri_pb2.SynchronizeRequest], timeout_s: float
) -> None:
    """Tell the plugin what runs. PluginGone: it answers badly, or not to each part."""
    for part in parts:
        reply = _call(plugin, "Synchronize", part, timeout_s)
        response = nri_pb2.SynchronizeResponse.FromString(reply.payload)
        if part.more and (response.update or not response.more):
            raise PluginGone("it does not handle split synchronisation")
        plugin.synchronised = reply.payload


def _call(plugin: Plugin, method: str, request: Any, timeout_s: float) -> Reply:
    reply = plugin.connection.call(method, request.SerializeToString(), timeout_s)
    if reply.code:
        raise PluginGone(f"{method}: {reply.text or reply.code}")
    return reply
