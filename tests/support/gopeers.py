"""The runtime side of NRI of upstream, in Go, which judges the agent.

It is built when it is needed, into the cache of the user, and driven with JSON lines. What each
operation does is told in ``tests/peers/*/README.md``.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.goanswers import Bench, Made, Outcome, Plugins
from tests.support.gobuild import PeerError, nri_runtime_binary
from tests.support.lineprocess import LineProcess
from tests.support.wait import TIMEOUT_S

# A request to the runtime may wait for several plugins, each 2 s by default.
ANSWER_TIMEOUT_S = TIMEOUT_S
# Upstream's own Wasm host compiles each plugin at each start, for seconds on a fast machine.
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = TIMEOUT_S


def _wait_until(look: Callable[[], bool], timeout_s: float, failure: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > deadline:
            raise PeerError(failure())
        time.sleep(0.01)


class NriRuntime:
    """Upstream's runtime side of NRI with pretended pods and containers.

    ``socket`` None lets no plugin connect; ``plugin_dir`` holds executables and Wasm modules named
    ``NN-name`` for the runtime's own launcher and Wasm host, ``config_dir`` their ``name.conf``.
    ``owners`` adds a built-in validator to learn who set what: leave it out of a benchmark.
    ``careless`` lets plugins join in the middle of a request, as CRI-O and Docker Engine do: then
    requests are also served between a plugin's synchronisation and its registration, a moment that
    ``linger_ms`` stretches. ``docker`` refuses the adjustments that Docker Engine refuses, by its
    name and as careless. ``older`` takes upstream's first release of this generation. ``burst``
    (the README's fields of ``burst-start``) begins with the first moment plugins may connect.
    """

    def __init__(
        self,
        socket: Path | None,
        *,
        plugin_dir: Path | None = None,
        config_dir: Path | None = None,
        name: str = "containerd",
        version: str = "v2.3.0",
        registration_timeout_ms: int = 5000,
        request_timeout_ms: int = 2000,
        owners: bool = True,
        careless: bool = False,
        linger_ms: int = 0,
        docker: bool = False,
        fill: tuple[int, int, int] | None = None,
        older: bool = False,
        burst: Mapping[str, Any] | None = None,
    ) -> None:
        self._start_fields = {
            "socket": "" if socket is None else str(socket),
            "plugin_dir": "" if plugin_dir is None else str(plugin_dir),
            "config_dir": "" if config_dir is None else str(config_dir),
            "name": "docker" if docker else name,
            "version": "29.7.2" if docker else version,
            "docker": docker,
            "registration_timeout_ms": registration_timeout_ms,
            "request_timeout_ms": request_timeout_ms,
            "owners": owners,
            "careless": careless or docker,
            "linger_ms": linger_ms,
            **({"burst": dict(burst)} if burst is not None else {}),
        }
        self._fill = fill
        self._lines = LineProcess([str(nri_runtime_binary(older=older))])
        self._next_id = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.nri_version = ""
        self.start_ns = 0

    def __enter__(self) -> Self:
        try:
            if self._fill is not None:
                pods, containers, padding = self._fill
                self.fill(pods, containers, padding)
            started = self.ask("start", timeout_s=START_TIMEOUT_S, **self._start_fields)
        except BaseException:
            self._lines.end()
            raise
        self.nri_version = started["nri_version"]
        self.start_ns = started["duration_ns"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.end()

    @property
    def pid(self) -> int:
        return self._lines.pid

    def log(self) -> str:
        """What upstream's code has logged so far."""
        return self._lines.log()

    def begin(self, operation: str, **fields: Any) -> int:
        """Send an operation without waiting; ``finish`` takes the number that this returns."""
        self._next_id += 1
        self._lines.send({"id": self._next_id, "op": operation, **fields})
        return self._next_id

    def finish(self, number: int, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while number not in self._answers:
            answer = self._lines.receive(deadline - time.monotonic())
            self._answers[answer["id"]] = answer
        answer = self._answers.pop(number)
        if "fault" in answer:
            raise PeerError(answer["fault"])
        return answer.get("result")

    def ask(self, operation: str, timeout_s: float = ANSWER_TIMEOUT_S, **fields: Any) -> Any:
        return self.finish(self.begin(operation, **fields), timeout_s)

    def event(self, event: str, timeout_s: float = ANSWER_TIMEOUT_S, **fields: Any) -> Outcome:
        """Relay one event. Fields: ``pod`` and ``container`` as NRI's JSON or the id of a known
        one, ``request`` as JSON, or the whole request as bytes in a ``file`` or in ``base64``."""
        return Outcome.parse(self.ask("event", timeout_s, event=event, **fields))

    def begin_event(self, event: str, **fields: Any) -> int:
        return self.begin("event", event=event, **fields)

    def finish_event(self, number: int, timeout_s: float = ANSWER_TIMEOUT_S) -> Outcome:
        return Outcome.parse(self.finish(number, timeout_s))

    def run_pod(self, pod: str = "pod0", **more: Any) -> Outcome:
        described = {"id": pod, "name": pod, "uid": pod, "namespace": "default", **more}
        return self.event("RunPodSandbox", pod=described)

    def create_container(self, container: str = "ctr0", pod: Any = None, **more: Any) -> Outcome:
        """Create a container of a pod: the id of a known one, NRI's JSON, or one made up here."""
        described = {"id": container, "name": container, **more}
        if pod is None:
            pod = {"id": "pod0", "name": "pod0", "uid": "pod0", "namespace": "default"}
        described.setdefault("podSandboxId", pod if isinstance(pod, str) else pod["id"])
        return self.event("CreateContainer", pod=pod, container=described)

    def fill(self, pods: int, containers: int, padding: int = 0, prefix: str = "") -> None:
        """Add running containers, each with an annotation of ``padding`` bytes: more than 4 MiB in
        all make upstream split the synchronisation of the plugins that connect later."""
        self.ask("fill", pods=pods, containers=containers, padding=padding, prefix=prefix)

    def state(self) -> dict[str, dict[str, Any]]:
        """The pretended pods and containers, as NRI's JSON by id."""
        state: dict[str, dict[str, Any]] = self.ask("state")
        return state

    def plugins(self) -> Plugins:
        found = self.ask("plugins")
        order = [plugin["name"] for plugin in found["order"]]
        return Plugins(order, found["closed"], found["count"])

    def wait_for_plugins(self, *names: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until exactly these plugins are registered, in this order of invocation."""

        def look() -> bool:
            return self.plugins().present == list(names)

        def failure() -> str:
            present = self.plugins().present
            return f"wanted plugins {list(names)}, have {present}; log:\n{self.log()}"

        _wait_until(look, timeout_s, failure)

    def wait_for_sessions(self, count: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until so many sessions are left of those registered, which it makes the runtime
        notice: it forgets closed ones at the end of a request."""

        def look() -> bool:
            self.run_pod("quiet")
            return self.plugins().count == count

        _wait_until(
            look,
            timeout_s,
            lambda: f"wanted {count} sessions, have {self.plugins()}; log:\n{self.log()}",
        )

    def updates(self, refuse: str | None = None) -> list[dict[str, Any]]:
        """The unsolicited updates so far; ``refuse`` fails later ones with this text, "" not."""
        fields: dict[str, Any] = {} if refuse is None else {"refuse": refuse}
        found: list[dict[str, Any]] = self.ask("updates", **fields)["unsolicited"]
        return found

    def synchronize_updates(self) -> list[dict[str, Any]]:
        """The updates that plugins asked for as the answer to Synchronize."""
        found: list[dict[str, Any]] = self.ask("updates")["synchronize"]
        return found

    def block_sync(self, block: bool) -> None:
        """Hold plugins back before their synchronisation, as a long container creation does."""
        self.ask("block-sync", block=block)

    def reload(self) -> None:
        """Another adaptation at the same socket; the connections of before stay open."""
        self.ask("reload")

    def bench(
        self,
        n: int,
        request: bytes | Path | None = None,
        warmup: int = 0,
        timeout_s: float = 300.0,
        pause_us: int = 0,
    ) -> Bench:
        """Create a container ``n`` times, after a pause each; timed inside the runtime, so Python
        is not in it."""
        found = self.ask(
            "bench", timeout_s, n=n, warmup=warmup, pause_us=pause_us, **_request(request)
        )
        return Bench(found["latencies_ns"], found["errors"], Outcome.parse(found["last"]))

    def burst_start(
        self,
        *,
        request: bytes | Path | None = None,
        prefix: str = "burst",
        maximum: int = 0,
        pause_us: int = 0,
        life: Sequence[str] = (),
    ) -> None:
        """Create containers without a pause in the background, until told or ``maximum``.

        ``life`` names the events that each goes through after CreateContainer."""
        self.ask(
            "burst-start",
            prefix=prefix,
            max=maximum,
            pause_us=pause_us,
            life=list(life),
            **_request(request),
        )

    def burst_made(self) -> int:
        """How many containers the running burst has made so far."""
        made: int = self.ask("burst-status")["made"]
        return made

    def wait_for_burst(self, made: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        _wait_until(
            lambda: self.burst_made() >= made,
            timeout_s,
            lambda: f"the burst stands at {self.burst_made()} of {made}; log:\n{self.log()}",
        )

    def burst_stop(self, timeout_s: float = ANSWER_TIMEOUT_S) -> list[Made]:
        return [Made.parse(made) for made in self.ask("burst-stop", timeout_s)]

    def stop(self) -> None:
        """Shut down in order. The connections of the plugins close with the process, not before."""
        self.ask("stop")
        self._lines.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Crash."""
        self._lines.kill()


def _request(request: bytes | Path | None) -> dict[str, Any]:
    match request:
        case None:
            return {}
        case bytes():
            return {"base64": base64.b64encode(request).decode()}
        case Path():
            return {"file": str(request.resolve())}
