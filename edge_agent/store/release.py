"""A plugin release: module, configuration and settings; and machine code for it, if there is any.

Machine code does what it likes: no engine bounds it, as it does a module. So everything that it
was made for must be exactly what is here (docs/adr/0050).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import PluginSettings
from edge_agent.store.digest import Digest


@dataclass(frozen=True)
class Code:
    """A file of machine code, made of one module, with what it was made for."""

    engine: str
    version: str  # of the engine
    target: str  # the kind of processor, as `uname -m` says it
    settings: str  # of the engine, and of counting fuel
    features: tuple[str, ...]  # that the processor must have
    digest: Digest  # of the file
    size: int


@dataclass(frozen=True)
class Machine:
    """What runs code on one node."""

    engine: str
    version: str
    target: str
    settings: str
    metered: str  # the settings for code that counts its fuel
    features: frozenset[str]


def misfit(code: Code, machine: Machine, metered: bool) -> str:
    """Why this code is not for the machine; "" if it is. `metered`: it has to count its fuel."""
    settings = machine.metered if metered else machine.settings
    for what, its, here in (
        ("engine", code.engine, machine.engine),
        ("engine version", code.version, machine.version),
        ("target", code.target, machine.target),
        ("settings", code.settings, settings),
    ):
        if its != here:
            return f"{what}: {its[:200]}, here {here[:200]}"
    if lacking := set(code.features) - machine.features:
        return f"features: this processor lacks {', '.join(sorted(lacking))}"
    return ""


# Of NRI's names (containerd/nri, pkg/api/plugin.go).
NAME_CHARACTER = "[a-zA-Z0-9_.+-]"
# What a file's name leaves beside "NN-" and ".wasm"; NRI itself has no limit.
MAX_NAME_CHARS = 247
_ID = re.compile(rf"([0-9]{{2}})-({NAME_CHARACTER}{{1,{MAX_NAME_CHARS}}})")


class PluginId(str):
    """NN-name: NRI's index of two digits and the plugin's name, under which the runtime, logs and
    reports know a plugin."""

    __slots__ = ()

    def __new__(cls, text: str) -> "PluginId":
        """ValueError: it is none."""
        if not _ID.fullmatch(text):
            raise ValueError(f"{text[:80]!a} is not NN-name, two digits and a plugin's name")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, index: str, name: str) -> "PluginId":
        """Of both, which were checked where they entered."""
        return super().__new__(cls, f"{index}-{name}")

    @classmethod
    def parse(cls, text: str) -> "PluginId | None":
        """None: it is none."""
        return super().__new__(cls, text) if _ID.fullmatch(text) else None

    @property
    def parts(self) -> tuple[str, str]:
        """(index, name)."""
        return self[:2], self[3:]


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
    def identity(self) -> PluginId:
        """Under which the runtime, logs and reports know it."""
        return PluginId.of(self.index, self.name)
