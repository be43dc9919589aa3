"""Refusing containers while a plugin that must not be missed is missing at one runtime.

The state machine says when a plugin with `failure_policy = "Fail"` counts as missing
(edge_agent.host.slot_state.absence). Here are the time of grace before that, and the placeholder
that refuses creations (edge_agent.host.placeholder).
"""

from collections.abc import Callable

from edge_agent.host.placeholder import PlaceholderSlot
from edge_agent.host.slot_state import Absence, Grace, SlotState, absence
from edge_agent.loop import Loop, Timer
from edge_agent.store.release import Release

GRACE_S = 0.5  # for a plugin to be registered, where nothing is known to stand in its way


class AbsenceGuard:
    """`grace_over` is called on the loop when the time of grace is over; `update` must follow."""

    def __init__(
        self, loop: Loop, placeholder: PlaceholderSlot, grace_over: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._placeholder = placeholder
        self._grace_over = grace_over
        self._grace: Timer | None = None

    def update(self, release: Release | None, state: SlotState, reason: Callable[[], str]) -> None:
        """Refuse creations, or refuse them no longer, as the state of the slot demands.

        `reason` says why the plugin does not run; it is called only where that is reported.
        """
        todo = Absence.NONE
        if release is not None and release.settings.failure_policy == "Fail":
            refusing, refused = self._placeholder.refusing, self._placeholder.wanted
            todo = absence(state, self._grace_now, refusing=refusing, refused=refused)
        if todo is Absence.NONE:
            if not self._placeholder.relieving:
                self._placeholder.drop()
        elif todo is Absence.BEGIN_GRACE:
            self._grace = self._loop.call_later(GRACE_S, self._grace_over)
        elif todo is Absence.REFUSED:
            assert release is not None
            self._placeholder.want(release, reason())

    def end_grace(self) -> None:
        """The plugin is registered, or what is known of its absence is out of date."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def runtime_gone(self) -> None:
        """The runtime cannot be reached: there is nothing to refuse."""
        self.end_grace()
        if not self._placeholder.refusing:  # while its session lives, the runtime does too
            self._placeholder.drop()

    @property
    def _grace_now(self) -> Grace:
        if self._grace is None:
            return Grace.NOT_BEGUN
        return Grace.RUNNING if self._grace.pending else Grace.OVER
