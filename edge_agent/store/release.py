"""What is to run: one plugin file with its configuration and settings."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import PluginSettings
from edge_agent.store.digest import Digest

# Of NRI's names (containerd/nri, pkg/api/plugin.go).
NAME_CHARACTER = "[a-zA-Z0-9_.+-]"
# What a file's name leaves beside "NN-" and ".wasm"; NRI itself has no limit.
MAX_NAME_CHARS = 247
_ID = re.compile(rf"([0-9]{{2}})-({NAME_CHARACTER}{{1,{MAX_NAME_CHARS}}})")


@dataclass(frozen=True, slots=True)
class PluginId:
    """NN-name: NRI's index of two digits, and the plugin's name."""

    index: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "PluginId | None":
        """None: it is none. The one place that says which are, and how long."""
        found = _ID.fullmatch(text)
        return cls(found[1], found[2]) if found else None

    def __str__(self) -> str:
        return f"{self.index}-{self.name}"


@dataclass(frozen=True, slots=True)
class Probation:
    """The terms on which a new release is kept; the rule is in edge_agent.host.probation."""

    events: int  # so many answers end it early; 0: only the time does
    seconds: float  # of serving
    allowed_failures: int


class CodeFile(NamedTuple):
    """Machine code of the fleet's for a release, and what the deployment says is in the file."""

    path: Path
    digest: Digest


@dataclass(frozen=True, slots=True)
class Release:
    """One plugin as it should run; two that are equal need no replacement."""

    index: str
    name: str
    path: Path
    digest: Digest  # of the module; NO_DIGEST where it is unusable and none is known
    size: int
    config: str
    settings: PluginSettings
    # What people call it, and whether it still has to prove itself: no reason to replace a guest.
    version: str = field(default="", compare=False)
    probation: Probation | None = field(default=None, compare=False)
    # Machine code of the fleet's, to be used where it is what it is said to be. The same module
    # by other code is the same plugin.
    code: CodeFile | None = field(default=None, compare=False)
    # Why it cannot be loaded: there is no module, or not the one that is wanted, and no digest.
    # Its place is kept all the same (edge_agent.host.placeholder).
    unusable: str = ""

    @property
    def metered(self) -> bool:
        """Whether its code must count its fuel."""
        return self.settings.limits.fuel > 0

    @property
    def on_probation(self) -> bool:
        """Whether it still has to prove itself."""
        return self.probation is not None

    @property
    def setup(self) -> str:
        """As the catalogue names the module together with its configuration."""
        from edge_agent.store.catalogue import setup_key  # seldom needed, no part of the start

        return setup_key(self.digest, self.config, self.settings)

    @property
    def identity(self) -> str:
        """NN-name, under which the runtime, logs and reports know it."""
        return f"{self.index}-{self.name}"
