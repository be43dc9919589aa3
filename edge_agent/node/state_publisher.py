"""The node's reported state: made anew soon after something changed, and now and then."""

from collections.abc import Callable
from typing import Any

from edge_agent import process
from edge_agent.loop import Loop, Timer

BATCH_S = 0.1  # changes are gathered this long before the state is made anew
REFRESH_S = 10.0  # counters in the reported state are at most this old

_WELL = ("running", "probation", "skipped")

State = dict[str, Any]


class StatePublisher:
    """`make` puts the state together, `tell` is called when a new state is to be published.

    All on the loop's thread; `later` runs what takes a while elsewhere.
    """

    def __init__(
        self,
        loop: Loop,
        later: Callable[[Callable[[], None]], None],
        make: Callable[[], State],
        tell: Callable[[State], None],
    ) -> None:
        self.state: State = {}  # the latest; never changed in place, any thread may read it
        self._loop = loop
        self._later = later
        self._make = make
        self._tell = tell
        self._soon: Timer | None = None
        self._memory: dict[str, int] = {}

    def start(self) -> None:
        """Make the first state, and go on."""
        self._measure()
        self._refresh()

    def changed(self) -> None:
        """Something in the state may be out of date."""
        if self._soon is None or not self._soon.pending:
            self._soon = self._loop.call_later(BATCH_S, self._renew)

    def now(self) -> State:
        """The state as of this moment."""
        return {**self._make(), "memory": self._memory}

    def _renew(self) -> None:
        self.state = self.now()
        self._tell(self.state)

    def _measure(self) -> None:
        # Elsewhere but for the start: the kernel walks through all pages.
        self._memory = process.figures()

    def _refresh(self) -> None:
        self._later(self._measure)
        self.state = self.now()
        self._loop.call_later(REFRESH_S, self._refresh)


def summary(state: State) -> str:
    """The state in a line, for `systemctl status`."""
    plugins, runtimes = state["plugins"], state["runtimes"]
    names = {(each.get("index"), each["name"]) for each in plugins}
    bad = {(each.get("index"), each["name"]) for each in plugins if each["status"] not in _WELL}
    connected = sum(each["state"] == "connected" for each in runtimes)
    return (
        f"{len(names - bad)} of {len(names)} plugins running, "
        f"connected to {connected} of {len(runtimes)} runtimes"
    )
