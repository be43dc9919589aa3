"""Verbs of the fleet's requests, as topics, `[requests]` and commands name them: the one list.

A module of its own since the parser of `edge-agent fleet` needs it and must load nothing more.
"""

from typing import Literal, get_args

Verb = Literal["sync", "restart", "logs", "diagnose", "release"]
VERBS: tuple[Verb, ...] = get_args(Verb)

COMMANDS: dict[str, Verb] = {**{verb: verb for verb in VERBS}, "unquarantine": "release"}
"""Verbs by commands; on the wire and in files a verb keeps the name that nodes know."""
