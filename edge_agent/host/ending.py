"""How the agent's last process ended, and whether a plugin is to be blamed for it.

    SOCKET.running   whose code was running, and whether the end was orderly (host/crash_marker.py)
    SOCKET.fault     what Python's fault handler writes while the process dies of itself
                     (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT); a SIGKILL leaves it empty

Both lie beside the control socket, in memory. docs/adr/0037 tells what counts and why.
"""

import faulthandler
import logging
import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.host.crash_marker import CrashMarker, Left, Suspect
from edge_agent.store import files

log = logging.getLogger(__name__)

MAX_FAULT_BYTES = 1 << 20  # 100 threads of 100 frames, Python's own limits, are less
MAX_SHOWN_CHARS = 2000  # of it in the log: the reason and the first thread


class Cause(Enum):
    """Of a death that was not orderly."""

    FAULT = "a fault of its own"  # also the watchdog's SIGABRT
    OUT_OF_MEMORY = "the kernel's out-of-memory killer, or somebody's SIGKILL meanwhile"
    OUTSIDE = "a SIGKILL from outside"
    UNKNOWN = "something that left no trace"


class Verdict(NamedTuple):
    """Plugins whose code was running when the last process died, and why that does not count."""

    suspects: list[Suspect]
    excuse: str = ""  # empty: it is


def look_back(marker: CrashMarker, socket: Path, damaged: Callable[[], Sequence[Path]]) -> Verdict:
    """Begin new files beside `socket`; what those of the last process say.

    `damaged` looks for damaged artifacts and removes them; it is called after a fault only.
    Before anything runs; waits for the disk.
    """
    text = _begin_faults(socket.with_name(f"{socket.name}.fault"))
    left = marker.open(socket.with_name(f"{socket.name}.running"))
    if left is None:
        return Verdict([])
    why = cause(left, text)
    log.warning("the agent's last process died of %s", why.value)
    if text:
        log.error("its last words: %s", "; ".join(text[:MAX_SHOWN_CHARS].split("\n")))
    found = damaged() if why is Cause.FAULT else ()
    for path in found:
        log.error("%s was damaged: the agent died of that, it is compiled again", path)
    return Verdict(held(left.suspects, why), excuse(why, len(found)))


def cause(left: Left, fault: str | None) -> Cause:
    """Why the process died that left this, and wrote this about a fault of its own; None: it
    could not, or was an agent that did not."""
    if fault:
        return Cause.FAULT
    if fault is None or left.oom_kills is None or left.oom_kills_now is None:
        return Cause.UNKNOWN
    return Cause.OUT_OF_MEMORY if left.oom_kills_now > left.oom_kills else Cause.OUTSIDE


def held(suspects: Sequence[Suspect], why: Cause) -> list[Suspect]:
    """Against what the death may count. Only a fault may be that of machine code: the memory that
    a plugin takes, it takes by whatever code."""
    if why is Cause.FAULT:
        return list(suspects)
    return [each._replace(by_code=False) for each in suspects]


def excuse(why: Cause, damaged: int) -> str:
    """Why a death is no plugin's; empty: it may be."""
    if damaged:
        return "its compiled code, or another plugin's, was damaged on the disk"
    if why is Cause.OUTSIDE:
        return "it was killed from outside"
    return ""


def _begin_faults(path: Path) -> str | None:
    """What the last process wrote about its end, None if it had no file for that; this one's
    fault handler writes there too."""
    text = None
    try:
        said = files.read(path, MAX_FAULT_BYTES)
        if said is not None and path.lstat().st_uid == os.geteuid():
            text = said.decode(errors="replace").strip()
    except (StoreError, OSError) as error:
        log.debug("%s is not used: %s", path, error)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
    try:
        path.unlink(missing_ok=True)
        # As long as the process: it is for its end.
        faulthandler.enable(file=os.open(path, flags, files.PRIVATE_FILE))
    except OSError as error:
        log.warning("%s: %s; a crash cannot be told from a SIGKILL", path, error.strerror)
    return text
