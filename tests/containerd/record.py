"""Records requests of a real containerd: `python -m tests.containerd.record` renews tests/data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edge_agent.pb import nri_pb2
from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.tap import Tap

DATA = Path(__file__).parents[1] / "data"


def record(containerd: Containerd, folder: Path) -> dict[str, bytes]:
    """One pod with one container, then an agent that comes later; requests by file name."""
    cri = containerd.cri
    with Tap(folder / "tap.sock", containerd.nri_socket) as tap:
        agent = Agent(folder / "agent", sockets=[tap.socket])
        # One that may be missed: no placeholder stands in for it while it is compiled.
        ignored = {"failure_policy": "Ignore"}
        agent.put("10-event-logger", guest("event-logger"), settings=ignored)
        with agent:
            agent.wait_running("10-event-logger")
            pod = cri.run_pod(
                labels={"app": "bed"},
                annotations={"example.com/a": "1"},
                log_directory="/var/log/pods",
            )
            cri.run(
                pod,
                "main",
                command=["/bin/sh", "-c", "env; exec sleep 3600"],
                env={"FOO": "bar"},
                labels={"app": "bed"},
                annotations={"example.com/c": "1"},
                resources={
                    "cpu_period": 100_000,
                    "cpu_quota": 50_000,
                    "cpu_shares": 512,
                    "memory_limit_in_bytes": 64 << 20,
                    "memory_swap_limit_in_bytes": 64 << 20,
                    "oom_score_adj": 500,
                },
            )
        with agent:  # once more: it is told what there is
            agent.wait_running("10-event-logger")
        first, second = tap.asked
        cri.remove_pod(pod)
    requests = {asked.method: asked.payload for asked in reversed(first)}  # the first of each
    change = nri_pb2.StateChangeEvent.FromString(requests["StateChange"])
    assert change.event == nri_pb2.RUN_POD_SANDBOX
    return {
        "configure": requests["Configure"],
        "synchronize": dict(second)["Synchronize"],
        "state_change": requests["StateChange"],
        # What a runtime of the newer generation sends instead.
        "run_pod_sandbox": nri_pb2.RunPodSandboxRequest(pod=change.pod).SerializeToString(),
        "create_container": requests["CreateContainer"],
    }


def path_of(name: str) -> Path:
    return DATA / f"containerd-2.1.9-{name}_request.bin"


def main() -> None:
    with Containerd() as containerd, tempfile.TemporaryDirectory() as folder:
        for name, request in record(containerd, Path(folder)).items():
            path_of(name).write_bytes(request)
            print(f"{len(request):6} {path_of(name)}")


if __name__ == "__main__":
    main()
