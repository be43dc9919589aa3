"""The state of a release on its nodes, and the next action of a rollout. Pure: no clock, no I/O."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_agent.config.units import parse_duration
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.deployment import Deployment, Offer, wanted
from edge_agent.operator.deployment_file import Draft, ring_label
from edge_agent.operator.node_state import Node
from edge_agent.operator.view import View
from edge_agent.store.release import Release

DEFAULT_STEPS = (10, 25, 50, 100)
DEFAULT_SOAK_S = 60.0
DEFAULT_ABORT_PERCENT = 5.0
# Without a further node that runs the release; a transfer over a slow radio takes less.
DEFAULT_TIMEOUT_S = 3600.0
MAX_LISTED = 5

Action = Literal["wait", "soak", "advance", "done", "abort", "paused", "timeout"]


class Reach(NamedTuple):
    """The nodes of a release: named nodes, rings ("LABEL=VALUE") and a percentage, together."""

    percent: int
    nodes: tuple[str, ...] = ()
    rings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, such as "ring=canary and 10 %"."""
        words = list(self.rings)
        if self.nodes:
            words.insert(0, f"{len(self.nodes)} named node{'s' * (len(self.nodes) != 1)}")
        if self.percent or not words:
            words.append(f"{self.percent} %")
        return " and ".join(words)


@dataclass(frozen=True)
class Course:
    """The plan of a rollout: its steps, and the condition for each next step."""

    steps: tuple[int, ...] = DEFAULT_STEPS
    rings: tuple[str, ...] = ()  # the first steps, one after the other
    soak_s: float = DEFAULT_SOAK_S
    abort_percent: float = DEFAULT_ABORT_PERCENT
    at_least: int = 1  # nodes that must run it
    min_percent: float = 0.0  # the same, of the release's nodes
    timeout_s: float = DEFAULT_TIMEOUT_S  # 0: no limit

    def following(self, reach: Reach) -> Reach | None:
        """The next step; None after the last."""
        for ring in self.rings:
            if reach.percent == 0 and ring not in reach.rings:
                return reach._replace(rings=(*reach.rings, ring))
        percent = self.next_step(reach.percent)
        return None if percent is None else reach._replace(percent=percent)

    def next_step(self, percent: int) -> int | None:
        """The next percentage; None after the last."""
        return next((step for step in sorted({*self.steps, 100}) if step > percent), None)

    def needed(self, chosen: int) -> int:
        """How many nodes must run the release before the next step."""
        return max(self.at_least, math.ceil(self.min_percent * chosen / 100))


class RolloutStatus(NamedTuple):
    """The nodes of a release, each in one of these; `failed` with the reasons."""

    running: tuple[str, ...]  # online, and passed the probation
    pending: tuple[str, ...]  # online, and do not run it yet
    away: tuple[str, ...]  # not online, or without a container runtime: no evidence
    failed: Mapping[str, str]
    # Online and enrolled, without a proven state: with the reason. They hold a step.
    unproven: Mapping[str, str] = {}
    # Not enrolled in a fleet that requires it, and reported to run it: no step advances by that.
    uncounted: tuple[str, ...] = ()

    @property
    def chosen(self) -> int:
        return sum(map(len, self))

    @property
    def failed_percent(self) -> float:
        """Of the nodes that report: absent or invented nodes must not hide the others' failures."""
        there = len(self.running) + len(self.pending) + len(self.failed)
        return 100 * len(self.failed) / there if there else 0.0


class Rollout(NamedTuple):
    """The state of a rollout in deployment.toml."""

    course: Course
    reach: Reach
    paused: bool


def rollout_status(
    view: View,
    deployment: Deployment,
    name: str,
    version: str,
    message: str = "",
    *,
    strict: bool | None = None,
) -> RolloutStatus:
    """The nodes of a release by their state. Nodes that rejected it are among them.

    `message` is the deployment's name in nodes' refusals, "" if not known. An enrolled node is
    judged by the state that it signed under this very deployment; any other state in its name
    only holds the step. So does a failure of a node that is not enrolled, in a fleet that
    requires signed states (`strict`; None: as the view has it).
    """
    running, pending, away, failed = [], [], [], {}
    unproven, uncounted = {}, []
    for node in view.all():
        found = _for_node(node, deployment, name, version)
        if found is None:
            continue
        digest = found.release.digest
        if node.enrolled and not node.proven:
            if node.online:
                unproven[node.name] = node.unproven or "it sent no state"
            else:
                away.append(node.name)
            continue
        if node.enrolled and not node.follows(deployment):
            refusal = _refusal(node, deployment, message)
            if not node.online:
                away.append(node.name)
            elif refusal is not None:
                failed[node.name] = refusal
            else:
                pending.append(node.name)
            continue
        reason = node.failure(digest, found.release.setup if node.rejected else "")
        if reason is not None:
            failed[node.name] = reason
        elif node.runs(digest, version) and node.online:
            running.append(node.name)
        elif node.runs(digest, version):  # by its last state
            away.append(node.name)
        elif (reason := _rejected_setup(node, deployment, found.release)) is not None:
            failed[node.name] = reason
        elif node.online and (refusal := _refusal(node, deployment, message)) is not None:
            failed[node.name] = refusal
        elif node.online and not node.waits_for_a_runtime(digest):
            pending.append(node.name)
        else:
            away.append(node.name)
    if view.enrolment.strict if strict is None else strict:
        keys = view.enrolment.keys
        uncounted = [each for each in running if each not in keys]
        running = [each for each in running if each in keys]
        unproven |= {
            each: f"not enrolled; {why}" for each, why in failed.items() if each not in keys
        }
        failed = {each: why for each, why in failed.items() if each in keys}
    return RolloutStatus(
        *(tuple(running), tuple(pending), tuple(away), failed),
        *(unproven, tuple(uncounted)),
    )


def lacking(course: Course, found: RolloutStatus) -> str:
    """Why the next step has to wait, in words; "": it need not."""
    if not found.chosen:
        return "no known node is in this step: name nodes or rings, or use a larger percentage"
    need, run = course.needed(found.chosen), len(found.running)
    if run < need:
        text = f"{run} of {need} nodes needed run it" + _listed(
            (*found.pending, *found.away, *found.failed)
        )
        if found.uncounted:
            text += (
                f"; {len(found.uncounted)} that are not enrolled report it, which proves nothing"
                + _listed(found.uncounted)
            )
        return text + (f"; {_unproven(found)}" if found.unproven else "")
    if found.pending:
        return f"{len(found.pending)} nodes are still to come" + _listed(found.pending)
    return _unproven(found) if found.unproven else ""


def _unproven(found: RolloutStatus) -> str:
    name, why = next(iter(found.unproven.items()))
    more = f" and {len(found.unproven) - 1} more" if len(found.unproven) > 1 else ""
    return f"the state of {name}{more} proves nothing: {why}"


def decide(
    course: Course,
    found: RolloutStatus,
    percent: int,
    settled_s: float,
    paused: bool = False,
    waited_s: float = 0.0,
) -> Action:
    """The next action. `settled_s`: for how long nothing has been lacking; `waited_s`: for how
    long no further node ran it."""
    if found.failed and found.failed_percent > course.abort_percent:
        return "abort"
    if paused:
        return "paused"
    if lacking(course, found):
        return "timeout" if 0 < course.timeout_s <= waited_s else "wait"
    if settled_s < course.soak_s:
        return "soak"
    return "done" if percent >= 100 else "advance"


def read_rollout(draft: Draft, name: str, version: str) -> Rollout:
    """The rollout of a release in deployment.toml.

    OperatorError: the plugin has no such release, or a value is wrong.
    """
    for release in draft.releases(name):
        if release.get("version") == version:
            break
    else:
        raise OperatorError(
            f"{draft.path}: {name} has no release {version}; begin with: edge-agent fleet rollout"
            f" {name} {version} --percent 10"
        )
    table = release.get("rollout")
    if not isinstance(table, Mapping):
        return Rollout(Course(), Reach(100), False)
    where = f"{draft.path}: {name} {version}: rollout"
    percent = table.get("percent")
    if not isinstance(percent, int) or not 0 <= percent <= 100:
        raise OperatorError(f"{where}: percent must be 0 to 100")
    reach = Reach(percent, *(_texts(where, table, key) for key in ("nodes", "rings")))
    steps = checked_steps(where, table.get("steps", list(DEFAULT_STEPS)))
    soak = parse_duration(table["soak"]) if "soak" in table else DEFAULT_SOAK_S
    abort = parse_percent(table.get("abort_on_failures", f"{DEFAULT_ABORT_PERCENT:g}%"))
    least = parse_percent(table.get("min_percent", "0%"))
    timeout = parse_timeout(table["timeout"]) if "timeout" in table else DEFAULT_TIMEOUT_S
    at_least = table.get("at_least", 1)
    if soak is None or abort is None or least is None or timeout is None:
        raise OperatorError(
            f'{where}: soak is like "60s", abort_on_failures and min_percent like "5%", timeout'
            ' like "60m" or "none"'
        )
    if type(at_least) is not int or at_least < 1:
        raise OperatorError(f"{where}: at_least must be a whole number from 1")
    course = Course(steps.steps, steps.rings, soak, abort, at_least, least, timeout)
    return Rollout(course, reach, bool(table.get("paused")))


class Steps(NamedTuple):
    """Rings and percentages of a list of steps."""

    rings: tuple[str, ...]
    steps: tuple[int, ...]


def checked_steps(where: str, steps: object) -> Steps:
    """Percentages and rings. OperatorError."""
    rings, percents = [], set()
    for step in steps if isinstance(steps, list | tuple) else ():
        if type(step) is int and 0 < step <= 100:
            percents.add(step)
        elif isinstance(step, str):
            ring_label(step)
            rings.append(step)
        else:
            break
    else:
        if rings or percents:
            return Steps(tuple(rings), tuple(sorted(percents)))
    raise OperatorError(
        f"{where}: steps must be whole numbers from 1 to 100, and rings as LABEL=VALUE, such as"
        " ring=canary,10,25,50,100"
    )


def parse_timeout(value: object) -> float | None:
    """Seconds; 0 for "none"; None: not a duration."""
    return 0.0 if value == "none" else parse_duration(value)


def parse_percent(value: object) -> float | None:
    """A percentage such as "5%"; None: not a percentage."""
    text = value.removesuffix("%") if isinstance(value, str) else ""
    try:
        percent = float(text)
    except ValueError:
        return None
    return percent if 0 <= percent <= 100 else None


def _for_node(node: Node, deployment: Deployment, name: str, version: str) -> Offer | None:
    """The release, if it is for this node; rejections are not considered."""
    for offer in wanted(deployment, node.name, node.labels).values():
        if (offer.release.name, offer.release.version) == (name, version):
            return offer
    return None


def _rejected_setup(node: Node, deployment: Deployment, release: Release) -> str | None:
    """Why a node that has this deployment runs another release of the same module.

    The rejection names a setup that contains the node's own defaults, which are not known here.
    """
    told = [each for each in node.plugins if each.identity == release.identity]
    if (node.epoch, node.accepted) < deployment.order or not (told and node.at_rest):
        return None
    if any(each.version in ("", release.version) for each in told):
        return None  # it is on its way there
    prefix = f"{release.digest}+"
    return next((why for key, why in node.rejected.items() if key.startswith(prefix)), None)


def _texts(where: str, table: Mapping[str, object], key: str) -> tuple[str, ...]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise OperatorError(f"{where}: {key} must be a list of strings")
    return tuple(found)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f" ({', '.join(names[:MAX_LISTED])}{more})"


def _refusal(node: Node, deployment: Deployment, message: str) -> str | None:
    """Why a node that has not accepted this deployment refuses it.

    The refused document may have been another one: an older one, or an invented one.
    """
    refusal = node.refused.get("deployment")
    if refusal is None or (node.epoch, node.accepted) >= deployment.order:
        return None
    if refusal.generation not in (0, deployment.generation):
        return None
    if refusal.message and message and refusal.message != message:
        return None
    return f"refuses the deployment {refusal}"
