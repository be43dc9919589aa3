"""Replacing one session of a plugin by another between two events.

Handover (docs/adr/0004): both sessions stand under the same index and name, and the runtime
sends each event to both, one event after the other, in an order that is its own. The incumbent
answers until the border between two events at which the successor is known to be in the
runtime's list: an event that reached both, or a time in which nothing was halfway.
`HandoverPolicy` decides, purely; `Handover` counts and times what the sessions are sent.

Draining (docs/adr/0005): closing right after an answer can lose the answer, so a session closes
once the runtime has sent nothing for a while, or instead of its next answer. A validator must not
be missed in the middle of a creation, and before NRI 0.12.5 not even at the next one: it closes
instead of answering an event outside of creations, whenever that comes (Role.DRAIN).
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from edge_agent.host.guest import CREATE
from edge_agent.host.plugin import Plugin, Role
from edge_agent.loop import Loop
from edge_agent.nri import events
from edge_agent.nri.events import DECODE_ERRORS, forgives_lost_validators, message_type
from edge_agent.nri.session import Call

SETTLE_S = 1.0
"""After this long without an event under way the successor is in the runtime's list: the
runtime appends it right after its Synchronize, before it lets go of container requests."""

FORGET_S = 3.0
"""An event that reached one side only was given up by the runtime: its time-out (2 s by
default) has passed."""

RECHECK_S = 0.25  # while a handover waits for a quiet moment


@dataclass
class HandoverPolicy:
    """When one handover may switch. Times are monotonic seconds."""

    started: float
    old_events: int  # masks of what each side is subscribed to
    new_events: int
    _half: tuple[bool, Hashable] | None = field(default=None, init=False)
    _half_since: float = field(default=0.0, init=False)

    def seen(self, by_old: bool, bit: int, key: Hashable, now: float) -> bool:
        """One side has been sent the event `key`. True: switch once it is answered."""
        if not (self.old_events & bit and self.new_events & bit):
            return False
        if self._half == (not by_old, key):
            return True
        self._half, self._half_since = (by_old, key), now
        return False

    def may_switch(self, now: float, old_failed: bool) -> bool:
        """Whether it is safe to switch between events, by time alone.

        A failed incumbent may end each event before the successor sees it; it is
        relieved as soon as the successor has settled.
        """
        if now - self.started < SETTLE_S:
            return False
        return old_failed or self._half is None or now - self._half_since > FORGET_S


class Handover:
    """Watches both sessions from the successor's synchronisation on. `switch` is called once, at
    the border between two events; `cancel` ends the handover without it."""

    def __init__(self, loop: Loop, old: Plugin, new: Plugin, switch: Callable[[], None]) -> None:
        self._loop = loop
        self._old = old
        self._new = new
        self._switch = switch
        subscribed = old.session.subscribed, new.session.subscribed
        self._policy = HandoverPolicy(time.monotonic(), *subscribed)
        self._due = False  # at the end of the present event
        self._timer = loop.call_later(SETTLE_S, self._settled)
        old.watcher = new.watcher = self

    def seen(self, plugin: Plugin, call: Call) -> None:
        """One of the two sessions has been sent this event."""
        bit = events.BY_METHOD[call.event].bit
        if self._policy.seen(plugin is self._old, bit, _subject(call), time.monotonic()):
            self._due = True

    def answered(self, plugin: Plugin) -> None:
        """The event is over for this session: the moment to switch, if one is due."""
        failed = plugin is self._old and plugin.fault is not None
        if self._due or (failed and self._policy.may_switch(time.monotonic(), True)):
            self._switch()

    def cancel(self) -> None:
        """Watch no longer. Harmless when repeated."""
        self._timer.cancel()
        self._old.watcher = self._new.watcher = None

    def _settled(self) -> None:
        if self._policy.may_switch(time.monotonic(), self._old.fault is not None):
            self._switch()
        else:
            self._timer = self._loop.call_later(RECHECK_S, self._settled)


def _subject(call: Call) -> tuple[str, str, str]:
    """(event, pod id, container id), whichever message carries them; ids are empty where there
    is none or it is garbage."""
    request = message_type(call.export, call.event)()
    try:
        request.ParseFromString(call.payload)
    except DECODE_ERRORS:
        return call.event, "", ""
    container = getattr(request, "container", None)
    return call.event, request.pod.id, container.id if container is not None else ""


QUIET_S = 0.5  # until the runtime has surely read the last answer of a session
CREATION_S = 15.0
"""A creation whose validation did not come within this was given up: as long as seven other
plugins take that do not answer."""
MAX_DRAINING = 8  # sessions of one plugin that wait for an event to close on


class Draining:
    """The sessions of one slot that are being drained. Their guests are closed; what waits is a
    socket each."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._plugins: list[Plugin] = []

    def __contains__(self, plugin: Plugin) -> bool:
        return plugin in self._plugins

    def __len__(self) -> int:
        return len(self._plugins)

    def drain(self, plugin: Plugin) -> None:
        """End this session so that no container notices."""
        plugin.role = Role.DRAIN
        plugin.retire()
        self._plugins.append(plugin)
        if len(self._plugins) > MAX_DRAINING:
            self._plugins[0].close("too many sessions are being drained")
        runtime = plugin.session.runtime
        if not plugin.validates or (
            runtime is not None and forgives_lost_validators(runtime.nri_version)
        ):
            self._close_when_quiet(plugin)

    def remove(self, plugin: Plugin) -> None:
        """Its session is closed."""
        self._plugins.remove(plugin)

    def close(self, reason: str) -> None:
        """Close all of them at once."""
        for plugin in list(self._plugins):
            plugin.close(reason)

    def _close_when_quiet(self, plugin: Plugin) -> None:
        def close() -> None:
            # In the middle of a creation other plugins may take their time.
            creating = plugin.last_event == CREATE and plugin.validates
            quiet_s = CREATION_S if creating else QUIET_S
            if time.monotonic() - plugin.last_event_at < quiet_s:
                self._close_when_quiet(plugin)
            else:
                plugin.close("replaced")

        self._loop.call_later(QUIET_S, close)
