"""What a step gave against what it shall give: differences, as lines for a person. Pure."""

import difflib
import fnmatch
import json
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from edge_agent.authors.cases import Expectation, Step
from edge_agent.authors.trial import LEVELS, Outcome
from edge_agent.config.units import format_duration
from edge_agent.nri.difference import message_types
from edge_agent.nri.events import CONFIGURE

Snapshot = dict[str, Any]
"""An outcome as it is accepted, in JSON: what does not change from run to run."""


def differences(step: Step, outcome: Outcome, accepted: Snapshot | None) -> list[str]:
    """Lines that say what is not as it shall be; those with "-" and "+" in front are wanted and
    found. Empty: the step passed."""
    if step.expected is not None:
        return list(_against(step.expected, step.method, outcome))
    if accepted is None:
        return ["nothing is expected of it yet: add an [expect] table, or accept with --update"]
    return _lines_of(accepted, snapshot(outcome))


def snapshot(outcome: Outcome) -> Snapshot:
    """An outcome as it is accepted."""
    return {
        "ending": outcome.kind,
        "error": outcome.error,
        "reply": outcome.reply,
        "logs": _logs(outcome),
        "reports": _reports(outcome),
        "state": _state(outcome),
    }


def _against(expected: Expectation, method: str, outcome: Outcome) -> Iterator[str]:
    before = outcome.step not in (method, *(("start",) if method == CONFIGURE else ()))
    if before:  # how it ends there says nothing of the event
        yield f"it failed before {method}, in {outcome.step}: {outcome.kind}: {outcome.error}"
        return
    if outcome.kind != expected.ending:
        yield f"- ending {expected.ending}"
        yield f"+ ending {outcome.kind}" + (f": {outcome.error}" if outcome.error else "")
        yield from (f"  at {frame}" for frame in outcome.frames)
        return
    if expected.error is not None and outcome.error != expected.error:
        yield f"- error {expected.error}"
        yield f"+ error {outcome.error}"
    if expected.error_has is not None and expected.error_has not in outcome.error:
        yield f"- error with {expected.error_has}"
        yield f"+ error {outcome.error}"
    kind = message_types(method)[1]
    if expected.reply is not None:
        found = json_format.ParseDict(outcome.reply, kind())
        if found != expected.reply:
            yield "the reply:"
            yield from _lines_of(_as_dict(expected.reply), outcome.reply)
    if expected.reply_has is not None:
        full = _full(json_format.ParseDict(outcome.reply, kind()))
        missing = list(_missing(expected.reply_has, full, ""))
        if missing:
            yield "the reply has not:"
            yield from (f"- {line}" for line in missing)
            yield "it is:"
            yield from (f"+ {line}" for line in _written(outcome.reply))
    if expected.logs is not None:
        yield from _lines("log", expected.logs, _logs(outcome), among=True)
    if expected.reports is not None:
        yield from _lines("report", expected.reports, _reports(outcome), among=False)
    if expected.state is not None and _state(outcome) != expected.state:
        yield "the state:"
        yield from _lines_of(dict(expected.state), _state(outcome))
    if expected.fuel is not None and outcome.fuel.get(outcome.export, 0) > expected.fuel:
        yield f"- {expected.fuel} instructions at most"
        yield f"+ {outcome.fuel[outcome.export]} instructions"
    if expected.time_s is not None and outcome.duration_us > expected.time_s * 1e6:
        yield f"- {format_duration(expected.time_s)} at most"
        yield f"+ {outcome.duration_us} us"


def _missing(wanted: object, found: object, place: str) -> Iterator[str]:
    """The places of what is in `wanted` and not in `found`, both in JSON's form."""
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            below = f"{place}.{key}" if place else str(key)
            if not isinstance(found, Mapping) or key not in found:
                yield f"{below}: {_short(value)}"
            else:
                yield from _missing(value, found[key], below)
    elif isinstance(wanted, list):
        entries = found if isinstance(found, list) else []
        for value in wanted:
            if not any(not list(_missing(value, entry, "")) for entry in entries):
                yield f"{place}: an entry {_short(value)}"
    elif not _same(wanted, found):
        yield f"{place}: {_short(wanted)} (it is {_short(found)})"


def _same(wanted: object, found: object) -> bool:
    """JSON's form has integers of 64 bits as text."""
    if isinstance(wanted, int) and not isinstance(wanted, bool) and isinstance(found, str):
        return str(wanted) == found
    return (type(wanted) is type(found) and wanted == found) or _numbers(wanted, found)


def _numbers(wanted: object, found: object) -> bool:
    both = (wanted, found)
    return (
        all(isinstance(one, int | float) and not isinstance(one, bool) for one in both)
        and wanted == found
    )


def _lines(what: str, wanted: tuple[str, ...], found: list[str], *, among: bool) -> Iterator[str]:
    """Globs against texts: in this order, `among` others or one for one."""
    if (not wanted and found) or (not among and len(wanted) != len(found)):
        fits = False
    elif among:
        left = iter(found)
        fits = all(any(fnmatch.fnmatchcase(text, glob) for text in left) for glob in wanted)
    else:
        fits = all(map(fnmatch.fnmatchcase, found, wanted))
    if not fits:
        yield from (f"- {what} {glob}" for glob in wanted or ("(none)",))
        yield from (f"+ {what} {text}" for text in found or ("(none)",))


def _lines_of(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = difflib.unified_diff(_written(wanted), _written(found), lineterm="", n=2)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def _written(value: dict[str, Any]) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).split("\n")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "..."


def _as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _full(message: Message) -> dict[str, Any]:
    """With the fields that have their default value: a wanted 0 is compared with something."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _logs(outcome: Outcome) -> list[str]:
    return [f"{LEVELS.get(level, 'info')}: {text}" for _, level, text in outcome.lines]


def _reports(outcome: Outcome) -> list[str]:
    return [f"{report.kind}: {_readable(report.payload)}" for report in outcome.reports]


def _state(outcome: Outcome) -> dict[str, str]:
    return {key: _readable(value) for key, value in outcome.state.items()}


def _readable(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"hex {data.hex()}"
