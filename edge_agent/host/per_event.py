"""The instances of a one-shot plugin: each event has one of its own (docs/adr/0060).

Two places take turns: while the instance of one answers, the loader's thread makes the other's
anew and has it configured. Where events come faster than that, the loop does it, within the
event's time.

    fresh ──► in use ──► stale ──► made anew ──► fresh
                           └─ by whoever takes it first: the loader, or the loop for an event

A place is in one of these at a time, and whoever takes it out of a queue has it, so nobody waits
for a lock. The loader has one of the two at most: an event always finds the other.
"""

import logging
import time
from collections import deque

from edge_agent.errors import EdgeAgentError, GuestError, GuestFault
from edge_agent.host.crash_marker import LOADER, LOOP, NOBODY
from edge_agent.host.loader import Prepared
from edge_agent.nri.session import Call

log = logging.getLogger(__name__)


class Places:
    """Begins with the first place in use. Methods belong to the loop's thread."""

    def __init__(self, first: Prepared) -> None:
        assert first.spare is not None
        assert first.later is not None
        self._in_use: Prepared | None = first
        self._stale = deque([first.spare])
        first.spare = None  # each is closed by itself
        self._fresh: deque[Prepared] = deque()
        self._later = first.later
        self._start_s = first.release.settings.limits.start_ms / 1000
        self._configure: Call | None = None
        self._closed = False

    @property
    def memory_bytes(self) -> int:
        """Linear memory of the instances that are in use or fresh."""
        places = tuple(self._fresh)
        if self._in_use is not None:
            places += (self._in_use,)
        return sum(each.instance.memory_bytes for each in places)

    def configured(self, call: Call) -> None:
        """The first was configured so; each that follows will be."""
        self._configure = call
        self._later(self._refill)

    def used(self) -> None:
        """The event is over: its instance is not used again."""
        place, self._in_use = self._in_use, None
        assert place is not None
        place.services.reports.clear()
        place.services.updates.clear()
        self._stale.append(place)
        self._later(self._refill)

    def take(self, within_s: float) -> tuple[Prepared, float]:
        """A place with a fresh instance, for the next event; what is left of the time in seconds.

        GuestFault: there is none, and none could be made in that time."""
        until = time.monotonic() + within_s
        try:
            place = self._fresh.popleft()
        except IndexError:
            place = self._stale.popleft()
            self._in_use = place  # so that it is closed with the others where this fails
            self._remake(place, within_s, LOOP)
        self._in_use = place
        return place, until - time.monotonic()

    def close(self) -> None:
        """Close all. Harmless when repeated."""
        self._closed = True
        self._drain()
        if self._in_use is not None:
            self._in_use.close()

    def _drain(self) -> None:
        for queue in (self._fresh, self._stale):
            while queue:
                try:
                    queue.popleft().close()
                except IndexError:  # another thread was faster
                    break

    def _remake(self, place: Prepared, within_s: float, thread: int) -> None:
        """GuestFault. What the plugin says meanwhile it said when the first was configured."""
        until = time.monotonic() + within_s
        services, mark = place.services, place.mark
        services.muted = services.log.muted = True
        mark.memory[thread] = mark.index
        try:
            place.remake(within_s)
            if self._configure is not None:
                call = self._configure
                place.instance.call(call.export, call.payload, until - time.monotonic())
        except GuestError as error:
            raise GuestFault("start", f"its next instance was not configured: {error}") from error
        except GuestFault as fault:
            raise GuestFault(fault.kind, f"its next instance was not made: {fault}") from fault
        finally:
            mark.memory[thread] = NOBODY
            services.muted = services.log.muted = False

    def _refill(self) -> None:
        """On the loader's thread."""
        try:
            place = self._stale.popleft()
        except IndexError:
            return  # the loop was faster
        made = self._stale  # of what failed the next event says why: it tries again
        try:
            if not self._closed:
                self._remake(place, self._start_s, LOADER)
                made = self._fresh
        except EdgeAgentError as error:
            identity = place.release.identity
            log.warning("%s: %s", identity, error, extra={"plugin": identity})
        finally:
            made.append(place)
            if self._closed:
                self._drain()
