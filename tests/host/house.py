"""A supervisor with all that it stands on, in this process: real loop, loader, engine, runtime.

with House(tmp_path) as house:
    house.apply(house.release("10-bench", "bench"))
    house.until(lambda: house.status("10-bench") == "running", "it runs")
    outcome = house.during(lambda: house.runtime.create_container(pod, "c"))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pytest

from edge_agent.config import Limits, PluginSettings
from edge_agent.config.model import NriConfig
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host import placeholder
from edge_agent.host.crash_marker import CrashMarker, Suspect
from edge_agent.host.crash_policy import CrashPolicy
from edge_agent.host.loader import Compiled, Loader
from edge_agent.host.pluginstates import PluginStates
from edge_agent.host.slot_state import Successor
from edge_agent.host.supervisor import Supervisor
from edge_agent.loop import Loop
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release
from edge_agent.wasm.artifacts import Artifacts
from edge_agent.wasm.engine import Module
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.modulefile import ModuleFile
from tests.support.agent import guest
from tests.support.turning import turn_until
from tests.support.wait import TIMEOUT_S

T = TypeVar("T")


class Verdict(NamedTuple):
    """As the supervisor told it."""

    identity: str
    digest: str
    kept: bool
    reason: str


class House:
    """Ends with its `with`. The runtime's methods wait for the loop: call them in `during`.

    `socket` is of a runtime that is there; otherwise one is simulated. `second` is another one.
    `engine` by its name, `compiler`: limits of its process (store.artifacts.Artifacts).
    `grace_s`: for so long a plugin that is compiled has no placeholder. By default it never gets
    one for that alone: on a busy machine, compiling takes longer than an agent's GRACE_S.
    """

    def __init__(
        self,
        folder: Path,
        runtime: SimRuntime | None = None,
        *,
        socket: Path | None = None,
        second: SimRuntime | None = None,
        engine: str = "auto",
        reconnect: tuple[float, float] = (0.02, 0.2),
        compiler: Mapping[str, Any] | None = None,
        grace_s: float = 3600.0,
        **limits: Any,
    ) -> None:
        self.folder = folder
        self._engine = engine
        self._reconnect = reconnect
        self._compiler = compiler or {}
        self._patches = pytest.MonkeyPatch()
        self._grace_s = grace_s
        self.runtime = runtime or SimRuntime(folder / "nri.sock", request_timeout_s=TIMEOUT_S)
        self._simulated = [] if socket else [self.runtime]
        if second is not None:
            self._simulated.append(second)
        self._sockets = (*([socket] if socket else []), *(each.path for each in self._simulated))
        self.results: list[EventResult] = []
        self.verdicts: list[Verdict] = []
        self.suspects: list[Suspect] = []  # of a crash before; set before it is entered
        self.lines: list[str] = []
        self.may_compile = threading.Event()  # clear it, and compiling takes its time
        self.may_compile.set()
        self._limits = Limits(**limits)

    def __enter__(self) -> Self:
        self._patches.setattr(placeholder, "GRACE_S", self._grace_s)
        engine, _ = select_engine(self._engine)
        artifacts = self.artifacts = Artifacts(self.folder / "state", **self._compiler)
        for runtime in self._simulated:
            runtime.start()
        self.loop = Loop()
        self.loader = Loader(
            self.loop,
            partial(artifacts.stored, engine),
            lambda source: self._compiled(partial(artifacts.module, engine), source),
            lambda _: lambda _, line: self.lines.append(line),
            CrashMarker(),
            lambda release: self.crash_policy.refuses_code(release),
        )
        self.states = PluginStates(
            self.loop, self.folder / "state" / "plugin-state", self.loader.run
        )
        self.states.begin()
        self.crash_policy = CrashPolicy(self.folder / "state" / "crashes", self.loader.run)
        self.crash_policy.begin(self.suspects)
        config = NriConfig(self._sockets, *self._reconnect)
        self.supervisor = Supervisor(
            self.loop,
            config,
            self.loader,
            self.results.append,
            lambda: None,
            lambda *verdict: self.verdicts.append(Verdict(*verdict)),
            self.crash_policy,
            self.states,
        )
        return self

    def _compiled(self, compiled: Compiled, source: ModuleFile) -> Module:
        self.may_compile.wait()
        return compiled(source)

    def __exit__(self, *_: object) -> None:
        self._patches.undo()
        self.may_compile.set()
        self.supervisor.close()
        self.states.close()
        self.loader.stop()
        self.loop.close()
        for runtime in self._simulated:
            runtime.stop()

    def release(
        self, identity: str, name: str | Path, config: str = "", **settings: Any
    ) -> Release:
        """A guest that is checked in, or a module made for the test, as this plugin."""
        plugin_id = PluginId.parse(identity)
        assert plugin_id is not None
        path = guest(name) if isinstance(name, str) else name
        wasm = path.read_bytes()
        settings.setdefault("limits", self._limits)
        return Release(
            *plugin_id.parts,
            Digest.of(wasm),
            len(wasm),
            config,
            PluginSettings(**settings),
            path=path,
        )

    def apply(self, *releases: Release) -> None:
        """Exactly these from now on."""
        self.supervisor.apply({release.identity: release for release in releases}, {})

    def entry(self, identity: str) -> dict[str, Any]:
        """The plugin's own line of the status."""
        [found] = [
            each
            for each in self.supervisor.plugins()
            if f"{each['index']}-{each['name']}" == identity
        ]
        return {**found}

    def status(self, identity: str) -> str:
        return str(self.entry(identity)["status"])

    def run(self, *releases: Release) -> None:
        """Apply and wait until they answer, with these digests and configurations."""
        self.apply(*releases)
        for release in releases:
            self.until(
                lambda release=release: self._answers(release),  # type: ignore[misc]
                f"{release.identity} runs",
            )

    def _answers(self, release: Release) -> bool:
        slot = self.slot(release.identity)
        serves = slot.state.serving and slot.plugin.release.same_guest(release)
        return serves and not slot.sessions.placeholder  # not even one that is about to leave

    def hands_over(self, identity: str) -> bool:
        """Whether an incumbent and its successor stand side by side."""
        return self.slot(identity).state.successor is Successor.HANDOVER

    def slot(self, identity: str) -> Any:
        """The plugin's slot at the one runtime."""
        return self.supervisor.endpoints[0].slots[PluginId(identity)]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Turn the loop until the condition holds."""
        done = False

        def look() -> None:
            nonlocal done
            done = condition()
            if not done:
                self.loop.call_later(0.01, look)

        look()
        turn_until(self.loop, lambda: done, what)

    def during(self, work: Callable[[], T]) -> T:
        """Do what waits for the loop, while the loop turns."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            self.loop.call_soon(lambda: None)

        thread = threading.Thread(target=run)
        thread.start()
        turn_until(self.loop, lambda: bool(results or errors), "the runtime")
        thread.join()
        if errors:
            raise errors[0]
        return results[0]
