"""Pods and containers on a board, made by crictl as a person would make them."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from typing import Any

from tests.boards.machine import Machine
from tests.support.containerd_system import IMAGE

# The kubelet gives a slice; runc wants one where systemd makes the cgroups.
SLICE = "pods.slice"
ON_THE_NODES_NETWORK = {"network": 2, "pid": 1}


class Pods:
    """Names of pods are made unique. BoardError: crictl failed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._numbers = itertools.count(1)

    def run_pod(self, name: str, annotations: Mapping[str, str] | None = None) -> str:
        """Its id. Its configuration stays in /run/pods/ID for `run_container`."""
        name = f"{name}-{next(self._numbers)}"
        config = {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": 1},
            "annotations": dict(annotations or {}),
            "linux": {
                "cgroup_parent": SLICE,
                "security_context": {"namespace_options": ON_THE_NODES_NETWORK},
            },
        }
        script = (
            "mkdir -p /run/pods && head -c {size} >/run/pods/new.json &&"
            " pod=$(crictl runp /run/pods/new.json) &&"
            ' mv /run/pods/new.json "/run/pods/$pod" && echo "$pod"'
        )
        raw = json.dumps(config).encode()
        return self._machine.run(script.replace("{size}", str(len(raw))), input=raw).strip()

    def run_container(self, pod: str, name: str, memory: int = 0) -> str:
        """Created and started; its id. `memory` is the limit that is asked for, in bytes."""
        container = self.create(pod, name, memory)
        self._machine.run(f"crictl start {container}")
        return container

    def create(self, pod: str, name: str, memory: int = 0) -> str:
        """Its id."""
        raw = json.dumps(container_config(name, memory)).encode()
        return self._machine.run(
            f"head -c {len(raw)} >/run/pods/container.json &&"
            f" crictl create {pod} /run/pods/container.json /run/pods/{pod}",
            input=raw,
        ).strip()

    def inside(self, container: str, script: str, *, fails: bool = False) -> str:
        """Run a script of busybox' shell in the container; what it printed."""
        words = f"crictl exec {container} sh -c {shlex.quote(script)}"
        return self._machine.run(words, fails=fails)

    def remove_all(self) -> None:
        """All pods with their containers."""
        self._machine.run("crictl pods --quiet | xargs --no-run-if-empty crictl rmp --force")


def container_config(name: str, memory: int = 0) -> dict[str, Any]:
    """As crictl reads it."""
    config: dict[str, Any] = {"metadata": {"name": name, "attempt": 1}, "image": {"image": IMAGE}}
    if memory:
        config["linux"] = {"resources": {"memory_limit_in_bytes": memory}}
    return config
