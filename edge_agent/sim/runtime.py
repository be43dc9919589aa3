"""A container runtime without containers: pods, containers and what plugins make of them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from edge_agent.pb import nri_pb2
from edge_agent.sim.containers import Conflict, Merge, update_resources
from edge_agent.sim.nri_service import REQUEST_TIMEOUT_S, NriService
from edge_agent.sim.plugin_connection import Outcome


class SimRuntime(NriService):
    """See `NriService`. `split_sync`: so many pods and containers in a part of a sync."""

    def __init__(
        self,
        path: Path | str,
        generation: str = "new",
        name: str = "sim",
        version: str = "v1.0.0",
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        refuse: Callable[[str, str], str] = lambda index, name: "",  # noqa: ARG005
        split_sync: int | None = None,
    ) -> None:
        super().__init__(
            path, generation, name, version, request_timeout_s=request_timeout_s, refuse=refuse
        )
        self.split_sync = split_sync
        self.pods: dict[str, nri_pb2.PodSandbox] = {}
        self.containers: dict[str, nri_pb2.Container] = {}
        self._made = 0  # pods and containers so far

    def __enter__(self) -> "SimRuntime":
        self.start()
        return self

    # --- pods and containers

    def run_pod(
        self,
        name: str,
        namespace: str = "default",
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Make a pod and tell the plugins; it runs if none of them objects."""
        with self._lock:
            pod = nri_pb2.PodSandbox(
                id=self._new_id(namespace, name),
                name=name,
                uid=f"uid-{name}",
                namespace=namespace,
                annotations=annotations,
                labels=labels,
                pid=10_000 + self._made,
            )
            self.pods[pod.id] = pod
            outcome = self.event("RunPodSandbox", pod=pod)
            if not outcome.ok:
                del self.pods[pod.id]
            return outcome

    def create_container(
        self,
        pod: nri_pb2.PodSandbox,
        name: str,
        *,
        image: str = "localhost/busybox:1",
        args: Sequence[str] = ("/bin/sh",),
        env: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
        container: nri_pb2.Container | None = None,
        start: bool = True,
    ) -> Outcome:
        """Create a container; the events after its creation follow unless `start` is false.

        `container` gives fields that the other arguments do not.
        """
        wanted = nri_pb2.Container()
        wanted.MergeFrom(container or nri_pb2.Container())
        wanted.MergeFrom(
            nri_pb2.Container(
                pod_sandbox_id=pod.id,
                name=name,
                image=nri_pb2.Image(name=image),
                args=args,
                env=env,
                annotations=annotations,
                labels=labels,
            )
        )
        if memory_bytes is not None:
            wanted.linux.resources.memory.limit.value = memory_bytes
        with self._lock:
            wanted.id = wanted.id or self._new_id(pod.id, name)
            outcome = self._create(pod, wanted)
            if outcome.ok:
                self.containers[wanted.id] = outcome.container
                if start:
                    self._start(outcome)
            return outcome

    def update_container(
        self, container: nri_pb2.Container, resources: nri_pb2.LinuxResources
    ) -> Outcome:
        """Change a running container's resources."""
        pod = self.pods[container.pod_sandbox_id]
        with self._lock:
            outcome = self.event(
                "UpdateContainer", pod=pod, container=container, linux_resources=resources
            )
            if outcome.ok:
                asked = nri_pb2.ContainerUpdate(container_id=container.id)
                asked.linux.resources.CopyFrom(resources)
                self._update([asked, *outcome.updates])
                outcome.add(self.event("PostUpdateContainer", pod=pod, container=container))
            return outcome

    def stop_pod(self, pod: nri_pb2.PodSandbox) -> Outcome:
        """Stop and remove the pod's containers, then the pod, whatever plugins say."""
        with self._lock:
            outcome = Outcome("StopPodSandbox", nri_pb2.StopPodSandboxRequest(pod=pod), pod=pod)
            for container in [c for c in self.containers.values() if c.pod_sandbox_id == pod.id]:
                container.state = nri_pb2.CONTAINER_STOPPED
                for method in ("StopContainer", "RemoveContainer"):
                    outcome.add(self.event(method, pod=pod, container=container))
                del self.containers[container.id]
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                outcome.add(self.event(method, pod=pod))
            self.pods.pop(pod.id, None)
            return outcome

    # --- for the service

    def sync_parts(self) -> list[nri_pb2.SynchronizeRequest]:
        pods, containers = list(self.pods.values()), list(self.containers.values())
        size = self.split_sync or max(len(pods), len(containers), 1)
        parts: list[nri_pb2.SynchronizeRequest] = []
        while pods or containers or not parts:
            parts.append(
                nri_pb2.SynchronizeRequest(
                    pods=pods[:size], containers=containers[:size], more=True
                )
            )
            del pods[:size], containers[:size]
        parts[-1].more = False
        return parts

    def update_unsolicited(self, request: nri_pb2.UpdateContainersRequest) -> list[str]:
        return self._update(request.update)

    # --- the steps of a creation

    def _create(self, pod: nri_pb2.PodSandbox, wanted: nri_pb2.Container) -> Outcome:
        asked = nri_pb2.CreateContainerRequest(pod=pod, container=wanted)
        request = nri_pb2.CreateContainerRequest(pod=pod, container=wanted)
        outcome = Outcome("CreateContainer", asked, pod=pod)
        merge = Merge(request.container)  # each plugin sees what those before it made
        every = nri_pb2.ContainerAdjustment()
        for answer in self.ask_all(outcome, "CreateContainer", request):
            reply = self.read_reply(outcome, answer, "CreateContainer")
            if reply is not None:
                try:
                    merge.adjust(reply.adjust, answer.plugin)
                except Conflict as conflict:
                    outcome.error = str(conflict)
                every.MergeFrom(reply.adjust)
        outcome.container.CopyFrom(request.container)
        outcome.container.state = nri_pb2.CONTAINER_CREATED
        outcome.owners = merge.owners
        if outcome.ok:
            self._validate(outcome, every)
        if outcome.ok:
            self._update(outcome.updates)
        return outcome

    def _validate(self, outcome: Outcome, adjustment: nri_pb2.ContainerAdjustment) -> None:
        method = "ValidateContainerAdjustment"
        asked = outcome.request
        assert isinstance(asked, nri_pb2.CreateContainerRequest)
        request = nri_pb2.ValidateContainerAdjustmentRequest(
            pod=asked.pod,
            container=asked.container,
            adjust=adjustment,
            update=outcome.updates,
            plugins=[
                nri_pb2.PluginInstance(name=plugin.name, index=plugin.index)
                for plugin in self._plugins
            ],
        )
        for answer in self.ask_all(outcome, method, request):
            if answer.dropped:
                outcome.error = f"validator plugin {answer.plugin} failed: {answer.error}"
            verdict = self.read_reply(outcome, answer, method)
            if verdict is not None and verdict.reject:
                reason = verdict.reason or "without a reason"
                outcome.error = f"validator plugin {answer.plugin} rejects the container: {reason}"

    def _start(self, created: Outcome) -> None:
        for method in ("PostCreateContainer", "StartContainer", "PostStartContainer"):
            if method == "PostStartContainer":
                created.container.state = nri_pb2.CONTAINER_RUNNING
            created.add(self.event(method, pod=created.pod, container=created.container))

    def _update(self, updates: Iterable[nri_pb2.ContainerUpdate]) -> list[str]:
        """Apply updates; gives the ids of containers that are not there."""
        missing = []
        for update in updates:
            container = self.containers.get(update.container_id)
            if container is None:
                missing.append(update.container_id)
            else:
                update_resources(container, update)
        return missing

    def _new_id(self, *words: str) -> str:
        self._made += 1
        return hashlib.sha256("/".join((*words, str(self._made))).encode()).hexdigest()
