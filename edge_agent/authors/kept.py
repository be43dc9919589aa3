"""Compiled code that is kept between two tries of a plugin: a Go plugin takes a minute.

    $XDG_CACHE_HOME/edge-agent/plugins      as `wasm.artifacts` has them, of the latest few modules

An engine runs whatever lies there, so nobody else may be able to write it.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_KEPT = 20  # artifacts; of a Go plugin some 25 MB each


@contextmanager
def folder() -> Iterator[Path]:
    """The folder for artifacts; one that lasts as long as this, where none can be kept."""
    path = _kept()
    if path is not None:
        yield path
        _forget_the_oldest(path)
        return
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as temporary:
        yield Path(temporary)


def _kept() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        path = (Path(base) if base else Path.home() / ".cache") / "edge-agent" / "plugins"
        path.mkdir(0o700, parents=True, exist_ok=True)
        path = path.resolve(strict=True)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return None
        # Who can rename a folder above can put another in its place.
        ours = all(_is_ours(each) for each in (path, *path.parents))
        writable = os.access(path, os.W_OK)
    except (OSError, RuntimeError):
        return None
    return path if ours and writable else None


def _is_ours(path: Path) -> bool:
    """Whether only root and this user can change what the folder holds."""
    found = path.stat()
    others_write = bool(found.st_mode & 0o022) and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.geteuid()) and not others_write


def _forget_the_oldest(path: Path) -> None:
    """Keep the artifacts that were used last. One that is mapped stays until its end."""
    with suppress(OSError):
        found = sorted(path.glob("artifacts/*.artifact"), key=lambda each: -each.stat().st_mtime)
        for each in found[MAX_KEPT:]:
            each.unlink()
            each.with_suffix(".mac").unlink(missing_ok=True)
