"""Calls plugins by time and by pressure of the board (docs/adr/0063).

The loader's thread reads, the loop calls: one plugin after the other, and each only while no
runtime waits for an answer. A call that finds no such moment within WAIT_S is left out; the next
look brings another.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import pressure
from edge_agent.host import readings
from edge_agent.host.plugin import Plugin
from edge_agent.host.readings import Readings
from edge_agent.loop import Loop, Timer
from edge_agent.nri.events import ON_PRESSURE, ON_TIMER, OWN_EXPORTS
from edge_agent.pb import edge_pb2

LOOK_S = 1.0  # the shortest interval that can be configured
WAIT_S, RECHECK_S = 1.0, 0.02  # for a moment in which no runtime waits


class _Watched:
    """One plugin's times, monotonic."""

    def __init__(self, plugin: Plugin) -> None:
        settings, exports = plugin.release.settings, plugin.guest.exports
        now = time.monotonic()
        self.timer_s = settings.timer if OWN_EXPORTS[ON_TIMER] in exports else 0.0
        self.timer_due = now + self.timer_s
        self.thresholds: pressure.Thresholds | None = None
        if settings.pressure and OWN_EXPORTS[ON_PRESSURE] in exports:
            self.thresholds = pressure.read(settings.pressure)
        self.look_due = now
        self.exceeds = False

    @property
    def disk(self) -> str:
        limit = self.thresholds.disk if self.thresholds is not None else None
        return limit.path if limit is not None else ""

    def due(self, now: float) -> tuple[bool, bool]:
        """Whether the timer, and whether a look, is due; the next one is set."""
        timer = bool(self.timer_s) and now >= self.timer_due
        look = self.thresholds is not None and now >= self.look_due
        if timer:
            self.timer_due = now + self.timer_s
        if look and self.thresholds is not None:
            self.look_due = now + self.thresholds.every_s
        return timer, look


class _Notice(NamedTuple):
    """A call that is to be made; `until` is monotonic."""

    plugin: Plugin
    method: str
    request: bytes
    until: float


class BoardWatch:
    """`plugins` are those that answer now, `waiting` says whether a runtime waits for an answer,
    `later` runs what waits for the kernel. `system` is the root of /proc and /sys."""

    def __init__(
        self,
        loop: Loop,
        later: Callable[[Callable[[], None]], None],
        plugins: Callable[[], list[Plugin]],
        waiting: Callable[[], bool],
        system: Path = Path("/"),
    ) -> None:
        self._loop = loop
        self._later = later
        self._plugins = plugins
        self._waiting = waiting
        self._system = system
        self._watched: dict[Plugin, _Watched] = {}
        self._notices: deque[_Notice] = deque()
        self._reading = False
        self._timer: Timer | None = None  # of the next look; None: no plugin is set up for one

    def want(self, wanted: bool) -> None:
        """Whether any plugin is set up for it."""
        if wanted and self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._watched.clear()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        if self._reading or self._notices:
            return  # a slow disk, or a busy runtime
        present = self._plugins()
        self._watched = {
            each: self._watched.get(each) or _Watched(each) for each in present if each.serving
        }
        now = time.monotonic()
        due = {plugin: watched.due(now) for plugin, watched in self._watched.items()}
        due = {plugin: what for plugin, what in due.items() if any(what)}
        if due:
            disks = frozenset(filter(None, (self._watched[each].disk for each in due)))
            self._reading = True
            self._later(partial(self._read, disks, due))

    def _read(self, disks: frozenset[str], due: dict[Plugin, tuple[bool, bool]]) -> None:
        """On the loader's thread."""
        try:
            found = readings.read(self._system, disks)
        except BaseException:
            self._reading = False
            raise
        self._loop.call_soon(partial(self._have, found, due))

    def _have(self, found: Readings, due: dict[Plugin, tuple[bool, bool]]) -> None:
        self._reading = False
        until = time.monotonic() + WAIT_S
        for plugin, (timer, look) in due.items():
            watched = self._watched.get(plugin)
            if watched is None:
                continue
            board = readings.board(found, watched.disk)
            if timer:
                told = edge_pb2.OnTimerRequest(interval_ms=int(watched.timer_s * 1000), board=board)
                self._add(plugin, ON_TIMER, told.SerializeToString(), until)
            thresholds = watched.thresholds
            if look and thresholds is not None:
                plugin.unread = readings.unread(thresholds, found)
                over = readings.exceeded(thresholds, found)
                if over or watched.exceeds:
                    watched.exceeds = bool(over)
                    told_ = edge_pb2.OnPressureRequest(
                        exceeded=[edge_pb2.Exceeded(**each._asdict()) for each in over],
                        board=board,
                    )
                    self._add(plugin, ON_PRESSURE, told_.SerializeToString(), until)
        self._next()

    def _add(self, plugin: Plugin, method: str, request: bytes, until: float) -> None:
        self._notices.append(_Notice(plugin, method, request, until))

    def _next(self) -> None:
        while self._notices and time.monotonic() > self._notices[0].until:
            late = self._notices.popleft()
            if late.method == ON_PRESSURE and late.plugin in self._watched:
                self._watched[late.plugin].exceeds = True  # to be told, also if it is over by then
        if not self._notices:
            return
        if self._waiting():
            self._loop.call_later(RECHECK_S, self._next)
            return
        notice = self._notices.popleft()
        # First: whatever a call does, the next one comes, and requests come before it.
        self._loop.call_later(0.0, self._next)
        notice.plugin.notice(notice.method, notice.request)
