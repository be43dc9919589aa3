"""One container runtime, known by its socket: whether it is there, and its seats.

A runtime that is absent is a state, not an error: its socket is looked for, for ever,
with a jittered wait that doubles up to a bound and starts over once it answers.
"""

import logging
import random
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent.config import NriConfig
from edge_agent.host.seat import Assignment, Seat
from edge_agent.loop import Loop, Timer

log = logging.getLogger(__name__)

# A socket that is not there costs one stat to look for: no need to wait long.
ABSENT_MAX_S = 2.0

MakeSeat = Callable[[Path, str, Callable[[str], None]], Seat]
"""(socket, NN-name, called when the runtime cannot be reached) -> an empty seat."""


class Runtime:
    """Seats of all plugins at one socket."""

    def __init__(self, loop: Loop, socket: Path, config: NriConfig, make_seat: MakeSeat) -> None:
        self.socket = socket
        self.seats: dict[str, Seat] = {}
        self.reason = ""
        self._loop = loop
        self._config = config
        self._make_seat = make_seat
        self._present = False
        self._wait_s = config.reconnect_min_s
        self._probe: Timer | None = None
        self._look()

    def assign(self, wanted: Mapping[str, Assignment]) -> None:
        """These plugins, and no others, from now on."""
        for identity in self.seats.keys() - wanted.keys():
            seat = self.seats[identity]
            seat.vacate()
            if seat.vacant:
                del self.seats[identity]
        for identity, assignment in wanted.items():
            seat = self.seats.get(identity) or self._add(identity)
            seat.assign(assignment)

    def close(self) -> None:
        """Close every session."""
        if self._probe is not None:
            self._probe.cancel()
        for seat in self.seats.values():
            seat.close()

    @property
    def state(self) -> str:
        """connected, present (nobody is synchronised) or waiting."""
        if any(seat.serving for seat in self.seats.values()):
            return "connected"
        return "present" if self._present else "waiting"

    @property
    def description(self) -> tuple[str, str, str] | None:
        """(name, version, NRI version) as it told a plugin, if it did."""
        for seat in self.seats.values():
            info = seat.plugin.session.runtime if seat.plugin is not None else None
            if info is not None:
                return info.name, info.version, info.nri_version
        return None

    def _add(self, identity: str) -> Seat:
        seat = self._make_seat(self.socket, identity, self._lost)
        self.seats[identity] = seat
        if self._present:
            seat.runtime_present()
        return seat

    def _lost(self, reason: str) -> None:
        """A seat could not reach it, or its session ended."""
        if self._present:
            log.info("%s: %s", self.socket, reason)
        self._present = False
        self.reason = reason
        for seat in self.seats.values():
            seat.runtime_absent()
        self._look_later()

    def _look(self) -> None:
        if not _is_socket(self.socket):
            if not self.reason:
                self.reason = "no socket there"
                log.info("%s: waiting for the runtime's socket", self.socket)
            self._look_later(ABSENT_MAX_S)
            return
        self._present = True
        self.reason = ""
        for seat in list(self.seats.values()):
            seat.runtime_present()
            if not self._present:
                return  # refused: `_lost` has planned the next look
        self._wait_s = self._config.reconnect_min_s

    def _look_later(self, at_most_s: float | None = None) -> None:
        if self._probe is not None:
            self._probe.cancel()
        wait = min(self._wait_s, at_most_s or self._wait_s) * random.uniform(0.75, 1.25)
        self._wait_s = min(self._wait_s * 2, self._config.reconnect_max_s)
        self._probe = self._loop.call_later(wait, self._look)


def _is_socket(path: Path) -> bool:
    # A stat of a socket's folder is answered from memory: runtimes keep it on a tmpfs.
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
