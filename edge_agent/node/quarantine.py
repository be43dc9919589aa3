"""Crashes and quarantines of a plugin, and lifting them: the one place for both.

    crashes, quarantine    the host counts and decides (host/crash_policy, STATE/crashes)
    modules not to run     the fleet's part remembers, since it decides from its own disk
                           (docs/adr/0022): what the host quarantined, what failed a probation

Both are lifted together, and the answer waits for both: it is the same, and true, wherever the
plugin is held and whoever asks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from edge_agent.host.supervisor import Supervisor
from edge_agent.store.release import PluginId


class Updates(Protocol):
    """The fleet's part (edge_agent.node.updates), where one is configured."""

    def unquarantine(self, identity: PluginId, done: Callable[[int | None], None]) -> bool:
        """Hold nothing against this plugin's modules any more; `done` gets how many that
        concerned, or None for a defect, on another thread. False: too much else waits."""


class Lifted(NamedTuple):
    """The crashes and quarantines of a plugin that were lifted."""

    crashes: bool  # the host's
    modules: int  # of the fleet's part
    problem: str = ""  # why that is nothing, or not all

    @property
    def answer(self) -> dict[str, object]:
        """For the control socket. `released` is what the command's first version looked at."""
        return {"released": not self.problem, **self._asdict()}


class Quarantine:
    """`updates` may come later than this; None: the node takes no deployments."""

    def __init__(self, supervisor: Supervisor, updates: Callable[[], Updates | None]) -> None:
        self._supervisor = supervisor
        self._updates = updates

    def lift(self, name: str, done: Callable[[Lifted], None]) -> None:
        """Let the plugin NN-name run again, whatever is held against it. On the loop; `done` is
        called once, on any thread."""
        identity = PluginId.parse(name)
        if identity is None:
            done(_lifted(name, False, 0))
            return
        crashes = self._supervisor.unquarantine(identity)
        lifted = partial(_lifted, identity, crashes)
        updates = self._updates()
        if updates is None:
            done(lifted(0))
        elif not updates.unquarantine(identity, lambda modules: done(lifted(modules))):
            done(Lifted(crashes, 0, _partly(crashes, "it is busy; is the disk slow? Try again")))


def _lifted(name: str, crashes: bool, modules: int | None) -> Lifted:
    if modules is None:
        return Lifted(crashes, 0, _partly(crashes, "it failed; the agent's log says why"))
    if crashes or modules:
        return Lifted(crashes, modules)
    nothing = f"nothing is held against {name}: no crash, no quarantine, no rejection"
    return Lifted(crashes, modules, nothing)


def _partly(crashes: bool, why: str) -> str:
    rest = "what the fleet's part holds against it stays: "
    return ("its crashes are forgotten; " if crashes else "") + rest + why
