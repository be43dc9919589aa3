"""`edge-agent fleet rollout` and `rollback`."""

import argparse

from edge_agent.cli import OK
from edge_agent.cli.fleetdeploy import bring, opened, prepare
from edge_agent.cli.fleetout import line, show_json
from edge_agent.config.units import parse_duration
from edge_agent.errors import OperatorError
from edge_agent.operator import course
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.rollout import Course, checked_steps, course_of, parse_percent


def rollout(arguments: argparse.Namespace) -> int:
    """Begin, advance, hold or watch a release on its way."""
    name, version = arguments.name, arguments.version
    with opened(arguments) as fleet:
        if arguments.pause or arguments.resume:
            course.paused(fleet, name, version, arguments.pause)
            if arguments.json:
                show_json({"name": name, "version": version, "held": arguments.pause})
                return OK
            line(
                f"{name} {version} is {'held' if arguments.pause else 'let go on'}; no node changes"
            )
            return OK
        given = _course(arguments)
        there = _there(fleet, name, version)
        if there is None or not (arguments.watch and arguments.percent is None):
            percent = _percent(arguments, there, given)
            draft = fleet.rolled_out(
                name, version, percent, arguments.index, **_remembered(arguments, given)
            )
            code = bring(fleet, prepare(fleet, draft, arguments), arguments)
            if code != OK or not arguments.watch:
                return code
        if there is not None:
            given = _course(arguments, there[0])
        from edge_agent.cli.fleetwatch import follow

        return follow(fleet, name, version, given, arguments.json)


def rollback(arguments: argparse.Namespace) -> int:
    """Take the newest release of a plugin out of the deployment."""
    with opened(arguments) as fleet:
        version = str(fleet.draft().releases(arguments.name)[0].get("version"))
        draft = course.without(fleet, arguments.name, version)
        if not arguments.json:
            line(f"{arguments.name} {version} is taken back")
        return bring(fleet, prepare(fleet, draft, arguments), arguments)


def _there(fleet: Fleet, name: str, version: str) -> tuple[Course, int, bool] | None:
    """How the release goes out at present; None: it is not in deployment.toml."""
    if fleet.draft().plugin(name) is None:
        return None
    found = [each.get("version") for each in fleet.draft().releases(name)]
    return course_of(fleet.draft(), name, version) if version in found else None


def _course(arguments: argparse.Namespace, default: Course | None = None) -> Course:
    default = default or Course()
    steps, soak, abort = default.steps, default.soak_s, default.abort_percent
    if arguments.steps is not None:
        words = arguments.steps.split(",")
        steps = checked_steps("--steps", [int(word) if word.isdigit() else word for word in words])
    if arguments.soak is not None:
        found = parse_duration(arguments.soak)
        if found is None:
            raise OperatorError('--soak must be a duration such as "60s" or "10m"')
        soak = found
    if arguments.abort_on_failures is not None:
        percent = parse_percent(arguments.abort_on_failures)
        if percent is None:
            raise OperatorError('--abort-on-failures must be a percentage such as "5%"')
        abort = percent
    return Course(steps, soak, abort)


def _percent(
    arguments: argparse.Namespace, there: tuple[Course, int, bool] | None, given: Course
) -> int:
    if arguments.percent is not None:
        return int(arguments.percent)
    if not arguments.advance:
        if there is not None:
            raise OperatorError(
                f"{arguments.name} {arguments.version} is at {there[1]} %: say --advance,"
                " --percent N or --watch"
            )
        return given.steps[0]
    if there is None:
        raise OperatorError(f"{arguments.name} {arguments.version} has not begun; say --percent 10")
    course_now, percent, held = there
    if held:
        raise OperatorError(f"{arguments.name} {arguments.version} is held; say --resume first")
    following = _course(arguments, course_now).next_step(percent)
    if following is None:
        raise OperatorError(f"{arguments.name} {arguments.version} is for all nodes already")
    return following


def _remembered(arguments: argparse.Namespace, given: Course) -> dict[str, object]:
    found: dict[str, object] = {}
    if arguments.steps is not None:
        found["steps"] = list(given.steps)
    if arguments.soak is not None:
        found["soak"] = arguments.soak
    if arguments.abort_on_failures is not None:
        found["abort_on_failures"] = arguments.abort_on_failures
    return found
