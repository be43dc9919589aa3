"""How the agent's last process ended, and which plugin's code was running then.

A crash of an engine, the out-of-memory killer and a watchdog leave a process no time. Two files
beside the control socket, in memory, outlive it; docs/adr/0014 and 0037 tell why they lie there
and what counts. What another boot left says nothing.

    SOCKET.fault     what Python's fault handler writes while the process dies of itself
                     (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT); a SIGKILL leaves it empty
    SOCKET.running   shared memory that always tells whose code runs. Two threads run guests, and
                     each has a slot; a slot holds the index of an entry of the table, 0: nobody.

    0   magic            8 bytes
    8   boot id         36 bytes, of /proc/sys/kernel/random/boot_id
    44  orderly          1 byte, 1 once the agent has ended by itself
    45  slots            2 bytes: the loop's thread, the loader's
    48  oom kills        8 bytes, little-endian: one more than this kernel's out-of-memory killer
                         had made when the process began; 0: not known
    128 table          255 entries of 128 bytes: SHA-256 (32), length (1), identity (95); the
                       length's upper bit: by machine code of the fleet's
"""

import errno
import faulthandler
import logging
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.store import files
from edge_agent.store.digest import Digest
from edge_agent.store.files import boot_id
from edge_agent.store.release import PluginId

log = logging.getLogger(__name__)


LOOP, LOADER = 45, 46
"""Where the two threads write whom they call."""
NOBODY = 0

_MAGIC = b"EARUN\0\0\1"
_BOOT, _ORDERLY, _OOM_KILLS = 8, 44, 48
_OOM_KILLS_BYTES = 8
_BOOT_CHARS = 36
_ENTRY_BYTES = 128
_DIGEST_BYTES = 32
# Of a longer name the beginning: `Suspect.identity` is compared as far as it goes.
MAX_IDENTITY_BYTES = _ENTRY_BYTES - _DIGEST_BYTES - 1
_BY_CODE = 0x80  # of the length
ENTRIES = 255  # a byte: guests and successors of a hundred plugins
FILE_BYTES = (1 + ENTRIES) * _ENTRY_BYTES


class Suspect(NamedTuple):
    """A plugin whose code was running when the process died."""

    identity: str  # the first MAX_IDENTITY_BYTES of it
    digest: Digest
    by_code: bool = False  # it ran machine code that the fleet had compiled

    @classmethod
    def of(cls, identity: str, digest: Digest) -> "Suspect":
        """The plugin under the name that fits the table. Identities are ASCII."""
        return cls(identity[:MAX_IDENTITY_BYTES], digest)


class Left(NamedTuple):
    """The record of a process that did not end in order."""

    suspects: list[Suspect]
    oom_kills: int | None  # of the out-of-memory killer when it began, and now
    oom_kills_now: int | None


class CrashMarker:
    """Until `open`, and where that fails, the bytes live and die with the process.

    The caller of a guest writes its mark's index to `memory[LOOP]`, and NOBODY afterwards: two
    stores, 0.05 us together, on a path that may not cost more.
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, FILE_BYTES)
        self._lock = threading.Lock()  # of _users; held for a few operations on them
        self._users: dict[int, tuple[Suspect, int]] = {}  # index -> entry, instances

    def open(self, path: Path) -> Left | None:
        """Begin a new file; what the last process left, None if it ended by itself.

        Before anything runs; waits for the file system, which should be one in memory.
        """
        boot = boot_id()
        left = _left(path, boot)
        try:
            self.memory = _begin(path, boot)
        except OSError as error:
            log.warning(
                "%s: %s; a plugin that ends the process cannot be told from others",
                path,
                error.strerror,
            )
        return left

    def enter(self, identity: PluginId, digest: Digest) -> "Mark":
        """For a new instance of this plugin; its index is NOBODY if the table is full."""
        return Mark(self, Suspect.of(identity, digest))

    def index(self, wanted: Suspect) -> int:
        """The index of the entry for one more instance; NOBODY if the table is full."""
        with self._lock:
            free = NOBODY
            for index in range(1, ENTRIES + 1):
                suspect, users = self._users.get(index, (None, 0))
                if suspect == wanted:
                    self._users[index] = wanted, users + 1
                    return index
                if not free and suspect is None:
                    free = index
            if free:
                self._users[free] = wanted, 1
                name = wanted.identity.encode()
                length = len(name) | (_BY_CODE if wanted.by_code else 0)
                entry = wanted.digest.raw + bytes((length,)) + name
                at = free * _ENTRY_BYTES
                self.memory[at : at + _ENTRY_BYTES] = entry.ljust(_ENTRY_BYTES, b"\0")
            return free

    def leave(self, index: int) -> None:
        """An instance with this index is closed (see `Mark.close`)."""
        with self._lock:
            suspect, users = self._users.pop(index, (None, 0))
            if suspect is not None and users > 1:
                self._users[index] = suspect, users - 1

    def close(self) -> None:
        """Note that the agent ends in order, whatever its threads still do."""
        self.memory[_ORDERLY] = 1


class Mark:
    """One instance in the table. Closes once, with the instance."""

    def __init__(self, marker: CrashMarker, suspect: Suspect) -> None:
        self.memory = marker.memory
        self.index = marker.index(suspect)
        self._marker = marker
        self._suspect = suspect

    def runs_code(self) -> None:
        """The instance runs machine code of the fleet's from now on; `index` changes."""
        before, self._suspect = self.index, self._suspect._replace(by_code=True)
        self.index = self._marker.index(self._suspect)
        self._marker.leave(before)

    def close(self) -> None:
        """The instance is gone: its index is not written any more."""
        self._marker.leave(self.index)


def oom_kills() -> int | None:
    """How many processes the out-of-memory killer has ended in this boot, in any group."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts and counts[0].isdecimal() else None  # since Linux 4.13


def _left(path: Path, boot: str) -> Left | None:
    """The plugins in the slots of a file that this user's last process left in this boot."""
    try:
        content = files.read(path, FILE_BYTES)
        owner = path.stat().st_uid if content is not None else None
    except (StoreError, OSError):
        return None
    if (
        content is None
        or owner != os.geteuid()  # in a folder that others may write to
        or len(content) != FILE_BYTES
        or not content.startswith(_MAGIC)
        or not boot
        or content[_BOOT : _BOOT + _BOOT_CHARS] != boot.encode()
        or content[_ORDERLY]
    ):
        return None
    found = {_suspect(content, content[slot]) for slot in (LOOP, LOADER)}
    suspects = sorted(suspect for suspect in found if suspect is not None)
    kills = int.from_bytes(content[_OOM_KILLS : _OOM_KILLS + _OOM_KILLS_BYTES], "little")
    return Left(suspects, kills - 1 if kills else None, oom_kills())


def _suspect(content: bytes, index: int) -> Suspect | None:
    if index == NOBODY:
        return None
    at = index * _ENTRY_BYTES
    entry = content[at : at + _ENTRY_BYTES]
    digest, length = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES]
    size = length & ~_BY_CODE
    name = entry[_DIGEST_BYTES + 1 : _DIGEST_BYTES + 1 + size].decode("ascii", "replace")
    if not PluginId.parse(name):
        return None
    return Suspect(name, Digest.of_raw(digest), bool(length & _BY_CODE))


def _begin(path: Path, boot: str) -> mmap.mmap:
    """A new file in the place of what is there; all its bytes are allocated: a store into a
    hole of a full file system would end the process. OSError."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, files.PRIVATE_FILE)
    try:
        kills = oom_kills()
        counted = (0 if kills is None else kills + 1).to_bytes(_OOM_KILLS_BYTES, "little")
        header = (_MAGIC + boot.encode()).ljust(_OOM_KILLS, b"\0") + counted
        content = header.ljust(FILE_BYTES, b"\0")
        if os.write(fd, content) != FILE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return mmap.mmap(fd, FILE_BYTES)
    finally:
        os.close(fd)


MAX_FAULT_BYTES = 1 << 20  # 100 threads of 100 frames, Python's own limits, are less
MAX_SHOWN_CHARS = 2000  # of it in the log: the reason and the first thread


class Cause(Enum):
    """Why a process ended that was not stopped in order."""

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
    """Why the process died that left this record. `fault`: what its fault handler wrote; None: it
    had no file for that."""
    if fault:
        return Cause.FAULT
    if fault is None or left.oom_kills is None or left.oom_kills_now is None:
        return Cause.UNKNOWN
    return Cause.OUT_OF_MEMORY if left.oom_kills_now > left.oom_kills else Cause.OUTSIDE


def held(suspects: Sequence[Suspect], why: Cause) -> list[Suspect]:
    """The suspects that the death may count against. Only a fault may be that of machine code: a
    plugin takes the same memory whichever code runs it."""
    if why is Cause.FAULT:
        return list(suspects)
    return [each._replace(by_code=False) for each in suspects]


def excuse(why: Cause, damaged: int) -> str:
    """Why no plugin is to blame for a death; empty: one may be."""
    if damaged:
        return "its compiled code, or another plugin's, was damaged on the disk"
    if why is Cause.OUTSIDE:
        return "it was killed from outside"
    return ""


def _begin_faults(path: Path) -> str | None:
    """Let the fault handler write to a new file at `path`; what the last process wrote there,
    None if it had no such file."""
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
