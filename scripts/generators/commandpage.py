"""docs/commands.md: every command of edge-agent with its arguments, from the commands' own help."""

import argparse
import os
from collections.abc import Iterator

from edge_agent.__main__ import COMMANDS, make_parser

_HEAD = """\
<!-- Made by scripts/generate from the commands' own help. -->
# Commands

`edge-agent COMMAND --help` says the same. The exit code is 0 if all is well, 1 if a problem was
found, 2 for wrong usage. `demo` and `fleet` are for the operator; a board's Debian package does not
have them.
"""


def page() -> str:
    """The whole text. Defaults below the user's folder begin with ~, whoever generates it."""
    kept = dict(os.environ)
    os.environ["XDG_CONFIG_HOME"] = "~/.config"
    try:
        (commands,) = _actions(make_parser([]))
    finally:
        os.environ.clear()
        os.environ.update(kept)
    lines = [_HEAD]
    for name in COMMANDS:
        lines += _command(f"edge-agent {name}", commands.choices[name], _help_of(commands, name), 2)
    return "\n".join(lines)


def _command(name: str, parser: argparse.ArgumentParser, told: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {name}\n"
    if told:
        yield f"{_sentence(told)}\n"
    below = _actions(parser)
    if not below:
        yield f"    {' '.join([name, *_usage(parser)])}\n"
    rows = [row for action in _arguments(parser) for row in _row(action)]
    if rows:
        yield "\n".join(["| | |", "| --- | --- |", *rows]) + "\n"
    if parser.epilog:
        yield (
            "\n".join(f"    {line}".rstrip() for line in parser.epilog.strip().splitlines()) + "\n"
        )
    for actions in below:
        for each in actions._choices_actions:
            yield from _command(
                f"{name} {each.dest}", actions.choices[each.dest], each.help or "", depth + 1
            )


def _actions(
    parser: argparse.ArgumentParser,
) -> list["argparse._SubParsersAction[argparse.ArgumentParser]"]:
    return [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]


def _help_of(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str) -> str:
    return next(each.help or "" for each in actions._choices_actions if each.dest == name)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        if action.help != argparse.SUPPRESS:
            yield action


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options first, as they may stand anywhere."""
    arguments = [*_arguments(parser)]
    if any(each.option_strings and not each.required for each in arguments):
        yield "[OPTIONS]"
    for each in arguments:
        if each.option_strings and each.required:
            yield _words(each)[0]
    for each in arguments:
        if not each.option_strings:
            word = _value(each)
            yield {"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} ..."}.get(
                str(each.nargs), word
            )


def _row(action: argparse.Action) -> Iterator[str]:
    if action.option_strings or action.help:  # else the usage says all
        words = ", ".join(f"`{word}`" for word in _words(action))
        yield f"| {words} | {_help(action).replace('|', chr(92) + '|')} |"


def _words(action: argparse.Action) -> list[str]:
    if not action.option_strings:
        return [_value(action)]
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return [f"{option}{value}" for option in action.option_strings]


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _help(action: argparse.Action) -> str:
    told = (action.help or "") % {**vars(action), "prog": "edge-agent"}
    return f"{told}; required" if action.required and action.option_strings else told


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
