"""The engine port on Wasmer: machine code by Cranelift. docs/adr/0029-wasmer.md."""

import resource

from edge_agent.wasm.engines.native import NativeEngine
from edge_agent.wasm.engines.signals import come_before_the_engine

_PLENTY_BITS = 39  # 64 memories of the 8 GiB that each reserves where there is no limit


class WasmerEngine(NativeEngine):
    """`wide`: whether memories reserve 8 GiB of addresses each; None: where there are plenty."""

    name = "wasmer"

    def __init__(self, wide: bool | None = None) -> None:
        super().__init__()
        self.wide = self._addresses_are_plenty() if wide is None else wide
        come_before_the_engine()

    def _addresses_are_plenty(self) -> bool:
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return False
        # Libraries lie near the end of what a process can address.
        return bool(self.native.address_bits() >= _PLENTY_BITS)

    def features(self) -> frozenset[str] | None:
        # The library of 0.2.0 runs no other processor's code, and makes none.
        features = getattr(self.native, "features", None)
        return frozenset(features()) if features is not None else None

    def targets(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(features) for name, features in self.native.targets()}

    def settings_for(self, wide: bool) -> str:
        settings: str = self.native.settings(self.name, wide)
        return settings

    def compile_for(self, wasm: bytes, target: str, wide: bool) -> bytes:
        return self.compiled(wasm, wide, target)
