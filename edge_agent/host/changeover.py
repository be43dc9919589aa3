"""A replacement under way: from the successor's synchronisation until it takes over.

Counts and times what both sessions are sent (edge_agent.host.handover decides) and calls
`take_over` once, at a border between two events.
"""

import time
from collections.abc import Callable

from edge_agent.host.handover import SETTLE_S, Handover
from edge_agent.host.plugin import Plugin
from edge_agent.host.subject import subject
from edge_agent.loop import Loop
from edge_agent.nri import events
from edge_agent.nri.session import Call

RECHECK_S = 0.25  # while a handover waits for a quiet moment


class Changeover:
    """`cancel` ends it without a change."""

    def __init__(self, loop: Loop, old: Plugin, new: Plugin, take_over: Callable[[], None]) -> None:
        self._loop = loop
        self._old = old
        self._take_over = take_over
        self._handover = Handover(time.monotonic(), old.session.subscribed, new.session.subscribed)
        self._due = False  # at the end of the present event
        self._timer = loop.call_later(SETTLE_S, self._settled)

    def seen(self, plugin: Plugin, call: Call) -> None:
        """One of the two sessions has been sent this event."""
        bit = events.BY_METHOD[call.event].bit
        if self._handover.seen(plugin is self._old, bit, subject(call), time.monotonic()):
            self._due = True

    def answered(self, plugin: Plugin) -> None:
        """The event is over for this session: the moment to switch, if one is due."""
        failed = plugin is self._old and plugin.fault is not None
        if self._due or (failed and self._handover.may_switch(time.monotonic(), True)):
            self._take_over()

    def cancel(self) -> None:
        self._timer.cancel()

    def _settled(self) -> None:
        if self._handover.may_switch(time.monotonic(), self._old.fault is not None):
            self._take_over()
        else:
            self._timer = self._loop.call_later(RECHECK_S, self._settled)
