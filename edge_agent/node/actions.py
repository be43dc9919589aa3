"""What the fleet's requests do on a node: one method for each verb, all on the loop."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from edge_agent import threads
from edge_agent.errors import RequestError
from edge_agent.host.supervisor import Supervisor
from edge_agent.node.quarantine import Lifted, Quarantine
from edge_agent.node.recent import Recent
from edge_agent.node.requests import Action, Job

# Of the log's lines in an answer: with their frames they fit a message of 64 KiB.
MAX_LOG_CHARS = 24 * 1024
_NEEDED = (
    "{}: without it no container may be created (failure_policy Fail), and while the agent restarts"
    " some would be; force=true restarts all the same"
)
STACK_BYTES = 256 * 1024  # of the thread that diagnoses


class Updates(Protocol):
    """The part of the updates that requests are about; any thread, never waits."""

    def sync(self) -> bool:
        """Look at everything that the broker holds once more. False: too much else waits."""


class Actions:
    """`restart` takes the job of a restart of the whole agent."""

    def __init__(
        self,
        supervisor: Supervisor,
        recent: Recent,
        config_path: Path,
        restart: Callable[[Job], None],
        updates: Callable[[], Updates | None],
        quarantine: Quarantine,
    ) -> None:
        self._supervisor = supervisor
        self._recent = recent
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
        elif self._supervisor.renew(identity):
            job.succeeded()
        else:
            raise RequestError(job.request.id, f"no plugin {identity} is to run here")

    def _logs(self, job: Job) -> None:
        wanted = job.arguments
        lines = self._recent.latest(
            wanted["lines"], wanted["level"], wanted.get("plugin"), MAX_LOG_CHARS
        )
        job.succeeded({"lines": [line._asdict() for line in lines]})

    def _diagnose(self, job: Job) -> None:
        job.running()
        examine = partial(_examine, job, self._config_path)
        threads.start(examine, name="diagnose", stack_bytes=STACK_BYTES)

    def _unquarantine(self, job: Job) -> None:
        self._quarantine.lift(job.arguments["plugin"], partial(_end_unquarantine, job))


def _end_unquarantine(job: Job, lifted: Lifted) -> None:
    if lifted.problem:
        job.failed(lifted.problem)
    else:
        job.succeeded()


def _examine(job: Job, config_path: Path) -> None:
    """On a thread of its own: the import waits for the disk too, and most are never asked."""
    from edge_agent.node import diagnosis

    diagnosis.examine(job, config_path)


def _busy(job: Job) -> RequestError:
    return RequestError(job.request.id, "the fleet's part is busy; is the disk slow? Try again")
