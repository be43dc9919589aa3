"""The state that plugins store with edge.state_put, on disk: STATE/plugin-state, a file for each.

A state belongs to a plugin under its name: it survives replacement, crash and reboot, and goes
when the plugin is removed while the agent runs. Files of plugins that are absent at a start stay,
since a deployment may bring the plugin later; of such files the newest are kept.

A file, which `encode` and `decode` handle without I/O:

    edge-agent state 1 LF
    SHA-256 of the rest in hexadecimal LF
    the plugin's name, then each key and its value, with their lengths before them

Lengths are in big endian, of names and keys 2 bytes and of values 4.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from edge_agent import process
from edge_agent.errors import StoreError
from edge_agent.loop import Loop
from edge_agent.store import files
from edge_agent.store.digest import sha256_hex
from edge_agent.store.release import PluginId
from edge_agent.wasm.imports import MAX_KEY_BYTES, PluginState

log = logging.getLogger(__name__)

WRITE_S = 1.0  # a change is on the disk after this and the write: the most that a crash costs
REST = 10  # times as long as the last writes took: a slow disk is not kept busy with this
RETRY_S = 60.0  # after a write that failed
STACK_BYTES = 512 * 1024  # of the last writer
CLOSE_S = 2.0  # for the last writes; a disk that hangs must not keep the agent from ending
MAX_FILES = 256  # ours: 16 MiB; twice as many as there can be plugins


class PluginStates:
    """The states of all plugins. `later` runs what waits for the disk, in order, on one thread,
    which is also the one that makes guests: no guest sees its state before it was read."""

    def __init__(
        self, loop: Loop, folder: Path, later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._later = later
        self._states: dict[PluginId, PluginState] = {}
        self._disk = threading.Lock()  # held while files are written; never by the loop's thread
        self._writing = False
        self._not_before = 0.0  # monotonic
        self._last_error = ""
        self._timer = loop.call_later(WRITE_S, self._look)

    def begin(self) -> None:
        """Tidy up; only once it is sure that no other agent writes here."""
        self._later(self._sweep)

    def of(self, identity: PluginId) -> PluginState:
        """The plugin's state, the same as long as it is not dropped."""
        state = self._states.get(identity)
        if state is None:
            state = self._states[identity] = PluginState()
            self._later(partial(self._read, identity, state))
        return state

    def forget(self, identity: PluginId) -> None:
        """The plugin is removed: its state is empty from now on, and its file goes."""
        state = self.of(identity)
        state.clear()
        self._later(partial(self._write, {identity: state}))

    def drop(self, keep: Iterable[PluginId]) -> None:
        """Drop all others: they are not used any more."""
        for identity in self._states.keys() - set(keep):
            del self._states[identity]

    def close(self) -> None:
        """Write what was changed; no guest runs any more."""
        self._timer.cancel()
        changed = self._changed()
        if changed:
            # Not on the loader's thread: that may be making a guest.
            thread = process.start(
                partial(self._write, changed), name="states", stack_bytes=STACK_BYTES
            )
            thread.join(CLOSE_S)
            if thread.is_alive():
                log.warning("%s: the disk does not take the plugins' states", self._folder)

    def _changed(self) -> dict[PluginId, PluginState]:
        return {identity: state for identity, state in self._states.items() if state.changed}

    def _look(self) -> None:
        self._timer = self._loop.call_later(WRITE_S, self._look)
        if self._writing or time.monotonic() < self._not_before:
            return
        changed = self._changed()
        if changed:
            self._writing = True
            self._later(partial(self._write, changed))

    # --- on the loader's thread

    def _read(self, identity: PluginId, state: PluginState) -> None:
        path = self._path(identity)
        try:
            raw = files.read(path, MAX_BYTES)
            if raw is not None:
                state.restore(decode(identity, raw))
        except StoreError as error:
            log.warning(
                "%s: begins without its state: %s", identity, error, extra={"plugin": identity}
            )

    def _write(self, changed: Mapping[PluginId, PluginState]) -> None:
        began = time.monotonic()
        error = ""
        try:
            with self._disk:
                for identity, state in changed.items():
                    error = self._write_one(identity, state) or error
        finally:
            took = time.monotonic() - began
            self._not_before = time.monotonic() + (RETRY_S if error else took * REST)
            self._writing = False
        if error and not self._last_error:
            log.warning("plugins' states are kept in memory only: %s", error)
        elif self._last_error and not error:
            log.info("plugins' states are on the disk again")
        self._last_error = error

    def _write_one(self, identity: PluginId, state: PluginState) -> str:
        """Why it could not be written; empty: it was."""
        values = state.take()
        if values is None:
            return ""
        path = self._path(identity)
        try:
            if values:
                files.make_folder(self._folder)
                files.write(path, encode(identity, values))
            elif files.remove(path):
                files.sync_folder(self._folder)
        except (StoreError, OSError) as error:
            state.changed = True  # the next round takes it again
            return str(error)
        return ""

    def _sweep(self) -> None:
        """Remove what crashes left, and the oldest of more files than there may be."""
        files.remove_leftovers(self._folder)
        try:
            found = sorted((path.lstat().st_mtime_ns, path) for path in self._folder.iterdir())
        except OSError:
            return  # not there yet
        for _, path in found[: max(0, len(found) - MAX_FILES)]:
            files.remove(path)

    def _path(self, identity: PluginId) -> Path:
        return self._folder / name_of(identity)


MAGIC = b"edge-agent state 1\n"
_HASH_CHARS = 64
_NAME, _VALUE = 2, 4
MAX_BYTES = PluginState.MAX_BYTES + PluginState.MAX_KEYS * (_NAME + _VALUE) + 1024
SUFFIX = ".state"
MAX_NAME_CHARS = 200  # a file's name has at most 255 bytes


def name_of(identity: PluginId) -> str:
    """The file's name: the plugin's, which is NN-name, or what stands for a long one."""
    if len(identity) > MAX_NAME_CHARS:
        kept = MAX_NAME_CHARS - _HASH_CHARS
        return f"{identity[:kept]}{sha256_hex(identity.encode())}{SUFFIX}"
    return f"{identity}{SUFFIX}"


def encode(identity: PluginId, values: Mapping[str, bytes]) -> bytes:
    """A file's content."""
    name = identity.encode()
    parts = [len(name).to_bytes(_NAME, "big"), name]
    for key, value in values.items():
        raw = key.encode()
        parts += (len(raw).to_bytes(_NAME, "big"), raw)
        parts += (len(value).to_bytes(_VALUE, "big"), value)
    body = b"".join(parts)
    return b"".join((MAGIC, sha256_hex(body).encode(), b"\n", body))


def decode(identity: PluginId, raw: bytes) -> dict[str, bytes]:
    """The keys and values in a file. StoreError: it is damaged, or another plugin's."""
    at = len(MAGIC) + _HASH_CHARS + 1
    body = raw[at:]
    if raw[:at] != b"".join((MAGIC, sha256_hex(body).encode(), b"\n")):
        raise StoreError("its file is damaged")
    reader = _Reader(body)
    if reader.take(_NAME) != identity.encode():
        raise StoreError("its file is another plugin's")
    state = PluginState()
    values: dict[str, bytes] = {}
    while reader.left:
        key, value = reader.take(_NAME), reader.take(_VALUE)
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise StoreError("its file is damaged: a key is no text") from None
        if text in values or not value:
            raise StoreError("its file is damaged: a key twice or without a value")
        if len(key) > MAX_KEY_BYTES or not state.put(text, value):
            raise StoreError("its file has more than a plugin may keep")
        values[text] = value
    return values


class _Reader:
    """Takes pieces with a length before them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, size_bytes: int) -> bytes:
        begin = self._at + size_bytes
        end = begin + int.from_bytes(self._data[self._at : begin], "big")
        if begin > len(self._data) or end > len(self._data):
            raise StoreError("its file is damaged: it ends early")
        self._at = end
        return self._data[begin:end]
