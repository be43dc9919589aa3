"""image-policy on a real containerd: what is on the list runs, what is not is refused."""

from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError

POLICY = "30-image-policy"


def test_an_image_on_the_list_runs_and_another_one_is_refused(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {POLICY: guest("image-policy")}
    listed = "localhost/busybox:1 /bin/sleep 1000\n[namespace trusted]\nlocalhost/*\n"
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs={POLICY: listed}
    ) as agent:
        agent.wait_running(POLICY)
        pod, trusted = cri.run_pod(), cri.run_pod(namespace="trusted")
        runs = cri.run(pod, "listed", command=["/bin/sleep", "1000"])
        assert cri.exec(runs, "sh", "-c", "echo here").output == "here\n"
        assert "here" in cri.exec(cri.run(trusted, "any"), "sh", "-c", "echo here").output
        refused = (
            f"plugin {POLICY}: localhost/busybox:1 is on the list, but not with the arguments /b"
        )
        with pytest.raises(CriError, match=refused):
            cri.create(pod, "other", command=["/bin/sh", "-c", "id"])

        agent.put(POLICY, config="registry.example/*\n")
        agent.wait_replaced(POLICY, restarts=0)
        agent.wait_for_line(
            "/listed runs already: localhost/busybox:1 is not on the list of images"
        )
        for where in (pod, trusted):
            with pytest.raises(CriError, match="localhost/busybox:1 is not on the list of images"):
                cri.create(where, "beside", command=["/bin/sleep", "1000"])
        assert cri.exec(runs, "sh", "-c", "echo still").output == "still\n"

        agent.put(POLICY, settings={"mode": "monitor"})
        agent.wait_replaced(POLICY, restarts=1)
        cri.run(pod, "monitored", command=["/bin/sleep", "1000"])
        agent.wait_for(
            lambda _: agent.entry(POLICY)["would_reject"] == 1, "the refusal is only reported"
        )


def test_annotations_of_a_pod_are_no_way_onto_the_list(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    forged = {
        "io.kubernetes.cri.image-name": "registry.example/app:1",
        "io.kubernetes.cri-o.ImageName": "registry.example/app:1",
    }
    plugins = {POLICY: guest("image-policy")}
    configs = {POLICY: "registry.example/*\n"}
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs=configs
    ) as agent:
        agent.wait_running(POLICY)
        pod = cri.run_pod(annotations=forged)
        for own in ({}, forged):  # and of the container, which only the kubelet writes
            with pytest.raises(CriError, match=f"plugin {POLICY}: "):
                cri.create(pod, annotations=own)
