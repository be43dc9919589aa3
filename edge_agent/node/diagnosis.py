"""`edge-agent doctor` for the fleet: in a child, whose memory goes back when it has looked."""

import json
import os
import signal
import threading
from pathlib import Path

from edge_agent.node.requests import Job
from edge_agent.subprocess_python import command

TIMEOUT_S = 60.0  # the broker's five seconds and a slow board's imports fit many times
MAX_OUTPUT_BYTES = 256 * 1024
_MAIN = "from edge_agent.__main__ import main; sys.exit(main(sys.argv[1:]))"


def examine(job: Job, config_path: Path) -> None:
    """Answer the job with doctor's findings. Waits: for a thread of its own."""
    try:
        findings = _findings(config_path)
    except Exception as error:
        job.failed(f"doctor did not come to an end: {error}")
        return
    job.succeeded(findings)


def _findings(config_path: Path) -> dict[str, object]:
    import subprocess  # costs memory, and most nodes are never asked

    child = subprocess.Popen(
        command(_MAIN, "doctor", "--json", "-c", str(config_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that it can be killed with all that it started
    )
    assert child.stdout is not None
    watch = threading.Timer(TIMEOUT_S, os.killpg, (child.pid, signal.SIGKILL))
    watch.start()
    try:
        said = child.stdout.read(MAX_OUTPUT_BYTES)
    finally:
        child.stdout.close()
        child.wait()
        watch.cancel()
    if child.returncode < 0:
        raise TimeoutError(f"ended by {signal.Signals(-child.returncode).name}")
    found = json.loads(said)
    if not isinstance(found, dict):
        raise ValueError("its findings are no object")
    return found
