"""Actions for the requests of the fleet: one method for each verb, all on the loop. And the
latest lines of the log, which one of them returns; they are bounded in number and bytes.

What plugins say below a warning has a part of its own: however much that is, the agent's lines
and everybody's warnings stay.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_agent import process
from edge_agent.errors import RequestError
from edge_agent.host.crash_policy import Lifted, Quarantine
from edge_agent.host.supervisor import Supervisor
from edge_agent.logs import message_of, plugin_of
from edge_agent.node.requests import Action, Job
from edge_agent.process import command
from edge_agent.store.release import PluginId

if TYPE_CHECKING:
    from edge_agent.node.updates import Updates

MAX_LINES = 500
MAX_BYTES = 128 * 1024  # what a board can spare for looking back
MAX_LINE_CHARS = 1000


class Line(NamedTuple):
    """One line; `time` in seconds since 1970."""

    time: float
    level: str
    source: str  # a plugin's NN-name, or a part of the agent
    message: str


class _Kept(NamedTuple):
    number: int  # in the order of logging
    level: int
    plugin: str | None
    line: Line


class _Part:
    """Half of the memory; the oldest lines go first."""

    def __init__(self) -> None:
        self.lines: deque[_Kept] = deque()
        self._bytes = 0

    def add(self, kept: _Kept) -> None:
        self.lines.append(kept)
        self._bytes += len(kept.line.message)
        while len(self.lines) > MAX_LINES // 2 or self._bytes > MAX_BYTES // 2:
            self._bytes -= len(self.lines.popleft().line.message)


class LogBuffer(logging.Handler):
    """Attached to the root logger it forgets the oldest lines of each part first."""

    def __init__(self) -> None:
        super().__init__()
        self._talk, self._rest = _Part(), _Part()  # of plugins, below a warning; all else
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        message = message_of(record)[:MAX_LINE_CHARS]
        plugin = plugin_of(record)
        source = plugin or record.name.removeprefix("edge_agent.")
        line = Line(record.created, record.levelname.lower(), source, message)
        self._count += 1
        talk = plugin is not None and record.levelno < logging.WARNING
        kept = _Kept(self._count, record.levelno, plugin, line)
        (self._talk if talk else self._rest).add(kept)

    def latest(
        self, count: int, level: str = "debug", plugin: str | None = None, chars: int = MAX_BYTES
    ) -> list[Line]:
        """At most `count` lines, of at least `level`, of `plugin` if named, oldest first.

        Together at most `chars` characters of message: the newest ones.
        """
        least = getattr(logging, level.upper())
        found: list[Line] = []
        self.acquire()
        try:
            parts = (reversed(self._talk.lines), reversed(self._rest.lines))
            for kept in merge(*parts, key=lambda each: each.number, reverse=True):
                line = kept.line
                if kept.level < least or (plugin is not None and kept.plugin != plugin):
                    continue
                chars -= len(line.message)
                if len(found) == count or chars < 0:
                    break
                found.append(line)
        finally:
            self.release()
        return found[::-1]


# Of the log's lines in an answer: with their frames they fit a message of 64 KiB.
MAX_LOG_CHARS = 24 * 1024
_NEEDED = (
    "{}: without it no container may be created (failure_policy Fail), and while the agent restarts"
    " some would be; force=true restarts all the same"
)

DIAGNOSIS_STACK_BYTES = 256 * 1024
DIAGNOSIS_TIMEOUT_S = 60.0  # the broker's five seconds and a slow board's imports fit many times
MAX_DIAGNOSIS_BYTES = 256 * 1024
RECORDING_STACK_BYTES = 256 * 1024
_MAIN = "from edge_agent.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Actions:
    """`restart` takes the job of a restart of the whole agent. `record` carries a recording out,
    on a thread of its own, and returns what ends its job."""

    def __init__(
        self,
        supervisor: Supervisor,
        log_buffer: LogBuffer,
        config_path: Path,
        restart: Callable[[Job], None],
        updates: Callable[[], "Updates | None"],
        quarantine: Quarantine,
        record: Callable[[Job], Callable[[], None]],
    ) -> None:
        self._record_events = record
        self._recording = False
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
            "record": self._record,
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
        process.start(
            partial(examine, job, self._config_path),
            name="diagnose",
            stack_bytes=DIAGNOSIS_STACK_BYTES,
        )

    def _record(self, job: Job) -> None:
        """One at a time. RequestError: another runs."""
        if self._recording:
            raise RequestError(job.request.id, "another recording for the fleet runs here")

        def record() -> None:
            end = self._record_events(job)
            self._recording = False  # before the answer: then the next may be asked for
            end()

        self._recording = True
        try:
            process.start(record, name="record", stack_bytes=RECORDING_STACK_BYTES)
        except RuntimeError as error:
            self._recording = False
            raise RequestError(job.request.id, f"no thread for it: {error}") from error

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
    words = command(_MAIN, "doctor", "--json", "-c", str(config_path))
    with process.child(words, DIAGNOSIS_TIMEOUT_S) as doctor:
        assert doctor.stdout is not None
        said = doctor.stdout.read(MAX_DIAGNOSIS_BYTES)
    found = json.loads(said)
    if not isinstance(found, dict):
        raise ValueError("its findings are no object")
    return found
