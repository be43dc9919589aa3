"""Pods and containers made through CRI are adjusted by Wasm plugins, in C and in Go."""

from pathlib import Path

import pytest

from tests.support.agent import PLUGINS, Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError, Ran, env_of
from tests.support.gobuild import go_annotator_module, require_go

MIB = 1 << 20


def test_a_c_plugins_annotation_and_variable_reach_specification_and_process(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {"10-bench": guest("bench")}
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-bench")
        container = cri.run(cri.run_pod(), env={"OWN": "stays"})
        spec = cri.spec(container)
        assert spec["annotations"]["edge.bench/plugin"] == "c"
        assert env_of(spec)["EDGE_BENCH"] == "c"
        inside = cri.exec(container, "env").output.splitlines()
        assert {"EDGE_BENCH=c", "OWN=stays"} <= set(inside)


def test_the_go_plugin_runs_unmodified_beside_a_c_plugin(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    require_go()
    config = "env GREETING=hello from Go\nannotation edge.example/by=annotator\n"
    with Agent(
        tmp_path,
        sockets=[containerd.nri_socket],
        plugins={"10-bench": guest("bench"), "20-go-annotator": go_annotator_module()},
        configs={"20-go-annotator": config},
    ) as agent:
        agent.wait_running("10-bench", "20-go-annotator")
        container = cri.run(cri.run_pod(), "greeted")
        annotations = cri.spec(container)["annotations"]
        assert annotations["edge.example/by"] == "annotator"
        assert annotations["edge.bench/plugin"] == "c"
        inside = cri.exec(container, "env").output.splitlines()
        assert {"GREETING=hello from Go", "EDGE_BENCH=c"} <= set(inside)
        agent.wait_for_line("adjusting container greeted")


def test_device_injector_gives_the_devices_that_the_pods_annotations_name(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    # /dev/full under another name: opened and written to inside, it says what it is.
    wish = "- {path: /dev/relay0, type: c, major: 1, minor: 7, file_mode: 0640, gid: 20}\n"
    plugins = {"10-device-injector": guest("device-injector")}
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-device-injector")
        pod = cri.run_pod(annotations={"devices.noderesource.dev/container.motor": wish})
        motor, other = cri.run(pod, "motor"), cri.run(pod, "other")

        devices = cri.spec(motor)["linux"]["devices"]
        (device,) = (each for each in devices if each["path"] == "/dev/relay0")
        assert (device["type"], device["major"], device["minor"]) == ("c", 1, 7)
        assert (device["fileMode"], device["gid"]) == (0o640, 20)
        found = cri.exec(motor, "stat", "-c", "%F %t:%T %a %g", "/dev/relay0")
        assert found == Ran(0, "character special file 1:7 640 20\n", "")
        written = cri.exec(motor, "sh", "-c", "echo on > /dev/relay0")
        assert "No space left on device" in written.errors

        assert agent.entry("10-device-injector")["failures"] == {}
        assert "/dev/relay0" not in str(cri.spec(other))
        assert cri.exec(other, "ls", "/dev/relay0").code != 0


def test_resource_guard_limits_containers_that_have_no_limit_and_lowers_too_high_ones(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with Agent(
        tmp_path,
        sockets=[containerd.nri_socket],
        plugins={"10-resource-guard": guest("resource-guard")},
        configs={
            "10-resource-guard": "[default]\n"
            "memory.default = 48Mi\nmemory.maximum = 96Mi\npids.default = 77\n"
        },
    ) as agent:
        agent.wait_running("10-resource-guard")
        pod = cri.run_pod()
        without = cri.run(pod, "without")
        greedy = cri.run(pod, "greedy", resources={"memory_limit_in_bytes": 512 * MIB})
        modest = cri.run(pod, "modest", resources={"memory_limit_in_bytes": 16 * MIB})

        def limit(container: str) -> int:
            return int(cri.spec(container)["linux"]["resources"]["memory"]["limit"])

        def kernels_limit(container: str) -> int:
            text = containerd.cgroup_file(
                container, "memory", "memory.limit_in_bytes", "memory.max"
            )
            return int(text)

        for container, size in ((without, 48), (greedy, 96), (modest, 16)):
            assert limit(container) == size * MIB
            assert kernels_limit(container) == size * MIB
        assert cri.spec(without)["linux"]["resources"]["pids"]["limit"] == 77
        assert containerd.cgroup_file(without, "pids", "pids.max", "pids.max") == "77"

        # This containerd applies all of it, and what it shows afterwards says so.
        assert agent.entry("10-resource-guard")["failures"] == {}

        cri.update(modest, memory_limit_in_bytes=256 * MIB)
        assert kernels_limit(modest) == 96 * MIB


RULES = """
- rule: limits
  default: {memory: 48Mi, pids: 77}
  cap: {memory: 96Mi}
  set: {oom-score-adj: 321, rlimits: {nofile: "100:200"}}
  remove: {env: LD_*}
- rule: a relay for the motor
  when: {namespace: machines, container: motor, image: localhost/busybox}
  add: {devices: [{path: /dev/relay0, type: c, major: 1, minor: 7, file_mode: 0640, gid: 20}]}
  set: {env: {WHO: "$(pod)/$(container)"}, annotations: {edge.example/by: rules}}
- rule: no other images
  unless: {image: localhost/*}
  deny: "$(image) is not on the list"
- rule: nobody but the motor in this namespace
  when: {namespace: machines}
  unless: {container: motor}
  deny: "$(container) is no motor"
- rule: closed
  on: run_pod_sandbox
  when: {namespace: closed}
  deny: this namespace is closed
"""


def test_rules_reach_the_specification_and_the_process_and_refuse(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins, configs = {"10-rules": guest("rules")}, {"10-rules": RULES}
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs=configs
    ) as agent:
        agent.wait_running("10-rules")
        pod = cri.run_pod(namespace="machines")
        motor = cri.run(
            pod,
            "motor",
            env={"LD_PRELOAD": "/tmp/x.so", "OWN": "stays"},
            resources={"memory_limit_in_bytes": 512 * MIB},
        )
        spec = cri.spec(motor)
        resources = spec["linux"]["resources"]
        assert (resources["memory"]["limit"], resources["pids"]["limit"]) == (96 * MIB, 77)
        assert spec["process"]["oomScoreAdj"] == 321
        assert {"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100} in spec["process"]["rlimits"]
        assert spec["annotations"]["edge.example/by"] == "rules"
        assert env_of(spec)["WHO"] == f"{pod.name}/motor"
        (device,) = (each for each in spec["linux"]["devices"] if each["path"] == "/dev/relay0")
        assert (device["major"], device["minor"], device["fileMode"]) == (1, 7, 0o640)

        inside = cri.exec(motor, "env").output.splitlines()
        assert f"WHO={pod.name}/motor" in inside
        assert "OWN=stays" in inside
        assert [line for line in inside if line.startswith("LD_")] == ["LD_PRELOAD="]
        assert cri.exec(motor, "sh", "-c", "ulimit -n").output == "100\n"
        written = cri.exec(motor, "sh", "-c", "echo on > /dev/relay0")
        assert "No space left on device" in written.errors
        assert containerd.cgroup_file(motor, "pids", "pids.max", "pids.max") == "77"

        cri.update(motor, memory_limit_in_bytes=256 * MIB)
        limit = containerd.cgroup_file(motor, "memory", "memory.limit_in_bytes", "memory.max")
        assert int(limit) == 96 * MIB

        with pytest.raises(CriError, match="other is no motor"):
            cri.create(pod, "other")
        with pytest.raises(CriError, match="this namespace is closed"):
            cri.run_pod(namespace="closed")
        assert agent.entry("10-rules")["failures"] == {}


def test_every_kind_of_event_that_this_runtime_has_reaches_a_plugin(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with Agent(
        tmp_path,
        sockets=[containerd.nri_socket],
        plugins={"10-event-logger": guest("event-logger")},
        configs={"10-event-logger": "namespace = events"},
    ) as agent:
        agent.wait_running("10-event-logger")
        pod = cri.run_pod(namespace="events")
        container = cri.run(pod, "seen")
        cri.update(container, cpu_shares=512)
        cri.stop(container)
        cri.remove(container)
        cri.remove_pod(pod)
        agent.wait_for_line("remove_pod_sandbox")
        said = [each.split() for each in agent.messages("10-event-logger") if pod.name in each]
        (runtime,) = agent.status()["runtimes"]

    of_pod, of_container = [f"events/{pod.name}"], [f"events/{pod.name}", "seen"]
    assert said == [
        ["run_pod_sandbox", *of_pod],
        ["create_container", *of_container],
        ["post_create_container", *of_container],
        ["start_container", *of_container],
        ["post_start_container", *of_container],
        ["update_container", *of_container],
        ["post_update_container", *of_container],
        ["stop_container", *of_container],
        ["remove_container", *of_container],
        ["stop_pod_sandbox", *of_pod],
        ["remove_pod_sandbox", *of_pod],
    ]
    assert runtime["name"] == "containerd"
    assert runtime["version"].startswith("2.1.")
    assert "nri_version" not in runtime  # this generation sends none


def test_a_mask_beyond_what_the_runtime_knows_is_cut_and_taken(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {"10-hostile": guest("hostile")}  # asks for events 1 to 14
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-hostile")
        cri.create(cri.run_pod())
        entry = agent.entry("10-hostile")
        assert (entry["restarts"], entry["failures"]) == (0, {})
        (asked,) = (each for each in agent.messages("10-hostile") if " asked for " in each)
        for event in ("UpdatePodSandbox", "PostUpdatePodSandbox", "ValidateContainerAdjustment"):
            assert event in asked
    # The fixture looks for the words of a runtime that drops a plugin for its mask.


def test_all_of_the_projects_plugins_serve_together(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    names = sorted(path.stem for path in PLUGINS.glob("*/*.wasm"))
    plugins = {f"{index:02}-{name}": guest(name) for index, name in enumerate(names, 10)}
    configs = {each: "localhost/*\n" for each in plugins if each.endswith("image-policy")}
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs=configs
    ) as agent:
        agent.wait_running(*plugins)
        pod = cri.run_pod()
        cri.run(pod)
        cri.remove_pod(pod)
        for identity in plugins:
            assert agent.entry(identity)["failures"] == {}
