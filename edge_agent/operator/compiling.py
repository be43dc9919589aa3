"""Compiles machine code for the kinds of nodes that accept it.

The compiler gives the same bytes everywhere: a second signer can compile again and compare.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

from edge_agent.errors import OperatorError
from edge_agent.operator.node_state import Node
from edge_agent.store.digest import Digest
from edge_agent.wasm import compiler, fleetcode
from edge_agent.wasm.choice import choose
from edge_agent.wasm.compiler import Portably
from edge_agent.wasm.engine import Engine, Portable

ENGINE = "wasmer"  # the only engine that compiles for other processors
# Debian's names.
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
# Whether memories reserve 8 GiB of addresses each where nothing says otherwise: the 38 bits of most
# RISC-V boards (Sv39) are too few.
_WIDE = {"riscv64": False}
_TIMEOUT_S = 1800.0
_MEMORY_BYTES = 3 << 30


class Kind(NamedTuple):
    """One kind of nodes; each kind has one file of machine code."""

    target: str  # uname -m
    wide: bool
    metered: bool


class Made(NamedTuple):
    """Machine code, and what it requires of a node."""

    engine: str
    version: str
    target: str
    settings: str
    features: tuple[str, ...]
    data: bytes


class Maker:
    """The compiler of this machine. OperatorError: it cannot compile for other machines."""

    def __init__(self) -> None:
        engine, _ = choose(ENGINE)  # EngineError says what to install
        if not isinstance(engine, Portable) or engine.features() is None:
            raise OperatorError(
                "the edge-agent-engines that is installed here makes no code for other machines:"
                " install 0.2.1 or later"
            )
        self._engine: Engine = cast(Engine, engine)
        self._portable: Portable = engine
        self.targets = engine.targets()

    @property
    def version(self) -> str:
        """The engine's version: code is for nodes with the same one."""
        return self._engine.version

    def named(self, targets: str, nodes: Iterable[Node], metered: bool) -> list[Kind]:
        """The kinds for a list such as "arm64,riscv64": with such nodes' settings, or usual ones.

        OperatorError: there is no code for one of them.
        """
        known = self._reported(nodes, metered)
        found: list[Kind] = []
        for name in targets.split(","):
            target = ALIASES.get(name.strip(), name.strip())
            if target not in self.targets:
                there = ", ".join(sorted({*self.targets, *ALIASES}))
                raise OperatorError(
                    f"no code can be compiled for {name.strip()!r:.80}, only for {there}"
                )
            default = Kind(target, _WIDE.get(target, True), metered)
            found += [each for each in known if each.target == target] or [default]
        return list(dict.fromkeys(found))

    def reported(self, nodes: Sequence[Node], metered: bool) -> list[Kind]:
        """The kinds of the nodes that take machine code. OperatorError: there are none."""
        taking = [node for node in nodes if node.takes_code]
        found = self._reported(taking, metered)
        if not found:
            other = ", ".join(sorted({" ".join(node.engine[:2]) for node in taking}))
            reason = f"those that accept code run {other}" if other else "none accepts code"
            raise OperatorError(
                f"no node can use machine code of {ENGINE} {self.version}: {reason}. Nodes"
                ' accept it with compiled = "accept" below [updates]; --target names processors'
            )
        return found

    def make(self, wasm: bytes, kind: Kind) -> Made:
        """Compile a checked module in a process of its own."""
        with TemporaryDirectory(prefix="edge-agent-") as folder:
            module, output = Path(folder, "module.wasm"), Path(folder, "code")
            module.write_bytes(wasm)
            compiler.compile_module(
                ENGINE,
                module,
                Digest.of(wasm),
                output,
                metered=kind.metered,
                portably=Portably(kind.target, kind.wide),
                timeout_s=_TIMEOUT_S,
                memory_bytes=_MEMORY_BYTES,
            )
            data = output.read_bytes()
        return Made(
            engine=ENGINE,
            version=self.version,
            target=kind.target,
            settings=self._settings(kind.wide, kind.metered),
            features=self.targets[kind.target],
            data=data,
        )

    def _reported(self, nodes: Iterable[Node], metered: bool) -> list[Kind]:
        """The kinds of the nodes whose engine and settings this compiler supports."""
        wide = {self._settings(wide, False): wide for wide in (True, False)}
        found = {
            Kind(node.architecture, wide[settings], metered)
            for node in nodes
            for name, version, settings in [node.engine]
            if (name, version) == (ENGINE, self.version)
            and settings in wide
            and node.architecture in self.targets
        }
        return sorted(found)

    def _settings(self, wide: bool, metered: bool) -> str:
        return fleetcode.settings_of(self._portable.settings_for(wide), metered)
