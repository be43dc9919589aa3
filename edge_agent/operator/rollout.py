"""How a release fares on the nodes that it is for, and what to do next. Pure: no clock, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_agent.config.units import parse_duration
from edge_agent.errors import OperatorError
from edge_agent.fleet.choice import Choice, wanted
from edge_agent.fleet.deployment import Deployment
from edge_agent.operator.draft import Draft
from edge_agent.operator.view import Node, View
from edge_agent.store.catalogue import setup_key

DEFAULT_STEPS = (10, 25, 50, 100)
DEFAULT_SOAK_S = 60.0
DEFAULT_ABORT_PERCENT = 5.0

Action = Literal["wait", "soak", "advance", "done", "abort", "paused"]


@dataclass(frozen=True)
class Course:
    """How a release is to go out."""

    steps: tuple[int, ...] = DEFAULT_STEPS
    soak_s: float = DEFAULT_SOAK_S
    abort_percent: float = DEFAULT_ABORT_PERCENT

    def next_step(self, percent: int) -> int | None:
        """The next percentage; None after the last."""
        return next((step for step in sorted({*self.steps, 100}) if step > percent), None)


class Standing(NamedTuple):
    """The nodes that a release is for, each in one of four; `failed` with the reasons."""

    running: tuple[str, ...]
    pending: tuple[str, ...]  # online, and not there yet
    away: tuple[str, ...]  # not online, or without a container runtime: nobody waits for them
    failed: Mapping[str, str]

    @property
    def chosen(self) -> int:
        return len(self.running) + len(self.pending) + len(self.away) + len(self.failed)

    @property
    def failed_percent(self) -> float:
        return 100 * len(self.failed) / self.chosen if self.chosen else 0.0


def standing(view: View, deployment: Deployment, name: str, version: str) -> Standing:
    """Where a release stands. Nodes that rejected it are among those that it is for."""
    running, pending, away, failed = [], [], [], {}
    for node in view.sorted():
        found = _for_node(node, deployment, name, version)
        if found is None:
            continue
        digest = found.release.blob.digest
        reason = node.failure(digest, _setup(found) if node.rejected else "")
        if reason is not None:
            failed[node.name] = reason
        elif node.runs(digest):
            running.append(node.name)
        elif (refusal := _refusal(node, deployment)) is not None:
            failed[node.name] = refusal
        elif node.online and not node.waits_for_a_runtime(digest):
            pending.append(node.name)
        else:
            away.append(node.name)
    return Standing(tuple(running), tuple(pending), tuple(away), failed)


def decide(
    course: Course, standing: Standing, percent: int, settled_s: float, paused: bool = False
) -> Action:
    """What to do; `settled_s` is for how long no node has been pending."""
    if standing.failed and standing.failed_percent > course.abort_percent:
        return "abort"
    if paused:
        return "paused"
    if standing.pending:
        return "wait"
    if settled_s < course.soak_s:
        return "soak"
    return "done" if percent >= 100 else "advance"


def course_of(draft: Draft, name: str, version: str) -> tuple[Course, int, bool]:
    """How deployment.toml says that a release goes out: the course, its percentage, paused.

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
        return Course(), 100, False
    where = f"{draft.path}: {name} {version}: rollout"
    percent = table.get("percent")
    if not isinstance(percent, int) or not 0 <= percent <= 100:
        raise OperatorError(f"{where}: percent must be 0 to 100")
    steps = table.get("steps", list(DEFAULT_STEPS))
    soak = parse_duration(table["soak"]) if "soak" in table else DEFAULT_SOAK_S
    abort = parse_percent(table.get("abort_on_failures", f"{DEFAULT_ABORT_PERCENT:g}%"))
    if soak is None or abort is None:
        raise OperatorError(f'{where}: soak is like "60s", abort_on_failures like "5%"')
    return Course(checked_steps(where, steps), soak, abort), percent, bool(table.get("paused"))


def checked_steps(where: str, steps: object) -> tuple[int, ...]:
    """Percentages. OperatorError."""
    if (
        isinstance(steps, list | tuple)
        and steps
        and all(isinstance(step, int) and 0 < step <= 100 for step in steps)
    ):
        return tuple(sorted(set(steps)))
    raise OperatorError(f"{where}: steps must be whole numbers from 1 to 100, such as 10,25,50,100")


def parse_percent(value: object) -> float | None:
    """A percentage such as "5%"; None if it is none."""
    text = value.removesuffix("%") if isinstance(value, str) else ""
    try:
        percent = float(text)
    except ValueError:
        return None
    return percent if 0 <= percent <= 100 else None


def _for_node(node: Node, deployment: Deployment, name: str, version: str) -> Choice | None:
    """The release if it is for this node, had the node rejected nothing."""
    for choice in wanted(deployment, node.name, node.labels).values():
        if choice.entry.name == name and choice.release.version == version:
            return choice
    return None


def _setup(choice: Choice) -> str:
    return setup_key(choice.release.blob.digest, choice.entry.config, choice.entry.settings)


def _refusal(node: Node, deployment: Deployment) -> str | None:
    """Why a node that has not taken this deployment will not."""
    refusal = node.refused.get("deployment")
    if refusal is None or (node.epoch, node.accepted) >= deployment.order:
        return None
    if refusal.generation not in (0, deployment.generation):
        return None
    return f"refuses the deployment ({refusal.reason}): {refusal.text}"
