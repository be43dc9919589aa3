"""What is to run: one plugin file with its configuration and settings."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import PluginSettings
from edge_agent.store.digest import Digest

# NN-name: NRI's index of two digits and its name (containerd/nri, pkg/api/plugin.go).
_IDENTITY = re.compile(r"([0-9]{2})-([a-zA-Z0-9_.+-]+)")


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


def split_identity(identity: str) -> tuple[str, str] | None:
    """(index, name) of "NN-name", or None if it is not one."""
    found = _IDENTITY.fullmatch(identity)
    return (found[1], found[2]) if found else None
