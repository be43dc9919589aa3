"""Drives a rollout: advances by the nodes' states, and takes the release back after failures."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from edge_agent.errors import OperatorError
from edge_agent.operator import deploy, fleet_toml
from edge_agent.operator.broker import QUIET_S
from edge_agent.operator.deployment_file import Draft, read
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.rollout import (
    Action,
    Course,
    Reach,
    RolloutStatus,
    decide,
    lacking,
    read_rollout,
    rollout_status,
)
from edge_agent.operator.view import View

# The longest time between two decisions, since the soak's clock runs without messages.
TICK_S = 1.0
# The longest time for reading messages before a decision.
TALK_S = 2.0
# A node tells its state at most once a second, and may say `running` before its probation begins.
SETTLE_S = 2.0


class Step(NamedTuple):
    """A decision and its reasons; `reach` is the one after the decision."""

    action: Action
    reach: Reach
    status: RolloutStatus
    left_s: float  # of the soak
    lacking: str  # what the step waits for
    current: deploy.Current
    view: View

    @property
    def percent(self) -> int:
        return self.reach.percent


def follow(fleet: Fleet, name: str, version: str, course: Course) -> Iterator[Step]:
    """Advance, soak, and end with `done`, `abort` or `timeout`, whose deployment is published then.

    Yields after each decision. The release must be deployed already. OperatorError: another
    operator deployed meanwhile, and the rollout is no longer ours.
    """
    filters = (f"{fleet.nodes_topic}/+/status", f"{fleet.nodes_topic}/+/state")
    topics = (fleet.topics.trust, fleet.topics.deployment)
    now = _ours(fleet)
    latest = ("status", "state", "trust", "deployment")
    with fleet.client.subscribed((*topics, *filters), latest) as subscription:
        view, clocks = fleet.view(), _Clocks()  # the subscription alone may deliver only a part
        while True:
            message, until = subscription.take(TICK_S), time.monotonic() + TALK_S
            # Before the first decision read all nodes, not only the first few.
            pause_s = 0.0 if view.nodes else QUIET_S
            while message is not None:
                if message.topic == fleet.topics.trust:
                    fleet.follow_trust(message.payload)
                elif message.topic != fleet.topics.deployment:
                    view.feed(message)
                elif message.payload != now.raw:
                    now = _ours(fleet)  # our own, or an error
                if time.monotonic() > until:
                    break
                message = subscription.take(pause_s)
            if now.deployment is None:
                raise OperatorError("the broker no longer has a deployment")
            _, reach, paused = read_rollout(fleet.draft(), name, version)
            found = rollout_status(view, now.deployment, name, version, now.message)
            why = lacking(course, found)
            settled_s, waited_s = clocks.look(time.monotonic(), len(found.running), why)
            action = decide(course, found, reach.percent, settled_s, paused, waited_s)
            if action in ("advance", "done") and settled_s < SETTLE_S:
                action = "soak"
            if action == "advance":
                reach = course.following(reach) or Reach(100)
                fleet.deploy(fleet.reaching(name, version, reach))
            elif action == "abort":
                fleet.deploy(taken_back(fleet, name, version))
            elif action == "timeout" and reach.percent < 100:
                set_paused(fleet, name, version, True)
            if action in ("advance", "abort"):
                now, clocks = _ours(fleet), _Clocks()
            left_s = max(0.0, course.soak_s - settled_s)
            yield Step(action, reach, found, left_s, why, now, view)
            if action in ("done", "abort", "timeout"):
                return


class _Clocks:
    """Clocks of one step: since when nothing is lacking, and since when no further node runs it."""

    def __init__(self) -> None:
        self._settled: float | None = None
        self._moved: float | None = None
        self._most = 0  # nodes that ran it at once

    def look(self, clock: float, running: int, lacking: str) -> tuple[float, float]:
        """Both, in seconds."""
        self._settled = None if lacking else self._settled or clock
        if self._moved is None or running > self._most:
            self._moved, self._most = clock, running
        return 0.0 if self._settled is None else clock - self._settled, clock - self._moved


def without(fleet: Fleet, name: str, version: str) -> Draft:
    """deployment.toml without a release; not written yet."""
    return read(
        fleet.folder,
        fleet_toml.edited(
            fleet.folder.deployment_file,
            lambda document: fleet_toml.remove_release(document, name, version),
        ),
    )


def taken_back(fleet: Fleet, name: str, version: str) -> Draft:
    """The same for one that failed; not written yet.

    An only release goes to no further node instead: to take it out would end the plugin where it
    runs well, and what it keeps there, which needs a person's word (`rollback --uninstall`).
    """
    if len(fleet.draft().releases(name)) > 1:
        return without(fleet, name, version)
    held = {"percent": 0, "nodes": None, "rings": None, "paused": True}
    return fleet.rolled_out(name, version, 0, remembered=held)


def set_paused(fleet: Fleet, name: str, version: str, pause: bool) -> None:
    """Pause or resume a rollout. Changes nothing on any node."""
    if read_rollout(fleet.draft(), name, version).reach.percent >= 100:
        raise OperatorError(f"{name} {version} is for all nodes; `rollback {name}` takes it back")
    text = fleet_toml.edited(
        fleet.folder.deployment_file,
        lambda document: fleet_toml.set_rollout(document, name, version, {"paused": pause or None}),
    )
    fleet.folder.write(fleet.folder.deployment_file, text)


def _ours(fleet: Fleet) -> deploy.Current:
    now = fleet.current()
    deploy.check_base(now, deploy.last_deployed(fleet.folder))
    return now
