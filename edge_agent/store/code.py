"""Machine code that was compiled for a fleet, and whether it is what this node runs. Pure.

Machine code does what it likes: no engine bounds it, as it does a module. So everything that it
was made for must be exactly what is here (docs/adr/0050).
"""

from dataclasses import dataclass

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
