"""What a fleet may ask of a node, as topics, `[requests]` and commands name it: the one list."""

from typing import Literal, get_args

Verb = Literal["sync", "restart", "logs", "diagnose", "release"]
VERBS: tuple[Verb, ...] = get_args(Verb)

COMMANDS: dict[str, Verb] = {**{verb: verb for verb in VERBS}, "unquarantine": "release"}
"""What a command may call them; on the wire and in files a verb keeps the name that nodes know."""
