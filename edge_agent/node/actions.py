"""Actions for the requests of the fleet: one method for each verb, all on the loop."""

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from edge_agent import threads
from edge_agent.errors import RequestError
from edge_agent.host.supervisor import Supervisor
from edge_agent.node.log_buffer import LogBuffer
from edge_agent.node.quarantine import Lifted, Quarantine
from edge_agent.node.requests import Action, Job
from edge_agent.store.release import PluginId
from edge_agent.subprocess_python import command

# Of the log's lines in an answer: with their frames they fit a message of 64 KiB.
MAX_LOG_CHARS = 24 * 1024
_NEEDED = (
    "{}: without it no container may be created (failure_policy Fail), and while the agent restarts"
    " some would be; force=true restarts all the same"
)

DIAGNOSIS_STACK_BYTES = 256 * 1024
DIAGNOSIS_TIMEOUT_S = 60.0  # the broker's five seconds and a slow board's imports fit many times
MAX_DIAGNOSIS_BYTES = 256 * 1024
_MAIN = "from edge_agent.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Updates(Protocol):
    """The part of the updates that requests are about; any thread, never waits."""

    def sync(self) -> bool:
        """Look at everything that the broker holds once more. False: too much else waits."""


class Actions:
    """`restart` takes the job of a restart of the whole agent."""

    def __init__(
        self,
        supervisor: Supervisor,
        log_buffer: LogBuffer,
        config_path: Path,
        restart: Callable[[Job], None],
        updates: Callable[[], Updates | None],
        quarantine: Quarantine,
    ) -> None:
        self._supervisor = supervisor
        self._log_buffer = log_buffer
        self._config_path = config_path
        self._restart_agent = restart
        self._updates = updates
        self._quarantine = quarantine
        self.by_verb: Mapping[str, Action] = {
            "sync": self._sync,
            "restart": self._restart,
            "logs": self._logs,
            "diagnose": self._diagnose,
            "release": self._unquarantine,
        }

    def _sync(self, job: Job) -> None:
        updates = self._updates()
        if updates is None:
            raise RequestError(
                job.request.id, "updates are not configured: [updates] is missing in agent.toml"
            )
        if not updates.sync():
            raise _busy(job)
        job.succeeded()

    def _restart(self, job: Job) -> None:
        identity = job.arguments.get("plugin")
        if identity is None:
            needed = self._supervisor.fails_closed()
            if needed and not job.arguments.get("force", False):
                raise RequestError(job.request.id, _NEEDED.format(", ".join(needed[:10])))
            self._restart_agent(job)
        elif self._supervisor.renew(PluginId(identity)):
            job.succeeded()
        else:
            raise RequestError(job.request.id, f"no plugin {identity} is to run here")

    def _logs(self, job: Job) -> None:
        wanted = job.arguments
        lines = self._log_buffer.latest(
            wanted["lines"], wanted["level"], wanted.get("plugin"), MAX_LOG_CHARS
        )
        job.succeeded({"lines": [line._asdict() for line in lines]})

    def _diagnose(self, job: Job) -> None:
        job.running()
        threads.start(
            partial(examine, job, self._config_path),
            name="diagnose",
            stack_bytes=DIAGNOSIS_STACK_BYTES,
        )

    def _unquarantine(self, job: Job) -> None:
        self._quarantine.lift(job.arguments["plugin"], partial(_end_unquarantine, job))


def _end_unquarantine(job: Job, lifted: Lifted) -> None:
    if lifted.problem:
        job.failed(lifted.problem)
    else:
        job.succeeded()


def _busy(job: Job) -> RequestError:
    return RequestError(job.request.id, "the fleet's part is busy; is the disk slow? Try again")


def examine(job: Job, config_path: Path) -> None:
    """Answer the job with the findings of `edge-agent doctor`, run in a child process so that its
    memory is given back. Waits for the child: only for a thread of its own."""
    try:
        findings = _findings(config_path)
    except Exception as error:
        job.failed(f"doctor did not finish: {error}")
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
    watch = threading.Timer(DIAGNOSIS_TIMEOUT_S, os.killpg, (child.pid, signal.SIGKILL))
    watch.start()
    try:
        said = child.stdout.read(MAX_DIAGNOSIS_BYTES)
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
