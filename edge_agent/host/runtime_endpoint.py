"""One container runtime, known by its socket: whether it is there, and its slots.

A runtime that is absent is a state, not an error. One wait serves all plugins: the folder of the
socket is watched (edge_agent.pathwatch), and checked by a timer where that reports nothing. A
runtime that listens anew at the same path has another socket file; sessions with the one before
are closed, since nothing will ever arrive on them (docs/adr/0030). `Reconnect`, which is pure,
says when to try again to reach a runtime that is away.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent.config import NriConfig
from edge_agent.host.slot import Assignment, PluginSlot
from edge_agent.loop import Loop
from edge_agent.nri.link import SocketFile, find_socket, listener_pid
from edge_agent.pathwatch import PathWatch
from edge_agent.store.release import PluginId

FIRST_S = 0.002
"""After a socket has appeared: a runtime binds it a moment before it listens."""
EARLY_FOR_S = 10.0
"""A restart is over by then; whatever takes longer is an upgrade, or the runtime's end."""
EARLY_MAX_S, LATE_MAX_S = 0.25, 2.0
"""An attempt costs one stat and one refused connect: no reason to wait longer, ever."""


class Reconnect:
    """One wait for each runtime, however many plugins wait for it.

    `early_s` is the longest wait in the first EARLY_FOR_S, `late_s` afterwards; neither counts
    above its maximum. There is no jitter: one process waits for one socket of its own machine.
    """

    def __init__(self, early_s: float, late_s: float) -> None:
        self._early_s = min(early_s, EARLY_MAX_S)
        self._late_s = min(late_s, LATE_MAX_S)
        self._next_s = FIRST_S
        self._since: float | None = None  # the first failure

    def failed(self, now: float) -> float:
        """An attempt failed: seconds until the next one."""
        if self._since is None:
            self._since = now
        limit = self._early_s if now - self._since < EARLY_FOR_S else self._late_s
        wait = min(self._next_s, limit)
        self._next_s = min(self._next_s * 2, self._late_s)
        return wait

    def reset(self) -> None:
        """The runtime was reached, or its socket is another: begin with the shortest wait."""
        self._since, self._next_s = None, FIRST_S


log = logging.getLogger(__name__)

CHECK_S = 2.0  # between two looks at the socket of a runtime that is there: one stat each

MakeSlot = Callable[["RuntimeEndpoint", PluginId], PluginSlot]
"""(the runtime, NN-name) -> an empty slot."""


class RuntimeEndpoint:
    """Slots of all plugins at one socket."""

    def __init__(self, loop: Loop, socket: Path, config: NriConfig, make_slot: MakeSlot) -> None:
        self.socket = socket
        self.slots: dict[PluginId, PluginSlot] = {}
        self.reason = ""
        self._loop = loop
        self._make_slot = make_slot
        self._present = False
        self._file: SocketFile | None = None  # as of the last look
        self._listener: tuple[SocketFile, int] | None = None  # a socket that took another's place
        self._reconnect = Reconnect(config.reconnect_min_s, config.reconnect_max_s)
        self._wait_s = CHECK_S
        self._watch = PathWatch(loop, socket, self._look_soon)
        self._planned = loop.call_later(0.0, self._look)
        self._look()

    def assign(self, wanted: Mapping[PluginId, Assignment]) -> None:
        """These plugins, and no others, from now on."""
        for identity in self.slots.keys() - wanted.keys():
            slot = self.slots[identity]
            slot.remove()
            if slot.vacant:
                del self.slots[identity]
        for identity, assignment in wanted.items():
            slot = self.slots.get(identity) or self._add(identity)
            slot.assign(assignment)

    def finish(self) -> bool:
        """Take no further event, and answer those that have come. Whether any had."""
        return sum(slot.sessions.finish() for slot in self.slots.values()) > 0  # all of them

    def close(self) -> None:
        """Close every session."""
        self._watch.close()
        for slot in self.slots.values():
            slot.close()
        self._planned.cancel()

    @property
    def state(self) -> str:
        """connected, present (no plugin is synchronised) or waiting."""
        if any(slot.state.serving for slot in self.slots.values()):
            return "connected"
        return "present" if self._present else "waiting"

    @property
    def description(self) -> tuple[str, str, str] | None:
        """(name, version, NRI version) as the runtime told a plugin, if it did."""
        for slot in self.slots.values():
            info = slot.plugin.session.runtime if slot.plugin is not None else slot.runtime
            if info is not None:
                return info.name, info.version, info.nri_version
        return None

    def _add(self, identity: PluginId) -> PluginSlot:
        slot = self._make_slot(self, identity)
        self.slots[identity] = slot
        if self._present:
            slot.runtime_present()
        return slot

    # --- what its slots report

    def reached(self) -> None:
        """A slot has connected."""
        self._reconnect.reset()

    def lost(self) -> None:
        """A session of a slot has ended."""
        self._look_soon()

    def unreachable(self, reason: str) -> None:
        """A slot could not connect."""
        self._absent(reason)
        self._look_later()

    # --- looking, at changes and by the timer

    def _look(self, due: bool = False) -> None:
        """Compare the socket at the path with what the sessions are connected to."""
        self._planned.cancel()
        found, before = find_socket(self.socket), self._file
        self._file = found
        if found is not None and found != before:
            self._reconnect.reset()
        if found is None:
            self._missing(due and before is None)
        elif any(slot.sessions.left_behind(found) for slot in self.slots.values()):
            self._replaced(found, due)
        elif not self._present or found != before:
            self._reach()
        else:
            self.reason = ""
        if not self._planned.pending:  # a slot that was refused has seen to it
            self._look_later()

    def _look_soon(self) -> None:
        """At the end of this turn: sessions that ended before are closed by then."""
        self._planned.cancel()
        self._planned = self._loop.call_later(0.0, self._look)

    def _look_later(self) -> None:
        self._planned.cancel()
        wait_s = CHECK_S if self._present else self._wait_s
        self._planned = self._loop.call_later(wait_s, self._look_when_due)

    def _look_when_due(self) -> None:
        self._look(due=True)

    def _missing(self, lasts: bool) -> None:
        """There is no socket. Sessions stay: only their runtime can end them, and the
        file may have been removed while it runs."""
        if not any(slot.sessions.peer_pids for slot in self.slots.values()):
            self._absent("no socket there")
        elif lasts and not self.reason:
            self.reason = "its socket is gone: whether it still calls these plugins is not known"
            log.warning("%s: %s", self.socket, self.reason)

    def _replaced(self, found: SocketFile, lasts: bool) -> None:
        """There are sessions, and the path has another socket."""
        pids = {pid for slot in self.slots.values() for pid in slot.sessions.peer_pids}
        try:
            listener = self._listener_of(found)
        except OSError:
            return  # not yet: the next look comes
        if listener not in pids:
            # Either the runtime before is about to end, or two share a path: then the
            # sessions that stay serve its containers as they did.
            if lasts and not self.reason:
                self.reason = (
                    f"the socket belongs to another process now ({listener}); its containers meet "
                    f"no plugin while that of before ({min(pids)}) runs: give each its own socket"
                )
                log.error("%s: %s", self.socket, self.reason)
            return
        log.warning(
            "%s: the runtime has made a new socket and left the sessions of the one before open,"
            " as Docker Engine does when it is reloaded: connecting anew",
            self.socket,
        )
        for slot in self.slots.values():
            slot.leave_behind(found)
        self._reach()

    def _listener_of(self, found: SocketFile) -> int:
        """Asked once for each socket: the runtime logs such a question as an error."""
        if self._listener is None or self._listener[0] != found:
            self._listener = found, listener_pid(self.socket)
        return self._listener[1]

    def _reach(self) -> None:
        """All slots connect, one after the other: the runtime takes them in this order."""
        self._present = True
        self.reason = ""
        for slot in sorted(self.slots.values(), key=_precedence):
            slot.runtime_present()
            if not self._present:
                return  # refused

    def _absent(self, reason: str) -> None:
        if reason != self.reason:
            log.info("%s: %s; waiting for the runtime", self.socket, reason)
        self._present = False
        self.reason = reason
        self._wait_s = self._reconnect.failed(time.monotonic())
        for slot in list(self.slots.values()):
            slot.runtime_absent()


def _precedence(slot: PluginSlot) -> tuple[bool, bool, str]:
    """Which slot connects first: a plugin that is ready, one that must not be missed, one that the
    runtime calls first. A runtime takes one plugin after the other, and creates containers in
    between."""
    release = slot.release
    optional = release is None or not release.settings.must_not_be_missed
    return not slot.state.ready, optional, release.identity if release is not None else ""
