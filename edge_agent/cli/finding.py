"""One line of what `doctor` says."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: how bad, about what, what was seen and what to do."""

    level: Level
    subject: str
    text: str
    todo: str = ""
