"""The fixture itself: what it leaves behind, two at once, and the requests recorded with it."""

import signal
import subprocess
import sys
from pathlib import Path

from google.protobuf.message import Message

from edge_agent.pb import nri_pb2
from tests.containerd.record import path_of, record
from tests.support.agent import ROOT
from tests.support.containerd import Containerd
from tests.support.cri import Cri
from tests.support.wait import wait_until

ANOTHER_RUN = """
from tests.support.containerd import Containerd
with Containerd() as containerd:
    containerd.cri.run(containerd.cri.run_pod())
    print(containerd.folder, containerd.pid, flush=True)
    input()
"""
MESSAGES: dict[str, type[Message]] = {
    "configure": nri_pb2.ConfigureRequest,
    "synchronize": nri_pb2.SynchronizeRequest,
    "state_change": nri_pb2.StateChangeEvent,
    "run_pod_sandbox": nri_pb2.RunPodSandboxRequest,
    "create_container": nri_pb2.CreateContainerRequest,
}


def test_a_killed_test_run_leaves_nothing_and_disturbs_no_other(
    containerd: Containerd, cri: Cri
) -> None:
    container = cri.run(cri.run_pod())
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_RUN],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        folder, pid = run.stdout.readline().split()
        assert Path(folder) != containerd.folder
        assert list(Path("/sys/fs/cgroup").rglob(Path(folder).name))
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(folder).exists(), f"{folder} is removed")
    assert not Path("/proc", pid).exists()
    assert not list(Path("/sys/fs/cgroup").rglob(Path(folder).name))
    assert folder not in Path("/proc/mounts").read_text()
    assert "PATH" in cri.exec(container, "env").output


def test_the_recorded_requests_are_what_this_containerd_sends(
    containerd: Containerd, tmp_path: Path
) -> None:
    """Field by field; the values are of their time (ids, process numbers)."""
    for name, request in record(containerd, tmp_path).items():
        kind = MESSAGES[name]
        size = path_of(name).stat().st_size
        recorded = kind.FromString(path_of(name).read_bytes())
        assert _fields(recorded) == _fields(kind.FromString(request))
        recorded.DiscardUnknownFields()
        assert recorded.ByteSize() == size  # no field of upstream's is missing in proto/


def _fields(message: Message) -> set[str]:
    """Paths of the fields that are set."""
    found = set()
    for field, value in message.ListFields():
        found.add(field.name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else [value]:
            found |= {f"{field.name}.{below}" for below in _fields(each)}
    return found
