"""edge-agent: policy and telemetry plugins for containers on small boards.

What stands here is loaded by every command, the parsers included, and imports nothing heavy.
"""

from typing import Literal, get_args

__version__ = "0.1.0"

# The day of this version: no clock that shows an earlier one is right.
RELEASED = "2026-11-23"

# Verbs of the fleet's requests, as topics, `[requests]` and commands name them: the one list.
Verb = Literal["sync", "restart", "logs", "diagnose", "release", "record"]
VERBS: tuple[Verb, ...] = get_args(Verb)

REQUEST_COMMANDS: dict[str, Verb] = {**{verb: verb for verb in VERBS}, "unquarantine": "release"}
"""Verbs by commands; on the wire and in files a verb keeps the name that nodes know."""
