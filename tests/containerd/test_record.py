"""Events of a real containerd, recorded at a running agent and replayed at another version."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.authors import recording
from edge_agent.pb import nri_pb2
from tests.support.agent import Agent, guest
from tests.support.assembler import i32
from tests.support.containerd import Containerd
from tests.support.cri import Cri
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
    assert (head["redacted"], head["dropped"]) == (["env"], 0)
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
