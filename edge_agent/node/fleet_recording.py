"""A recording of events for the fleet: made in a child, sent in parts as answers to the request.

The child is `edge-agent record`: it takes the events from the control socket, hides what is to be
hidden, and packs them. So nothing is redacted, packed or written in the process that answers
runtimes, and its memory does not grow by more than the parts that wait for the broker.
Imported at the first such request, on its thread.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_agent import process
from edge_agent.config import AgentConfig
from edge_agent.config.units import format_size
from edge_agent.errors import EdgeAgentError, RequestError
from edge_agent.fleet_protocol import recorded_parts
from edge_agent.fleet_protocol.recorded_parts import MAX_BYTES, PART_BYTES
from edge_agent.node import recorder  # noqa: F401 - the loop needs it next, and reads no files
from edge_agent.node.requests import Job
from edge_agent.store.digest import Digest
from edge_agent.text import printable

# Beyond the time that is recorded: a slow board's imports, and the packing.
SPARE_S = 60.0
# Until the broker has taken a part, so that the next may wait; then the request has failed.
ROOM_S, POLL_S = 120.0, 0.1
MAX_ERRORS_BYTES = 4096
# Everything else on the board comes first.
_MAIN = "import os; os.nice(10); from edge_agent.__main__ import main; sys.exit(main(sys.argv[1:]))"

Seal = Callable[[bytes, str], bytes]
Offer = Callable[[Job, dict[str, object]], bool]
"""Send a part as an answer; False: too many answers wait, try again."""


def record(
    job: Job, config: AgentConfig, config_path: Path, seal: Seal, offer: Offer
) -> Callable[[], None]:
    """Carry the request out; what is returned gives its last answer. Waits for the child and the
    broker: for a thread of its own."""
    job.running()
    try:
        result = _recorded(job, config, config_path, offer)
    except EdgeAgentError as error:
        return partial(job.failed, str(error))
    except Exception as error:
        return partial(job.failed, f"the recording did not finish: {error}")
    return partial(
        job.succeeded, result, lambda document: seal(document, recorded_parts.PAYLOAD_TYPE)
    )


def words(job: Job, config: AgentConfig, config_path: Path) -> list[str]:
    """The child's arguments. What the node's configuration hides is hidden whatever is asked."""
    wanted = job.arguments
    rules = dict.fromkeys((*config.requests.record_hides, *wanted["redact"]))
    found = ["record", "-c", str(config_path), "-o", "-", "--max-size", format_size(MAX_BYTES)]
    found += [f"--redact={','.join(rules) or 'none'}"]
    found += [f"--count={wanted['count']}", f"--seconds={wanted['seconds']}"]
    if "plugin" in wanted:
        found.append(f"--plugin={wanted['plugin']}")
    if "events" in wanted:
        found.append(f"--events={','.join(wanted['events'])}")
    return found


def _recorded(job: Job, config: AgentConfig, config_path: Path, offer: Offer) -> dict[str, object]:
    """Send the parts; what the last answer says. RequestError: there is no recording."""
    data = _made(job, process.command(_MAIN, *words(job, config, config_path)))
    parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
    for number, each in enumerate(parts):
        _send(job, recorded_parts.part(number, each), offer)
    return recorded_parts.whole(config.fleet, config.node, len(parts), len(data), Digest.of(data))


def _made(job: Job, command: list[str]) -> bytes:
    """The file that the child writes. RequestError: it wrote none."""
    with process.child(command, job.arguments["seconds"] + SPARE_S, errors=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        data = child.stdout.read(MAX_BYTES + 1)
        errors = child.stderr.read(MAX_ERRORS_BYTES) if len(data) <= MAX_BYTES else b""
    if child.returncode or not 0 < len(data) <= MAX_BYTES:
        lines = printable(errors.decode("utf-8", "replace").strip().rpartition("\n")[2])
        raise RequestError(job.request.id, lines or f"the recorder ended with {child.returncode}")
    return data


def _send(job: Job, part: dict[str, object], offer: Offer) -> None:
    """RequestError: the broker takes nothing for too long."""
    until = time.monotonic() + ROOM_S
    while not offer(job, part):
        if time.monotonic() > until:
            raise RequestError(
                job.request.id, f"the broker took no part of it for {ROOM_S:.0f} s; ask again"
            )
        time.sleep(POLL_S)
