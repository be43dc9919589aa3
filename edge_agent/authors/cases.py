"""Cases of a plugin: the events of a TOML file, and what the plugin must answer to each.

The form is described in docs/plugin-test.md. Pure but for the files that are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from google.protobuf import json_format
from google.protobuf.message import Message

from edge_agent.authors import tryout
from edge_agent.authors.tryout import Runtime
from edge_agent.config.document import Document, read_text
from edge_agent.config.table import TEXT_FORM, TEXT_PATTERN, Table
from edge_agent.errors import ConfigError
from edge_agent.nri import events
from edge_agent.nri.difference import message_types

MAX_CASES = 1000
MAX_STEPS = 100
_ANY_TEXT = r"(?s).{0,65536}"
_ANY_FORM = "a string of at most 65,536 characters"
_MAX_DEADLINE_S = 60.0

Ending = Literal[
    "ok", "error", "rejected", "denied", "trap", "timeout", "fuel", "calls", "memory", "abi"
]
"""As `edge-agent plugin run` says it: the plugin's own error, a validator's refusal, an answer
beyond the permissions, and the kinds of `GuestFault`."""


@dataclass(frozen=True)
class Expectation:
    """What a step must give. None: nothing is said about it."""

    ending: str = "ok"
    error: str | None = None
    """The whole text."""
    error_has: str | None = None
    """A part of it."""
    reply: Message | None = None
    """The whole reply."""
    reply_has: Mapping[str, Any] | None = None
    """Fields that the reply has among others, in the reply's form as JSON."""
    logs: tuple[str, ...] | None = None
    """`level: text` of lines, as globs, in this order among others; () is no line at all."""
    reports: tuple[str, ...] | None = None
    """`kind: payload` of all reports, as globs."""
    state: Mapping[str, str] | None = None
    """All of it afterwards."""
    fuel: int | None = None
    """Instructions of the call, at most."""
    time_s: float | None = None
    """Of the call, at most."""


@dataclass(frozen=True)
class Step:
    """One event. `expected` None: what was accepted once, in the file beside the cases."""

    method: str
    request: Message
    expected: Expectation | None


@dataclass(frozen=True)
class Case:
    """Steps of one instance of the plugin. `config` None: the plugin's own."""

    name: str
    config: str | None
    runtime: Runtime
    state: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


def read_cases(path: Path, default_method: str) -> list[Case]:
    """The cases of a file, with `default_method` where a step names no event.

    ConfigError: with the line of each problem.
    """
    document = Document(path, read_text(path))
    root = Table(document)
    tables = root.tables("case", at_least=1, at_most=MAX_CASES)
    if "case" not in root:
        root.problem("case", "there is none; each begins with [[case]]")
    cases = [_read_case(table, default_method) for table in tables]
    names = [case.name for case in cases]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        root.problem("case", f'two have the name "{name}"')
    root.end()
    document.check()
    return cases


def _read_case(table: Table, default_method: str) -> Case:
    name = table.text("name", "")
    if "name" not in table:
        table.problem("name", "is missing; a failure is told by it")
    config = table.text("config", None, pattern=_ANY_TEXT, form=_ANY_FORM)
    config_file = table.path("config_file", None)
    if config is not None and config_file is not None:
        table.problem("config_file", "says what config says; leave one out")
    elif config_file is not None:
        config = _text_of(table, "config_file", config_file)
    runtime = Runtime()
    if (word := table.text("runtime", None)) is not None:
        runtime_name, _, version = word.partition("@")
        if not (runtime_name and version):
            table.problem("runtime", 'must be NAME@VERSION, such as "containerd@1.7.24"')
        runtime = Runtime(runtime_name, version)
    state = table.table("state").string_map(pattern=r".{1,255}", form="1 to 255 characters")
    if "step" in table:
        steps = table.tables("step", at_least=1, at_most=MAX_STEPS)
        for key in ("event", "request", "request_file", "without", "expect"):
            if key in table:
                table.problem(key, "belongs into one of the steps, [[case.step]]")
        found = tuple(_read_step(step, default_method) for step in steps)
        for step in steps:
            step.end()
        for key in ("event", "request", "request_file", "without", "expect"):
            table.raw(key)
    else:
        table.raw("step")
        found = (_read_step(table, default_method),)
    if any(step.method == events.CONFIGURE for step in found[1:]):
        table.problem("step", "configure comes first, and once")
    table.end()
    return Case(name, config, runtime, state, found)


def _read_step(table: Table, default_method: str) -> Step:
    method = default_method
    if (word := table.text("event", None)) is not None:
        named = events.method_named(word)
        if named is None:
            known = [events.export_name(each).removeprefix("plugin_") for each in events.EXPORTS]
            known += ["timer", "pressure"]
            table.unknown_word("event", word, known)
        method = named or default_method
    if method == events.CONFIGURE:
        for key in ("request", "request_file", "without"):
            if key in table:
                table.problem(key, "is not for configure, whose text is config or config_file")
    return Step(method, _request(table, method), _expectation(table, method))


def _request(table: Table, method: str) -> Message:
    """The built-in request or that of a file, without some fields and with others."""
    request = tryout.sample(method)
    if (path := table.path("request_file", None)) is not None:
        try:
            request = tryout.read_request(path, method)
        except ConfigError as error:
            table.problem("request_file", str(error))
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for place in table.texts("without", ()):
        if not _remove(fields, place.split(".")):
            table.problem("without", f"the request has no {place}")
    over = table.raw("request")
    if over is not None and not isinstance(over, dict):
        table.problem("request", "must be a table of the request's fields")
        return request
    fields = merged(fields, over or {})
    return _message(table, "request", type(request), fields) or request


def _expectation(table: Table, method: str) -> Expectation | None:
    if "expect" not in table:
        table.raw("expect")
        return None
    expect = table.table("expect")
    reply_type = message_types(method)[1]
    ending = expect.choice("ending", Ending, "ok")
    reply, has = expect.raw("reply"), expect.raw("reply_has")
    whole = _message(expect, "reply", reply_type, reply) if reply is not None else None
    if has is not None:
        _message(expect, "reply_has", reply_type, has)
    error = expect.text("error", None, pattern=_ANY_TEXT, form=_ANY_FORM)
    error_has = expect.text("error_has", None, pattern=_ANY_TEXT, form=_ANY_FORM)
    if ending == "ok" and (error is not None or error_has is not None):
        expect.problem(
            "error" if error is not None else "error_has",
            f"is said of no ending but ok; ending can be {', '.join(get_args(Ending)[1:])}",
        )
    state = None
    if "state" in expect:
        state = expect.table("state").string_map(pattern=r".{1,255}", form="1 to 255 characters")
    else:
        expect.raw("state")
    found = Expectation(
        ending,
        error,
        error_has,
        whole,
        has if isinstance(has, dict) else None,
        expect.texts("logs", None, pattern=TEXT_PATTERN, form=TEXT_FORM),
        expect.texts("reports", None, pattern=TEXT_PATTERN, form=TEXT_FORM),
        state,
        expect.count("fuel", 0, at_least=1, at_most=10**15) if "fuel" in expect else None,
        expect.seconds("time", 0, at_least=1e-6, at_most=_MAX_DEADLINE_S)
        if "time" in expect
        else None,
    )
    for key in ("fuel", "time"):
        expect.raw(key)
    expect.end()
    return found


def _message(table: Table, key: str, kind: type[Message], fields: object) -> Message | None:
    """Fields in protobuf's JSON form as a message; None and a problem: they are not."""
    if not isinstance(fields, dict):
        table.problem(key, f"must be a table of the fields of a {kind.DESCRIPTOR.name}")
        return None
    try:
        return json_format.ParseDict(fields, kind(), max_recursion_depth=64)
    except (json_format.ParseError, RecursionError) as error:
        table.problem(key, f"no {kind.DESCRIPTOR.name}: {' '.join(str(error).split())}")
    return None


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged; lists and values replace what was there."""
    both = dict(under)
    for key, value in over.items():
        old = both.get(key)
        both[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return both


def _remove(fields: dict[str, Any], place: list[str]) -> bool:
    """Remove a field by its path. A key of a map may have dots in it."""
    for size in range(1, len(place) + 1):
        key, rest = ".".join(place[:size]), place[size:]
        if key not in fields:
            continue
        if not rest:
            del fields[key]
            return True
        below = fields[key]
        if isinstance(below, dict) and _remove(below, rest):
            return True
    return False


def _text_of(table: Table, key: str, path: Path) -> str | None:
    try:
        return read_text(path)
    except ConfigError as error:
        table.problem(key, str(error))
        return None
