"""`edge-agent doctor`: problems of this machine and of the agent, and what to do."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM, add_config_option
from edge_agent.text import printable

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.cli.observe import Finding


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("doctor", help="check this machine, and say what to do")
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Collect facts and print findings; 1 if the agent cannot work before something is done."""
    import json
    from dataclasses import asdict

    from edge_agent.cli.checks import judge
    from edge_agent.cli.observe import observe

    findings = judge(observe(arguments.config))
    if arguments.json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(render(findings))
    return PROBLEM if any(finding.level == "fail" for finding in findings) else OK


def render(findings: Sequence["Finding"]) -> str:
    """One line for each finding, what to do below it, and a summary."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        subject = printable(finding.subject)
        lines.append(f"{finding.level:4}  {subject:{width}}  {printable(finding.text)}")
        lines += [f"{'':{width + 6}}  > {printable(line)}" for line in finding.todo.splitlines()]
    count = {level: sum(each.level == level for each in findings) for level in ("warn", "fail")}
    lines.append(f"\n{count['fail']} to set right, {count['warn']} to look at")
    return "\n".join(lines)
