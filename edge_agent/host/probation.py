"""Whether a new release is kept: the rule, and the trials that are under way.

A release on probation is tried at all runtimes at once, and judged once. Its time runs while it
answers at one of them at least. It is kept after `seconds` of that, or after `events` answers
once a tenth of the time has passed: a board where little happens comes to an end too, and a
burst of events alone proves nothing about the minutes after it. It is rejected when it failed
more often than allowed, before or after it took over.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from edge_agent.loop import Loop, Timer
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Probation, Release

EARLIEST_SHARE = 0.1  # of the time, before which no number of events is enough
MAX_REASON_CHARS = 500  # what a guest says is in it


class Verdict(NamedTuple):
    """The end of a trial."""

    kept: bool
    reason: str


class Trial:
    """One release under its terms. Pure: the caller has the clock, in monotonic seconds.

    `changed` is called when `verdict` or `remaining_s` may have changed.
    """

    def __init__(self, terms: Probation, changed: Callable[[], None]) -> None:
        self.verdict: Verdict | None = None
        self.events = 0
        self.failures = 0
        self._terms = terms
        self._changed = changed
        self._places: set[object] = set()  # where it answers now
        self._served_s = 0.0
        self._counted_to = 0.0

    @property
    def open(self) -> bool:
        """Not decided yet."""
        return self.verdict is None

    @property
    def kept(self) -> bool:
        """Decided, for it."""
        return self.verdict is not None and self.verdict.kept

    def serves(self, place: object, now: float) -> None:
        """The release answers there from now on."""
        self._count(now)
        self._places.add(place)
        self._changed()

    def rests(self, place: object, now: float) -> None:
        """The release no longer answers there."""
        self._count(now)
        self._places.discard(place)
        self._changed()

    def answered(self) -> None:
        """The release answered an event without a failure."""
        self.events += 1
        if self.events == self._terms.events:
            self._changed()

    def failed(self, reason: str, *, final: bool = False) -> None:
        """The release failed; `final`: it can never succeed, however many failures are allowed."""
        self.failures += 1
        if self.open and (final or self.failures > self._terms.allowed_failures):
            count = f"{self.failures} failures, the last: " * (self.failures > 1)
            self.verdict = Verdict(False, f"{count}{reason}"[:MAX_REASON_CHARS])
            self._changed()

    def look(self, now: float) -> None:
        """Keep it, if it has served for long enough."""
        self._count(now)
        if self.open and self._places and self._served_s >= self._wanted_s:
            self.verdict = Verdict(True, f"{self.events} events in {self._served_s:.0f} s")

    @property
    def remaining_s(self) -> float | None:
        """How long until `look` keeps it, as of the last look; None: it is judged, or rests."""
        if not self.open or not self._places:
            return None
        return max(0.0, self._wanted_s - self._served_s)

    @property
    def _wanted_s(self) -> float:
        enough = 0 < self._terms.events <= self.events
        return self._terms.seconds * (EARLIEST_SHARE if enough else 1.0)

    def _count(self, now: float) -> None:
        if self._places:
            self._served_s += max(0.0, now - self._counted_to)
        self._counted_to = now


class Trials:
    """The trial of each release on probation. `verdict(identity, digest, kept, reason)` is called
    once for each, on the loop, never from within another call."""

    def __init__(self, loop: Loop, verdict: Callable[[PluginId, Digest, bool, str], None]) -> None:
        self._loop = loop
        self._verdict = verdict
        self._watched: dict[PluginId, _Watched] = {}

    def of(self, release: Release) -> Trial | None:
        """The release's trial, which begins unless there is one; None: it is not on probation."""
        watched = self._watched.get(release.identity)
        if watched is not None and release.probation and release.same_guest(watched.release):
            return watched.trial
        self.forget(release.identity)
        if release.probation is None:
            return None
        watched = self._watched[release.identity] = _Watched(
            self._loop, release, release.probation, self._verdict
        )
        return watched.trial

    def forget(self, identity: PluginId) -> None:
        """Another release is wanted, or none: what is under way is not judged any more."""
        watched = self._watched.pop(identity, None)
        if watched is not None:
            watched.close()

    def close(self) -> None:
        """Judge nothing any more."""
        for identity in list(self._watched):
            self.forget(identity)


class _Watched:
    """A trial with its clock."""

    def __init__(
        self,
        loop: Loop,
        release: Release,
        terms: Probation,
        verdict: Callable[[PluginId, Digest, bool, str], None],
    ) -> None:
        self.release = release
        self.trial = Trial(terms, self._look)
        self._loop = loop
        self._verdict = verdict
        self._timer: Timer | None = None
        self._decided = False
        self._closed = False

    def close(self) -> None:
        self._decided = self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, verdict: Verdict) -> None:
        if not self._closed:  # meanwhile, by another release
            self._verdict(self.release.identity, self.release.digest, *verdict)

    def _look(self) -> None:
        if self._decided:
            return
        if self._timer is not None:
            self._timer.cancel()
        trial = self.trial
        trial.look(time.monotonic())
        if trial.verdict is not None:
            self._decided = True
            self._loop.call_soon(partial(self._tell, trial.verdict))
        elif trial.remaining_s is not None:
            self._timer = self._loop.call_later(trial.remaining_s, self._look)
