"""The sessions of one slot with its runtime: the incumbent, its successor, those being drained, and
a placeholder's.

Here are the steps by which one session takes the place of another; edge_agent.host.slot_state
decides which step is next, and edge_agent.host.slot reports to it what happened.
"""

from collections.abc import Callable
from pathlib import Path

from edge_agent.host.creations import Creations
from edge_agent.host.handover import Draining, Handover
from edge_agent.host.loader import Prepared
from edge_agent.host.placeholder import PlaceholderSlot
from edge_agent.host.plugin import Owner, Plugin, Role
from edge_agent.loop import Loop, Timer
from edge_agent.nri.events import OLD_EVENTS
from edge_agent.nri.link import SocketFile, find_socket, listener_pid

START_TIMEOUT_S = 30.0  # from connecting to synchronised: the runtime's own limits are 5 + 2 + 2


class SlotSessions:
    """All methods belong to the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        socket: Path,
        creations: Creations,
        owner: Owner,
        placeholder: PlaceholderSlot,
    ) -> None:
        self.incumbent: Plugin | None = None  # answers
        self.successor: Plugin | None = None  # connected, and not the incumbent yet
        self.ready: Prepared | None = None  # a guest that waits to be registered
        self.draining = Draining(loop)
        self.placeholder = placeholder
        self._loop = loop
        self._socket = socket
        self._creations = creations
        self._owner = owner
        self._known_events: int | None = None  # of the runtime; None: it says them, or its version
        self._handover: Handover | None = None
        self._start_timeout: Timer | None = None

    def __bool__(self) -> bool:
        """Whether any session is left, also one that waits to close."""
        return bool(self.plugins or self.draining or self.placeholder)

    @property
    def plugins(self) -> list[Plugin]:
        """The incumbent and the successor, as far as there are."""
        return [each for each in (self.incumbent, self.successor) if each is not None]

    @property
    def handing_over(self) -> bool:
        """Whether incumbent and successor stand side by side."""
        return self._handover is not None

    # --- steps of a successor

    def connect(self, too_slow: Callable[[], None]) -> None:
        """Register the guest that is ready; `too_slow` is called unless the runtime synchronises
        it in time. OSError: nothing listens; the guest stays ready."""
        prepared = self._taken_ready()
        try:
            plugin = Plugin(
                self._loop,
                self._socket,
                prepared,
                self._owner,
                self._creations,
                self._known_events,
            )
        except OSError:
            self.ready = prepared  # it has not begun: the next attempt takes it
            raise
        self.successor = plugin
        self._start_timeout = self._loop.call_later(START_TIMEOUT_S, too_slow)

    def started(self) -> None:
        """The successor is synchronised."""
        self._cancel_timeout()

    def begin_handover(self, switch: Callable[[], None]) -> None:
        """Have `switch` called at the border between two events at which the successor may
        answer."""
        assert self.incumbent is not None
        assert self.successor is not None
        self._handover = Handover(self._loop, self.incumbent, self.successor, switch)

    def take_over(self) -> tuple[Plugin | None, Plugin]:
        """Let the successor answer, and drain the incumbent; (that one, the new incumbent)."""
        old, new = self.incumbent, self.take_successor()
        self.incumbent = new
        new.role = Role.ANSWER
        if old is not None:
            self.draining.drain(old)
        self.placeholder.relieve(new)
        return old, new

    # --- the end of one

    def take_successor(self) -> Plugin:
        """The successor, which has no place here any more."""
        successor, self.successor = self.successor, None
        assert successor is not None
        if self._handover is not None:
            self._handover.cancel()
            self._handover = None
        self._cancel_timeout()
        return successor

    def drain_successor(self) -> None:
        """End the successor's session so that no container notices."""
        self.draining.drain(self.take_successor())

    def drain_incumbent(self) -> None:
        """End the incumbent's session so that no container notices."""
        incumbent, self.incumbent = self.incumbent, None
        assert incumbent is not None
        self.draining.drain(incumbent)

    def drop_ready(self) -> None:
        """Close the guest that waited to be registered."""
        self._taken_ready().close()

    def finish(self) -> bool:
        """The agent ends: take no further event, and answer one that has come. Whether one had."""
        return sum(plugin.finish() for plugin in self.plugins) > 0  # both of them

    def close_waiting(self, reason: str) -> None:
        """Close at once what waits to close, and the placeholder."""
        self.placeholder.close(reason)
        self.draining.close(reason)

    # --- the runtime at the other end

    @property
    def peer_pids(self) -> set[int]:
        """The processes at the other end of all but those that are being drained."""
        pids = {plugin.peer_pid for plugin in self.plugins}
        placeholder = self.placeholder.peer_pid
        return pids if placeholder is None else pids | {placeholder}

    def left_behind(self, found: SocketFile) -> bool:
        """Whether a session belongs to a socket other than this one."""
        files = {plugin.socket_file for plugin in self.plugins} | {self.placeholder.socket_file}
        return bool(files - {None, found})

    def runtime_listens(self, plugin: Plugin) -> bool:
        """Whether the runtime that this session was with is still there."""
        try:
            listener = listener_pid(self._socket)
        except OSError:
            return False
        found = find_socket(self._socket)
        return listener == plugin.peer_pid and plugin.socket_file in (None, found)

    def turned_away(self, plugin: Plugin) -> None:
        """The runtime closed a session right after it was configured: a runtime that knows fewer
        events than was inferred. The next attempt asks for the oldest set only.

        A runtime that says its generation knows it; one that merely ends must not cost a validator
        its validations.
        """
        runtime = plugin.session.runtime
        if runtime and not runtime.nri_version and plugin.session.subscribed & ~OLD_EVENTS:
            self._known_events = OLD_EVENTS

    def forget_runtime(self) -> None:
        """Another runtime may have come to this socket."""
        self._known_events = None

    def _taken_ready(self) -> Prepared:
        ready, self.ready = self.ready, None
        assert ready is not None
        return ready

    def _cancel_timeout(self) -> None:
        if self._start_timeout is not None:
            self._start_timeout.cancel()
