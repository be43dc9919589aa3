"""`edge-agent fleet rollout` and `rollback`."""

import argparse
from pathlib import Path

from edge_agent.cli import OK
from edge_agent.cli.fleet_deploy import bring, opened, prepare
from edge_agent.cli.fleet_output import line, show_enrolment, show_json, some
from edge_agent.config.units import parse_duration
from edge_agent.errors import OperatorError
from edge_agent.operator import plan, rollout_driver
from edge_agent.operator.deployment_file import ring_label
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.rollout import (
    Course,
    Reach,
    Rollout,
    checked_steps,
    parse_percent,
    parse_timeout,
    read_rollout,
)

_REPLAYS = "--replay compares before something is deployed, and this deploys nothing"


def rollout(arguments: argparse.Namespace) -> int:
    """Begin, advance, hold or watch a rollout."""
    name, version = arguments.name, arguments.version
    if arguments.expect and arguments.replay is None:
        raise OperatorError("--expect declares differences over the events of --replay FILE")
    if arguments.replay is not None and (arguments.pause or arguments.resume):
        raise OperatorError(_REPLAYS)
    with opened(arguments) as fleet:
        if arguments.pause or arguments.resume:
            rollout_driver.set_paused(fleet, name, version, arguments.pause)
            if arguments.json:
                show_json({"name": name, "version": version, "held": arguments.pause})
                return OK
            held = "held" if arguments.pause else "no longer held"
            line(f"{name} {version} is {held}; no node changes")
            return OK
        there = _there(fleet, name, version)
        given = _course(arguments, there.course if there else None)
        if there is None or not arguments.watch or _changes(arguments):
            reach = _reach(fleet, arguments, there, given)
            named = {"nodes": list(reach.nodes) or None, "rings": list(reach.rings) or None}
            draft = fleet.rolled_out(
                name,
                version,
                reach.percent,
                arguments.index,
                config_file=_config_file(fleet, arguments.config_file),
                mode=arguments.mode,
                permissions=arguments.permissions,
                instance=arguments.instance,
                remembered={**named, **_remembered(arguments, given)},
            )
            prepared = prepare(fleet, draft, arguments)
            if arguments.replay is not None:
                from edge_agent.cli.fleet_record import replayed

                replayed(fleet, prepared, name, version, arguments)
            code = bring(fleet, prepared, arguments)
            if code != OK or not arguments.watch:
                return code
        elif arguments.replay is not None:
            raise OperatorError(_REPLAYS)
        elif not arguments.json:
            show_enrolment(fleet.enrolment)
        from edge_agent.cli.fleet_watch import follow

        return follow(fleet, name, version, given, arguments.json)


def rollback(arguments: argparse.Namespace) -> int:
    """Take the newest release of a plugin out of the deployment."""
    name = arguments.name
    with opened(arguments) as fleet:
        found = fleet.draft().releases(name)
        version = str(found[0].get("version")) if found else "(none)"
        prepared = prepare(fleet, rollout_driver.without(fleet, name, version), arguments)
        question = "deploy it?"
        if len(found) == 1:
            question = _uninstall(plan.removed(prepared.changes, name), name, version, arguments)
        elif not arguments.json:
            line(f"{name} {version} is taken back")
        return bring(fleet, prepared, arguments, question)


def _uninstall(nodes: list[str], name: str, version: str, arguments: argparse.Namespace) -> str:
    """The question to ask. OperatorError without --uninstall if the plugin would end."""
    means = (
        f"{name} has no release before {version}: this uninstalls the plugin on"
        f" {some(len(nodes), 'node')} and deletes what it keeps there (its state)"
    )
    if not arguments.uninstall:
        raise OperatorError(
            f"{means}; nothing was changed. Give --uninstall to do that, or stop the rollout"
            f" with: edge-agent fleet rollout {name} {version} --percent 0"
        )
    if not arguments.json:
        line(means)
    return f"uninstall {name} on {some(len(nodes), 'node')} and delete its state?"


def _there(fleet: Fleet, name: str, version: str) -> Rollout | None:
    """The state of the rollout; None: the release is not in deployment.toml."""
    if fleet.draft().plugin(name) is None:
        return None
    found = [each.get("version") for each in fleet.draft().releases(name)]
    return read_rollout(fleet.draft(), name, version) if version in found else None


def _course(arguments: argparse.Namespace, default: Course | None = None) -> Course:
    default = default or Course()
    steps, rings, soak, abort = default.steps, default.rings, default.soak_s, default.abort_percent
    at_least, least, timeout = default.at_least, default.min_percent, default.timeout_s
    if arguments.steps is not None:
        words = arguments.steps.split(",")
        rings, steps = checked_steps(
            "--steps", [int(word) if word.isdigit() else word for word in words]
        )
    if arguments.soak is not None:
        soak = _given("--soak", parse_duration(arguments.soak), 'a duration such as "60s"')
    if arguments.abort_on_failures is not None:
        percent = parse_percent(arguments.abort_on_failures)
        abort = _given("--abort-on-failures", percent, 'a percentage such as "5%"')
    if arguments.at_least is not None:
        at_least = arguments.at_least
    if arguments.min_percent is not None:
        percent = parse_percent(arguments.min_percent)
        least = _given("--min-percent", percent, 'a percentage such as "50%"')
    if arguments.timeout is not None:
        found = parse_timeout(arguments.timeout)
        timeout = _given("--timeout", found, 'a duration such as "30m", or "none"')
    return Course(steps, rings, soak, abort, at_least, least, timeout)


def _given(option: str, value: float | None, form: str) -> float:
    if value is None:
        raise OperatorError(f"{option} must be {form}")
    return value


def _reaches(arguments: argparse.Namespace) -> bool:
    """Whether the command line chooses nodes."""
    return bool(
        arguments.percent is not None or arguments.nodes or arguments.ring or arguments.count
    )


def _changes(arguments: argparse.Namespace) -> bool:
    """Whether to deploy before watching."""
    return _reaches(arguments) or _sets_up(arguments)


def _sets_up(arguments: argparse.Namespace) -> bool:
    """Whether the command line changes the release itself, for the nodes that it has."""
    given = (
        *(arguments.config_file, arguments.mode, arguments.instance),
        arguments.permissions,
    )
    return any(each is not None for each in given)


def _reach(
    fleet: Fleet, arguments: argparse.Namespace, there: Rollout | None, given: Course
) -> Reach:
    """The nodes of the release: its present names and rings, and those of the command line."""
    name, version = arguments.name, arguments.version
    before = there.reach if there is not None else Reach(0)
    if _reaches(arguments):
        if arguments.percent is None and before.percent >= 100:
            raise OperatorError(f"{name} {version} is for all nodes already")
        for ring in arguments.ring:
            ring_label(ring)
        nodes = [each for each in arguments.nodes.split(",") if each] if arguments.nodes else []
        fleet.check_nodes(name, nodes)
        if arguments.count:
            nodes += fleet.canaries(name, version, arguments.count)
        return Reach(
            before.percent if arguments.percent is None else int(arguments.percent),
            tuple(dict.fromkeys((*before.nodes, *nodes))),
            tuple(dict.fromkeys((*before.rings, *arguments.ring))),
        )
    if not arguments.advance:
        if there is not None and _sets_up(arguments):
            return before
        if there is not None:
            raise OperatorError(
                f"{name} {version} is at {there.reach}: say --advance, --percent N or --watch"
            )
        return given.following(before) or Reach(100)
    if there is None:
        raise OperatorError(f"{name} {version} has not begun; say --percent 10")
    if there.paused:
        raise OperatorError(f"{name} {version} is held; say --resume first")
    following = given.following(before)
    if following is None:
        raise OperatorError(f"{name} {version} is for all nodes already")
    return following


def _config_file(fleet: Fleet, path: Path | None) -> str | None:
    """As deployment.toml names it: below the folder. OperatorError."""
    if path is None:
        return None
    try:
        return str(path.resolve().relative_to(fleet.folder.path.resolve()))
    except ValueError:
        raise OperatorError(
            f"{path}: must be in the fleet's folder {fleet.folder.path}, which others share"
        ) from None


def _remembered(arguments: argparse.Namespace, given: Course) -> dict[str, object]:
    found: dict[str, object] = {}
    if arguments.steps is not None:
        found["steps"] = [*given.rings, *given.steps]
    for option in ("soak", "abort_on_failures", "at_least", "min_percent", "timeout"):
        if getattr(arguments, option) is not None:
            found[option] = getattr(arguments, option)
    return found
