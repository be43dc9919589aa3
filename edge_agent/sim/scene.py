"""A scene of the demonstration as data: three columns of lines, and what had to be true.

Nothing here knows a terminal: edge_agent/cli/demoview.py shows scenes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from google.protobuf.message import Message

from edge_agent.nri.difference import ADDED, CHANGED, REMOVED, Change, changes, message_types
from edge_agent.sim.asking import Answer, Outcome
from edge_agent.text import printable

MIB = 1 << 20


class Tone(Enum):
    """How a line is meant."""

    PLAIN = ""
    HEAD = "head"
    GOOD = "good"
    CHANGED = "changed"
    BAD = "bad"
    QUIET = "quiet"


class Line(NamedTuple):
    """One line of a column; `indent` steps to the right."""

    text: str
    tone: Tone = Tone.PLAIN
    indent: int = 0


class Claim(NamedTuple):
    """What the scene had to show, and whether it did; `found` is told where it did not."""

    text: str
    holds: bool
    found: str = ""


@dataclass
class Scene:
    """What was asked, what plugins answered, what arrived over MQTT."""

    title: str
    said: str
    asked: list[Line] = field(default_factory=list)
    answered: list[Line] = field(default_factory=list)
    heard: list[Line] = field(default_factory=list)
    outcome: Line | None = None
    claims: list[Claim] = field(default_factory=list)
    columns: tuple[str, str, str] = ("the runtime asks", "plugins answer", "over MQTT")

    def claim(self, text: str, holds: object, found: object = "") -> None:
        self.claims.append(Claim(text, bool(holds), str(found)))


TONES = {ADDED: Tone.GOOD, CHANGED: Tone.CHANGED, REMOVED: Tone.BAD}


def changes_of(answer: Answer) -> list[Change]:
    """What a plugin's answer to a CreateContainer changed."""
    request_type, reply_type = message_types(answer.method)
    request: Message = request_type.FromString(answer.request)
    return changes(request, reply_type.FromString(answer.reply))


def answer_lines(outcome: Outcome) -> list[Line]:
    """Each plugin's answer to the container's creation, with the time that it took."""
    lines = []
    for answer in outcome.answers:
        if answer.method != "CreateContainer":
            continue
        lines.append(Line(f"{answer.plugin}  {milliseconds(answer.latency_s)}", Tone.HEAD))
        if answer.error:
            lines.append(Line("refuses", Tone.BAD, 1))
            continue
        found = changes_of(answer)
        lines += [Line(str(change), TONES.get(change.mark, Tone.PLAIN), 1) for change in found]
        if not found:
            lines.append(Line("no change", Tone.QUIET, 1))
    return lines


def result_lines(records: Iterable[dict[str, Any]]) -> list[Line]:
    """Results as they came over MQTT."""
    lines = []
    for record in records:
        lines.append(Line(f"#{record['seq']} {record['plugin']}", Tone.HEAD))
        fields = [name.rpartition(".")[2] for name in record.get("adjusted", ())]
        words = f"{record['outcome']} {', '.join(fields)}".rstrip()
        tone = {"adjusted": Tone.GOOD, "ok": Tone.PLAIN}.get(record["outcome"], Tone.BAD)
        lines.append(Line(words, tone, 1))
        if record.get("error"):
            # What went wrong comes last: where it did is what the others see.
            reason = record["error"].rpartition(": ")[2]
            lines.append(Line(printable(reason), Tone.BAD, 1))
        lines += [
            Line(f"reports {report['kind']}, {len(report['payload'])} B", indent=1)
            for report in record.get("reports", ())
        ]
    return lines


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
