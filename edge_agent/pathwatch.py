"""Tells when a file may have appeared, gone or been replaced: Linux inotify(7) on the loop.

A hint, never a proof: the caller looks for itself, and looks now and then all the same. Kernels
run out of watches (fs.inotify.max_user_instances), and some file systems report nothing.
"""

import ctypes
import errno
import logging
import os
import selectors
import struct
from collections.abc import Callable
from pathlib import Path

from edge_agent.loop import Loop

log = logging.getLogger(__name__)

# inotify(7)
_ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x4, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x4000, 0x8000
_ONLYDIR = 0x01000000
_OF_A_NAME = _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_OF_THE_FOLDER = _DELETE_SELF | _MOVE_SELF
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name after it

# One read takes so many events at most: other sessions get their turn in between.
READ_BYTES = 16 << 10
# Folders that come and go while a watch is set: then the caller's own looks must do.
_MAX_ATTEMPTS = 16


class PathWatch:
    """Calls `changed()` on the loop's thread. Closes once.

    Where the folder of `path` is missing, the nearest folder above it is watched, until the way
    down to `path` exists. Other names in these folders are ignored.
    """

    def __init__(self, loop: Loop, path: Path, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._path = path.absolute()
        self._changed = changed
        self._watch = -1
        self._name = b""  # what is waited for in the watched folder
        self._arrived = False  # at the folder of `path`
        self._fd = _open()
        if self._fd >= 0:
            loop.watch(self, selectors.EVENT_READ, self._read)
            self._set()

    def fileno(self) -> int:
        """For the selector."""
        return self._fd

    def close(self) -> None:
        """Watch nothing any more."""
        if self._fd >= 0:
            self._loop.unwatch(self)
            os.close(self._fd)
        self._fd = self._watch = -1

    @property
    def active(self) -> bool:
        """Whether the folder of `path` itself is watched."""
        return self._watch >= 0 and self._arrived

    def _set(self) -> None:
        """Watch the nearest folder that exists."""
        self._unset()
        for _ in range(_MAX_ATTEMPTS):
            below = self._path
            for folder in self._path.parents:
                watch, error = _add(self._fd, folder)
                if watch >= 0 or error not in (errno.ENOENT, errno.ENOTDIR):
                    break
                below = folder
            if watch < 0:
                log.debug("%s: not watched: %s", self._path, os.strerror(error))
                return
            self._watch, self._name = watch, os.fsencode(below.name)
            self._arrived = below == self._path
            if self._arrived or not below.is_dir():
                return
            self._unset()  # the next folder has appeared meanwhile: watch that one

    def _unset(self) -> None:
        watch, self._watch = self._watch, -1
        if watch >= 0:
            _libc().inotify_rm_watch(self._fd, watch)  # EINVAL: its folder is gone already

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        at, relevant, again = 0, False, False
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if mask & _OVERFLOW:
                relevant = again = True
            elif watch != self._watch:
                continue  # of a folder that is not watched any more
            elif mask & (_OF_THE_FOLDER | _IGNORED):
                relevant = again = True
                if mask & _IGNORED:
                    self._watch = -1  # the kernel has removed it
            elif mask & _OF_A_NAME and name == self._name:
                relevant = True
                again = again or not self.active
        if again:
            self._set()
        if relevant:
            self._changed()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _open() -> int:
    """A descriptor, -1 where there is no inotify or none is left."""
    try:
        fd: int = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        return -1  # not Linux
    if fd < 0:
        log.debug("inotify: %s", os.strerror(ctypes.get_errno()))
    return fd


def _add(fd: int, folder: Path) -> tuple[int, int]:
    """(watch, 0) or (-1, errno)."""
    mask = _OF_A_NAME | _OF_THE_FOLDER | _ONLYDIR
    watch = _libc().inotify_add_watch(fd, os.fsencode(folder), mask)
    return (watch, 0) if watch >= 0 else (-1, ctypes.get_errno())
