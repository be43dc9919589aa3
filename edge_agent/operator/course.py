"""Takes a release through its steps, by what the nodes say, and back when too many fail."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from edge_agent.errors import OperatorError
from edge_agent.operator import deploy, edit
from edge_agent.operator.broker import QUIET_S
from edge_agent.operator.draft import Draft, read
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.rollout import Action, Course, Standing, course_of, decide, standing
from edge_agent.operator.view import View

# Between two looks when nothing comes: the soak's clock goes on.
TICK_S = 1.0
# A node tells its state at most once a second, and may say `running` before its probation begins.
SETTLE_S = 2.0


class Step(NamedTuple):
    """What was decided, on what ground; `percent` is the one after it."""

    action: Action
    percent: int
    standing: Standing
    left_s: float  # of the soak
    current: deploy.Current
    view: View


def follow(fleet: Fleet, name: str, version: str, course: Course) -> Iterator[Step]:
    """Advance, soak, and in the end say `done` or `abort`, which has been deployed then.

    Yields each time that something may have changed. The release must be deployed already.
    OperatorError: somebody else deployed meanwhile; the rollout is theirs then.
    """
    filters = (f"{fleet.nodes_topic}/+/status", f"{fleet.nodes_topic}/+/state")
    now = _ours(fleet)
    with fleet.client.subscribed((*filters, fleet.topics.deployment)) as subscription:
        view, since = View(), None
        while True:
            message = subscription.take(TICK_S)
            # At first all nodes, or the few that came first would decide.
            pause_s = 0.0 if view.nodes else QUIET_S
            while message is not None:
                if message.topic != fleet.topics.deployment:
                    view.feed(message)
                elif message.payload != now.raw:
                    now = _ours(fleet)  # our own, or an error
                message = subscription.take(pause_s)
            if now.deployment is None:
                raise OperatorError("the broker has no deployment any more")
            _, percent, paused = course_of(fleet.draft(), name, version)
            found = standing(view, now.deployment, name, version)
            clock = time.monotonic()
            since = None if found.pending or not view.nodes else since or clock
            settled_s = 0.0 if since is None else clock - since
            action = decide(course, found, percent, settled_s, paused)
            if action in ("advance", "done") and settled_s < SETTLE_S:
                action = "soak"
            if action == "advance":
                percent = course.next_step(percent) or 100
                fleet.deploy(fleet.rolled_out(name, version, percent))
            elif action == "abort":
                fleet.deploy(without(fleet, name, version))
            if action in ("advance", "abort"):
                now, since = _ours(fleet), None
            left_s = max(0.0, course.soak_s - settled_s)
            yield Step(action, percent, found, left_s, now, view)
            if action in ("done", "abort"):
                return


def without(fleet: Fleet, name: str, version: str) -> Draft:
    """deployment.toml without a release; not written yet."""
    return read(
        fleet.folder,
        edit.edited(fleet.folder, lambda document: edit.remove_release(document, name, version)),
    )


def paused(fleet: Fleet, name: str, version: str, pause: bool) -> None:
    """Hold a rollout where it is, or let it go on. Changes nothing on any node."""
    _, percent, _ = course_of(fleet.draft(), name, version)
    if percent >= 100:
        raise OperatorError(f"{name} {version} is for all nodes; `rollback {name}` takes it back")
    text = edit.edited(
        fleet.folder,
        lambda document: edit.set_rollout(document, name, version, {"paused": pause or None}),
    )
    fleet.folder.write(fleet.folder.deployment_file, text)


def _ours(fleet: Fleet) -> deploy.Current:
    now = fleet.current()
    deploy.check_base(now, deploy.last_deployed(fleet.folder), None)
    return now
