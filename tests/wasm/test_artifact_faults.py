"""Compiled modules when the agent is killed or the power goes while one is kept."""

from __future__ import annotations

from pathlib import Path

from edge_agent.store.digest import Digest
from edge_agent.wasm.artifacts import Artifacts
from edge_agent.wasm.module import inspect
from edge_agent.wasm.modulefile import ModuleFile
from tests.support.costly import wasmtime
from tests.support.faults import survives

GUEST = Path(__file__).parents[1] / "guests" / "edge.wasm"
WASM = GUEST.read_bytes()


def test_only_a_whole_artifact_of_this_node_is_ever_loaded(tmp_path: Path) -> None:
    engine = wasmtime()
    source = ModuleFile(GUEST, Digest.of(WASM), inspect(WASM), 512 << 10)
    compiled = engine.compile(WASM)

    def act(root: Path) -> None:
        Artifacts(root).module(engine, source).close()

    def judge(root: Path) -> None:
        artifacts = Artifacts(root)
        found = artifacts.stored(engine, source)
        key = artifacts.key(engine, source.digest)
        if found is not None:
            found.close()
            assert (root / "artifacts" / f"{key}.artifact").read_bytes() == compiled
        artifacts.collect([key])
        left = {path.name for path in (root / "artifacts").glob("*")}
        assert left <= {f"{key}.artifact", f"{key}.mac", "lock"}

    # The compiler is another process, so its fsync is not seen: what it wrote counts as loose.
    counts = survives(tmp_path, lambda _: None, act, judge, kinds=("kill", "power"))
    assert counts["kill"] > 15
    assert counts["power"] > 10
