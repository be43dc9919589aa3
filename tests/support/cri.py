"""A container runtime, driven as the kubelet drives it: CRI over gRPC, without the kubelet."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]

# Compiled here: cri.proto is for the tests alone.
_messages, _services = grpc.protos_and_services("tests/support/cri.proto")

# Longer than a runtime needs with plugins that use up all of their time.
TIMEOUT_S = 60.0


class CriError(Exception):
    """The runtime refused; the text is its own."""


class Ran(NamedTuple):
    """What a command in a container gave."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Pod:
    id: str
    name: str
    config: Any = field(repr=False)


class Cri:
    """Calls may come from several threads. Names of pods are made unique."""

    def __init__(self, socket: Path, image: str, cgroup_parent: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._runtime = _services.RuntimeServiceStub(self._channel)
        self._images = _services.ImageServiceStub(self._channel)
        self._image = image
        self._cgroup_parent = cgroup_parent
        self._numbers = itertools.count()

    def close(self) -> None:
        self._channel.close()

    def has_image(self) -> bool:
        """Whether the runtime answers and knows the image of all containers here."""
        try:
            request = _messages.ImageStatusRequest(image={"image": self._image})
            answer = self._images.ImageStatus(request, timeout=TIMEOUT_S)
            return bool(answer.HasField("image"))
        except grpc.RpcError:
            return False

    # --- pods

    def run_pod(
        self,
        name: str = "pod",
        *,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        log_directory: str = "",
    ) -> Pod:
        """Run a pod on the node's network, which needs no network plugin."""
        name, uid = f"{name}-{next(self._numbers)}", str(uuid.uuid4())
        kubelets = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        own = {"network": _messages.NODE, "pid": _messages.CONTAINER}
        config = _messages.PodSandboxConfig(
            metadata={"name": name, "uid": uid, "namespace": namespace},
            labels={**kubelets, **(labels or {})},
            annotations=annotations,
            log_directory=log_directory,
            linux={
                "cgroup_parent": self._cgroup_parent,
                "security_context": {"namespace_options": own},
            },
        )
        answer = self._call("RunPodSandbox", _messages.RunPodSandboxRequest(config=config))
        return Pod(answer.pod_sandbox_id, name, config)

    def stop_pod(self, pod: Pod) -> None:
        self._call("StopPodSandbox", _messages.PodRequest(pod_sandbox_id=pod.id))

    def remove_pod(self, pod: Pod | str) -> None:
        """Stop and remove it with all of its containers."""
        request = _messages.PodRequest(pod_sandbox_id=pod if isinstance(pod, str) else pod.id)
        self._call("StopPodSandbox", request)
        self._call("RemovePodSandbox", request)

    def pods(self) -> list[str]:
        """Their ids."""
        return [pod.id for pod in self._call("ListPodSandbox", _messages.Nothing()).items]

    # --- containers

    def create(
        self,
        pod: Pod,
        name: str = "ctr",
        *,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        resources: Mapping[str, int] | None = None,
        log_path: str = "",
    ) -> str:
        """Create a container, not started; its id. `resources` by their names in CRI."""
        config = _messages.ContainerConfig(
            metadata={"name": name},
            image={"image": self._image},
            command=command,
            envs=[{"key": key, "value": value} for key, value in (env or {}).items()],
            labels=labels,
            annotations=annotations,
            log_path=log_path,
            linux={"resources": dict(resources or {})},
        )
        request = _messages.CreateContainerRequest(
            pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config
        )
        container: str = self._call("CreateContainer", request).container_id
        return container

    def run(self, pod: Pod, name: str = "ctr", **more: Any) -> str:
        """Create and start."""
        container = self.create(pod, name, **more)
        self.start(container)
        return container

    def start(self, container: str) -> None:
        self._call("StartContainer", _messages.ContainerRequest(container_id=container))

    def stop(self, container: str) -> None:
        """Kill it."""
        self._call("StopContainer", _messages.ContainerRequest(container_id=container))

    def remove(self, container: str) -> None:
        self._call("RemoveContainer", _messages.ContainerRequest(container_id=container))

    def update(self, container: str, **resources: int) -> None:
        """Change resources, by their names in CRI."""
        request = _messages.UpdateContainerResourcesRequest(container_id=container, linux=resources)
        self._call("UpdateContainerResources", request)

    def containers(self) -> list[str]:
        """Their ids."""
        answer = self._call("ListContainers", _messages.Nothing())
        return [container.id for container in answer.containers]

    def exec(self, container: str, *command: str) -> Ran:
        """Run a command inside and wait for its end."""
        request = _messages.ExecSyncRequest(container_id=container, cmd=command)
        answer = self._call("ExecSync", request)
        return Ran(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def spec(self, container: str) -> dict[str, Any]:
        """The container's OCI runtime specification, as `crictl inspect` shows it."""
        request = _messages.ContainerStatusRequest(container_id=container, verbose=True)
        info = json.loads(self._call("ContainerStatus", request).info["info"])
        spec: dict[str, Any] = info["runtimeSpec"]
        return spec

    def _call(self, method: str, request: Any) -> Any:
        try:
            # While the runtime is restarted, wait for it.
            return getattr(self._runtime, method)(request, timeout=TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            raise CriError(error.details()) from None


def env_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a specification."""
    return dict(each.split("=", 1) for each in spec["process"].get("env", []))
