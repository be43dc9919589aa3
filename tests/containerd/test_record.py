"""Events of a real containerd, recorded at a running agent and replayed at another version."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.authors import recording
from edge_agent.config.model import HIDDEN_BY_DEFAULT
from edge_agent.control import ask
from edge_agent.pb import nri_pb2
from tests.operator.conftest import Home
from tests.support.agent import Agent, Status, guest
from tests.support.assembler import i32
from tests.support.containerd import Containerd
from tests.support.cri import Cri
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import TIMEOUT_S, wait_until
from tests.wasm.plugins import packed, plugin

SECRET = "hunter2"


def marking(**env: str) -> bytes:
    """A plugin that gives every container an annotation, and these variables."""
    reply = nri_pb2.CreateContainerResponse()
    reply.adjust.annotations["team"] = "sensors"
    for key, value in env.items():
        reply.adjust.env.add(key=key, value=value)
    raw = reply.SerializeToString()
    return plugin({"create_container": packed(i32(1024), i32(len(raw)))}, data={1024: raw})


def test_a_recording_shows_exactly_the_difference_between_two_versions(
    containerd: Containerd, cri: Cri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.edgerec"
    plugins: dict[str, Path | bytes] = {"10-marker": marking(), "20-other": guest("bench")}
    with Agent(tmp_path / "agent", sockets=[containerd.nri_socket], plugins=plugins) as agent:
        agent.wait_running("10-marker", "20-other")
        command = [sys.executable, "-m", "edge_agent", "record", "-c", str(agent.config_path)]
        command += ["--plugin", "10-marker", "--events", "create_container", "--count", "3"]
        record = subprocess.Popen([*command, "-o", file], stderr=subprocess.PIPE, text=True)
        try:
            assert record.stderr is not None
            assert "recording up to 3" in record.stderr.readline()
            pod = cri.run_pod()
            for name in ("first", "second", "third"):
                made = cri.run(pod, name, env={"TOKEN": SECRET})
                assert f"TOKEN={SECRET}" in cri.spec(made)["process"]["env"]
            assert record.wait(60) == 0
        finally:
            record.kill()
            record.communicate()
    events = list(recording.read(file))
    assert [each.plugin for each in events] == ["10-marker"] * 3
    assert [each.message().container.name for each in events] == ["first", "second", "third"]  # type: ignore[attr-defined]
    assert SECRET.encode() not in b"".join(each.request for each in events)
    assert f"TOKEN={recording.HIDDEN}" in events[0].message().container.env  # type: ignore[attr-defined]
    head = json.loads(gzip.decompress(file.read_bytes()).split(b"\n")[0])
    assert (head["redacted"], head["dropped"]) == (list(HIDDEN_BY_DEFAULT), 0)
    assert head["ended"] == "count"
    assert file.stat().st_mode & 0o077 == 0

    old, new = tmp_path / "10-old.wasm", tmp_path / "10-new.wasm"
    old.write_bytes(marking())
    new.write_bytes(marking(MODE="fast"))

    def replay(*words: object) -> tuple[int, list[str]]:
        code = main(["plugin", "replay", *map(str, words)])
        return code, capsys.readouterr().out.splitlines()

    # The same version does the same, beside itself and beside what was recorded.
    assert replay(old, file) == (0, ["3 events, 0 differ, 0 not as expected"])
    assert replay(old, file, "--against", old) == (0, ["3 events, 0 differ, 0 not as expected"])
    code, lines = replay(new, file, "--against", old)
    assert code == 1
    assert lines[1::2] == ["    now: + env MODE=fast"] * 3
    assert lines[0].startswith("event 1, CreateContainer of ")
    assert lines[-1] == "3 events, 3 differ, 3 not as expected"
    assert replay(new, file, "--expect", "now: + env MODE=*")[0] == 0
    assert replay(new, file, "--expect", "now: + env OTHER=*")[0] == 1


MANIFEST = "kubectl.kubernetes.io/last-applied-configuration"


@needs_mosquitto
def test_a_fleets_recording_decides_over_a_rollout(
    containerd: Containerd, cri: Cri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"1.0.0": marking(), "1.1.0": marking(MODE="fast")}
    file = tmp_path / "events.edgerec"
    with Mosquitto(tmp_path) as broker:
        home = Home(tmp_path / "operator", broker.port, capsys)
        home.fleet("keygen", "alice")
        home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
        for version, wasm in versions.items():
            module = tmp_path / f"{version}.wasm"
            module.write_bytes(wasm)
            home.fleet("publish", str(module), "--name", "marker", "--version", version)
        home.fleet("rollout", "marker", "1.0.0", "--percent", "100", "--index", "10", "-y")
        with Agent(
            tmp_path / "agent",
            sockets=[containerd.nri_socket],
            node="board-1",
            fleet="greenhouse",
            mqtt={"url": f"mqtt://127.0.0.1:{broker.port}", "reconnect_min": "50ms"},
            updates={"trust_dir": str(home.path / "trust")},
            requests={"allow": ["sync", "record"]},
        ) as agent:
            agent.wait_for(serves("1.0.0"), "the first version is at the runtime")
            key = agent.folder / "state" / "node.pem"
            home.fleet("enrol", "board-1", "--key", str(key), "-y")
            words = ["--plugin", "10-marker", "--events", "create_container", "--count", "3"]
            record = subprocess.Popen(
                [
                    *(sys.executable, "-m", "edge_agent", "fleet", "request", "board-1", "record"),
                    *("-C", str(home.path), "--keys", str(home.keys), "-o", str(file)),
                    *(*words, "--seconds", "300"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                pod = cri.run_pod(annotations={MANIFEST: f"value: {SECRET}"})
                # It is the agent's first, so it has this number; nothing is there to be taken yet.
                wait_until(
                    lambda: "problem" not in ask(agent.control_socket, "record", take=1),
                    "the board records",
                )
                for _ in range(3):
                    cri.remove(cri.create(pod, env={"TOKEN": SECRET}))
                told = record.communicate(timeout=TIMEOUT_S)[0].splitlines()
            finally:
                record.kill()
                record.communicate()
            assert record.returncode == 0, told
            assert told[:2] == ["board-1 record: accepted", "board-1 record: running"]
            assert told[2].startswith(f"3 events in {file}, ")
            assert told[2].endswith("; it ended by count")
            assert not [line for line in told if "not enrolled" in line]

            events = list(recording.read(file))
            assert [each.event for each in events] == ["CreateContainer"] * 3
            assert SECRET.encode() not in b"".join(each.request for each in events)
            assert events[0].message().pod.annotations[MANIFEST] == recording.HIDDEN  # type: ignore[attr-defined]

            before = (home.path / "deployment.toml").read_text()
            rollout = ("rollout", "marker", "1.1.0", "--percent", "100", "-y")
            replay = ("--replay", str(file))
            code, output, errors = home.tried(*rollout, *replay)
            assert code == 1
            assert output.count("    now: + env MODE=fast") == 3
            assert "marker 1.0.0 and 1.1.0 differ otherwise than --expect declares" in errors
            code, _, errors = home.tried(*rollout, *replay, "--expect", "now: + env OTHER=*")
            assert code == 1
            assert "at 3 of 3 events; nothing is deployed" in errors
            more = ("--expect", "now: + env MODE=*", "--expect", "before: - mount *")
            code, _, errors = home.tried(*rollout, *replay, *more)
            assert code == 1
            assert "no event of" in errors
            assert "shows the declared difference 'before: - mount *'" in errors
            assert (home.path / "deployment.toml").read_text() == before

            output = home.fleet(*rollout, *replay, *more[:2])
            assert "marker 1.0.0 and 1.1.0: 3 events, 3 differ, 0 not as expected" in output
            agent.wait_for(serves("1.1.0"), "the second version is at the runtime")


def serves(version: str) -> Callable[[Status], bool]:
    """Whether this version of the marker answers the runtime, and nothing else does."""
    return lambda status: any(
        each["name"] == "marker"
        and each.get("version") == version
        and each["status"] in ("running", "probation")
        and each.get("running", each.get("digest")) == each.get("digest")
        and "refusing" not in each
        for each in status["plugins"]
    )
