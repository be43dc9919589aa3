"""A plugin release: module, configuration and settings; and machine code for it, if there is any.

Machine code does what it likes: no engine bounds it, as it does a module. So everything that it
was made for must be exactly what is here (docs/adr/0050).
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.config import PluginSettings
from edge_agent.store.digest import Digest, sha256_hex

NOWHERE = Path()
"""In the place of the path of a file that this node does not have, or need not have."""


@dataclass(frozen=True)
class Code:
    """A file of machine code, made of one module, with what it was made for."""

    engine: str
    version: str  # of the engine
    target: str  # the kind of processor, as `uname -m` says it
    settings: str  # of the engine, and of counting fuel
    features: tuple[str, ...]  # that the processor must have
    digest: Digest  # of the file
    size: int  # in bytes
    path: Path = NOWHERE  # on this node


@dataclass(frozen=True)
class Machine:
    """The engine and processor that run machine code on one node."""

    engine: str
    version: str
    target: str
    settings: str
    metered: str  # the settings for code that counts its fuel
    features: frozenset[str]


def misfit(code: Code, machine: Machine, metered: bool) -> str:
    """Why the code cannot run on the machine; "" if it can. `metered`: it must count its fuel."""
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
        """The id with this index and name, which were checked where they entered."""
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


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a plugin, from the signed document or the node's own folder to its guests.

    The document, the catalogue and the host add what they know; what `setup` names stays.
    """

    index: str
    name: str
    digest: Digest  # of the module; NO_DIGEST where it is unusable and none is known
    size: int  # of the module, in bytes
    config: str
    settings: PluginSettings
    version: str = ""  # what people call it
    # Machine code of the fleet's that was made of the module, where there is any for this node.
    code: Code | None = None

    # On this node:
    path: Path = NOWHERE  # of the module
    probation: Probation | None = None  # it still has to prove itself, on these terms
    # Why it cannot be loaded: there is no module, or not the one that is wanted, and no digest.
    # Its place is kept all the same (edge_agent.host.placeholder).
    unusable: str = ""

    @property
    def identity(self) -> PluginId:
        """Under which the runtime, logs and reports know the plugin."""
        return PluginId.of(self.index, self.name)

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
        """A name for the module with its configuration, as `Catalogue.rejected` may hold it:
        "sha256:HEX+" and 16 digits."""
        from edge_agent import strictjson  # seldom needed, no part of the start

        values = asdict(self.settings)
        # As before there were such keys: rejections stay valid.
        if self.settings.runtimes is None:
            del values["runtimes"]
        if not self.settings.monitored:
            del values["mode"]
        if not self.settings.one_shot:
            del values["instance"]
        for key in ("timer", "pressure"):
            if not values[key]:
                del values[key]
        told = strictjson.dumps([self.config, values])
        return f"{self.digest}+{sha256_hex(told)[:16]}"

    def same_guest(self, other: "Release | None") -> bool:
        """Whether a guest of the other release need not be replaced. The same module run by other
        code, or under another version, is the same plugin."""
        return other is not None and self.guest_parts() == other.guest_parts()

    def guest_parts(self) -> tuple[object, ...]:
        """All that a guest is made of."""
        return (
            *(self.index, self.name, self.path, self.digest, self.size),
            *(self.config, self.settings, self.unusable),
        )
