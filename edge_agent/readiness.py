"""When the start is over: every plugin is registered, or its absence was told.

The service manager holds back what comes after the agent (the kubelet) until then, so that the
first containers after a boot are not created unseen. The wait is bounded: a board whose runtime
hangs must not hang with it.
"""

import logging
import time
from collections.abc import Callable, Sequence

from edge_agent.loop import Loop
from edge_agent.notify import Notifier

POLL_S = 0.05  # far below what a runtime needs to take a plugin
MARGIN_S = 10.0  # beyond the wait, for the manager's own time-out
MAX_NAMED = 5  # in the log

log = logging.getLogger(__name__)


class Readiness:
    """Tells `notifier` that the start is over. `unsettled` says what is still to come."""

    def __init__(
        self, loop: Loop, notifier: Notifier, wait_s: float, unsettled: Callable[[], Sequence[str]]
    ) -> None:
        self._loop = loop
        self._notifier = notifier
        self._wait_s = wait_s
        self._unsettled = unsettled
        self._until = 0.0
        self._settled = False  # at the last look
        self._over = False  # the start

    def begin(self) -> None:
        """The plugins are known: wait for them, no longer than `wait_s`."""
        self._until = time.monotonic() + self._wait_s
        if self._wait_s > 0:
            self._notifier.extend_timeout(self._wait_s + MARGIN_S)
        self._look()

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` must follow."""
        if self._over:  # or it is still the start's READY that the manager waits for
            self._notifier.reloading()

    def reloaded(self) -> None:
        if self._over:
            self._notifier.ready()

    def _look(self) -> None:
        missing = self._unsettled()
        if not missing:
            # A runtime appends a plugin right after it has answered Synchronize: one look more.
            if self._settled:
                self._end()
                return
            missing = ["what was registered a moment ago"]
            self._settled = True
        else:
            self._settled = False
        if time.monotonic() < self._until:
            self._loop.call_later(POLL_S, self._look)
            return
        more = f" and {len(missing) - MAX_NAMED} more" * (len(missing) > MAX_NAMED)
        log.warning(
            "ready after %g s (ready_wait) without %s%s",
            self._wait_s,
            ", ".join(missing[:MAX_NAMED]),
            more,
        )
        self._end()

    def _end(self) -> None:
        self._over = True
        self._notifier.ready()
