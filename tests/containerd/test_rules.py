"""Rules on a real containerd: what they give is in the specification and inside the container."""

import json
from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError, env_of

MIB = 1 << 20
RULES = "20-rules"
POLICY = """
- rule: all
  default: {memory: 48Mi, pids: 77}
  cap: {memory: 96Mi}
  set: {rlimits: {nofile: "100:200"}, oom-score-adj: 500}
  remove: {env: LD_*}

- rule: relay
  when: {namespace: machines, label: {edge.example/relay: "yes"}}
  add:
    devices: [{path: /dev/relay0, type: c, major: 1, minor: 7, file_mode: 0640, gid: 20}]
  set: {env: {RELAY: "of $(namespace)/$(label edge.example/relay)"}}

- rule: accelerator
  when: {namespace: vision}
  add: {cdi-devices: [edge.example/apex=0]}

- rule: no shells
  when: {namespace: closed, argv: [/bin/sh, ...]}
  deny: "$(container) is a shell"
"""
# As docs/devices.md has it, of a device that every Linux has.
CDI = {
    "cdiVersion": "0.6.0",
    "kind": "edge.example/apex",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/apex_0", "hostPath": "/dev/full"}],
                "env": ["APEX=0"],
            },
        }
    ],
}


def describe(containerd: Containerd) -> None:
    described = Path(f"/proc/{containerd.pid}/root/etc/cdi")  # as it is in its namespaces
    described.mkdir(exist_ok=True)
    (described / "apex.json").write_text(json.dumps(CDI))


def test_what_rules_give_is_in_the_specification_and_inside(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    describe(containerd)
    plugins, configs = {RULES: guest("rules")}, {RULES: POLICY}
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs=configs
    ) as agent:
        agent.wait_running(RULES)
        machine = cri.run_pod(namespace="machines", labels={"edge.example/relay": "yes"})
        relay = cri.run(machine, env={"LD_PRELOAD": "/x.so", "OWN": "stays"})
        spec = cri.spec(relay)
        assert spec["linux"]["resources"]["memory"]["limit"] == 48 * MIB
        assert spec["linux"]["resources"]["pids"]["limit"] == 77
        assert spec["process"]["oomScoreAdj"] == 500
        assert {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200} in spec["process"]["rlimits"]
        assert env_of(spec)["RELAY"] == "of machines/yes"
        (device,) = (each for each in spec["linux"]["devices"] if each["path"] == "/dev/relay0")
        assert (device["major"], device["minor"], device["fileMode"]) == (1, 7, 0o640)
        inside = cri.exec(relay, "sh", "-c", "ulimit -n; echo $LD_PRELOAD.$OWN; echo > /dev/relay0")
        assert inside.output == "100\n.stays\n"
        assert "No space left on device" in inside.errors

        vision = cri.run(cri.run_pod(namespace="vision"))
        assert env_of(cri.spec(vision))["APEX"] == "0"
        inside = cri.exec(vision, "sh", "-c", "echo > /dev/apex_0")
        assert "No space left on device" in inside.errors
        assert cri.exec(vision, "ls", "/dev/relay0").code != 0

        closed = cri.run_pod(namespace="closed")
        with pytest.raises(CriError, match=r"ctr is a shell \(rule no shells, line 18\)"):
            cri.create(closed, command=["/bin/sh", "-c", "id"])
        big = cri.run(closed, resources={"memory_limit_in_bytes": 512 * MIB})
        assert cri.spec(big)["linux"]["resources"]["memory"]["limit"] == 96 * MIB
        cri.update(big, memory_limit_in_bytes=256 * MIB)
        limit = containerd.cgroup_file(big, "memory", "memory.limit_in_bytes", "memory.max")
        assert int(limit) == 96 * MIB
        assert agent.entry(RULES)["failures"] in ({}, {"error": 1})


ASKED = "cdi-devices.noderesource.dev"
BY_RULES = f"""
- rule: on request
  add: {{cdi-devices: {{from-annotations: [{ASKED}], allowed: ["edge.example/*"]}}}}
"""


@pytest.mark.parametrize(
    ("name", "config"),
    [("device-injector", "cdi-device edge.example/*\n"), ("rules", BY_RULES)],
)
def test_a_pod_gets_the_cdi_device_that_it_asks_for(
    containerd: Containerd, cri: Cri, tmp_path: Path, name: str, config: str
) -> None:
    describe(containerd)
    plugins, configs = {f"10-{name}": guest(name)}, {f"10-{name}": config}
    with Agent(
        tmp_path, sockets=[containerd.nri_socket], plugins=plugins, configs=configs
    ) as agent:
        agent.wait_running(f"10-{name}")
        pod = cri.run_pod(annotations={f"{ASKED}/container.vision": "- edge.example/apex=0\n"})
        inside = cri.exec(cri.run(pod, "vision"), "sh", "-c", "echo > /dev/apex_0")
        assert "No space left on device" in inside.errors
        assert cri.exec(cri.run(pod, "other"), "ls", "/dev/apex_0").code != 0
        pod = cri.run_pod(annotations={ASKED: "- other.example/apex=0\n"})
        with pytest.raises(CriError, match="no rule of the configuration allows CDI device other"):
            cri.create(pod)
