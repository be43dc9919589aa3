"""Messages to the service manager: systemd's notify protocol, sd_notify(3), and when to say READY.

One datagram for each message, lines of NAME=VALUE, to the socket that NOTIFY_SOCKET names.
Nothing waits: a message that the manager's full queue refuses is sent again later, in order,
except a ping of the watchdog, since the next one follows anyway.

The start is over when every plugin is registered, or its absence was reported (`Readiness`). The
service manager holds back the services after the agent (the kubelet) until then, so that the first
containers after a boot are not created unseen. The wait is bounded: a board whose runtime hangs
must not hang with it.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence

from edge_agent.loop import Loop, Timer

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# Between two attempts at a message that was refused; the manager reads within milliseconds.
RETRY_S = 0.5
# In the time of the watchdog: sd_watchdog_enabled(3) recommends two, which would leave half of it
# for what the loop does between them.
PINGS = 4
# Kept for a manager that does not read; then the oldest go. A start and a reload are six.
MAX_UNSENT = 32

log = logging.getLogger(__name__)


class Notifier:
    """Messages to the manager at `address`, or to none. For the loop's thread.

    `watchdog_s`: the manager ends a process of which it hears no ping for so long.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._given_s = self._watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        self._loop: Loop | None = None
        self._next_ping: Timer | None = None
        self._unsent: deque[str] = deque(maxlen=MAX_UNSENT)
        self._failed = False
        self._status = ""

    def start(self, loop: Loop) -> None:
        """Use `loop` for what is late, and ping the watchdog from now on while it turns."""
        if self._address is None:
            return
        self._loop = loop
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if self._watchdog_s is not None:
            self._ping()

    def expect_absence(self, seconds: float) -> None:
        """The loop may be busy for so long at a time; a watchdog that would end it meanwhile is
        told to wait longer (WATCHDOG_USEC, since systemd 233), one that was told before less."""
        if self._socket is None or self._given_s is None:
            return
        watchdog_s = max(self._given_s, seconds * PINGS / (PINGS - 1))
        if watchdog_s != self._watchdog_s:
            self._watchdog_s = watchdog_s
            self._tell(f"WATCHDOG_USEC={round(watchdog_s * 1e6)}")
            self._ping()  # the next one was planned by the time before, which may be longer

    def close(self) -> None:
        """Send nothing more; a timer that is still pending does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """The start, or what `reloading` began, is over."""
        self._tell("READY=1")

    def extend_timeout(self, seconds: float) -> None:
        """The start may take so long from now on, whatever the unit's TimeoutStartSec says."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow."""
        # Type=notify-reload asks for the time, to tell this reload from an earlier one.
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The orderly end begins."""
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def _ping(self) -> None:
        # A timer of the loop, so it comes only while the loop turns.
        if self._socket is not None and self._loop is not None and self._watchdog_s is not None:
            self._send("WATCHDOG=1")
            if self._next_ping is not None:
                self._next_ping.cancel()
            self._next_ping = self._loop.call_later(self._watchdog_s / PINGS, self._ping)

    def _tell(self, message: str) -> None:
        if self._socket is not None:
            self._unsent.append(message)
            if len(self._unsent) == 1:
                self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent and self._socket is not None:
            if not self._send(self._unsent[0]):
                if self._loop is not None:
                    self._loop.call_later(RETRY_S, self._send_unsent)
                return
            self._unsent.popleft()

    def _send(self, message: str) -> bool:
        if self._socket is None or self._address is None:
            return False
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:  # its queue is full, or it is being restarted itself
            if not self._failed:
                log.warning("the service manager does not take messages: %s", error)
            self._failed = True
            return False
        self._failed = False
        return True


def from_environment(environment: MutableMapping[str, str], pid: int) -> Notifier:
    """The notifier that the manager asked for; its variables go, they are for no child."""
    address = environment.pop(SOCKET, "")
    microseconds = environment.pop(WATCHDOG, "")
    watched = environment.pop(WATCHDOG_PID, "") or str(pid)
    if not address:
        return Notifier()
    if address[0] not in "/@":
        log.warning("%s=%s is no Unix socket: the service manager is not notified", SOCKET, address)
        return Notifier()
    address = "\0" + address[1:] if address[0] == "@" else address  # abstract, unix(7)
    enabled = watched == str(pid) and microseconds.isdecimal() and int(microseconds) > 0
    return Notifier(address, int(microseconds) / 1e6 if enabled else None)


READY_POLL_S = 0.05  # far below what a runtime needs to take a plugin
READY_MARGIN_S = 10.0  # beyond the wait, for the manager's own time-out
MAX_NAMED = 5  # in the log


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
            self._notifier.extend_timeout(self._wait_s + READY_MARGIN_S)
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
            self._loop.call_later(READY_POLL_S, self._look)
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
