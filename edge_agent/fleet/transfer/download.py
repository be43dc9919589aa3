"""A blob out of an HTTP answer into a file, continued where an earlier answer broke off."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from edge_agent.errors import TransferError, WrongBlobError
from edge_agent.fleet.transfer.web import Handle, Reply, get
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store import files
from edge_agent.store.digest import PART_BYTES, Digest, sha256

Open = Callable[[Mapping[str, str]], AbstractContextManager[Reply]]

OK, PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 200, 206, 416  # RFC 9110, section 15


def https(url: str, blob: Blob, partial: Path, handle: Handle) -> Path:
    """`blob` from `url`, where it lies as it is. As `download`."""
    return download(lambda headers: get(url, handle, headers), blob, partial, handle)


def download(open_: Open, blob: Blob, partial: Path, handle: Handle) -> Path:
    """`blob`, checked, in the file `partial`, which keeps what came when the transfer breaks.

    `open_` makes the request with the headers that it is given. WrongBlobError: this source
    gave another blob, or an answer that cannot be it; other TransferErrors: it may be tried
    again. StoreError. After WrongBlobError nothing is left.
    """
    here = _size(partial)
    if here > blob.size:
        files.remove(partial)
        here = 0
    resumed = here > 0
    try:
        if here < blob.size:
            _receive(open_, blob, partial, here, handle)
        _check(blob, partial)
    except WrongBlobError as error:
        files.remove(partial)
        if resumed:
            # The part from before may be the wrong one: no verdict about the source yet.
            raise TransferError(f"{error}; the next attempt begins anew") from error
        raise
    return partial


def _receive(open_: Open, blob: Blob, partial: Path, here: int, handle: Handle) -> None:
    handle.received = here
    with open_({"Range": f"bytes={here}-"} if here else {}) as reply:
        if reply.status == RANGE_NOT_SATISFIABLE:
            raise WrongBlobError(f"it has less than the {here} bytes that are here")
        if reply.status not in (OK, PARTIAL_CONTENT):
            raise reply.error("no blob")
        if reply.status == OK:
            here = 0  # it does not do ranges
        _check_headers(reply, blob.size, here)
        handle.received = here
        _copy(reply, blob.size, partial, here, handle)


def _check_headers(reply: Reply, size: int, start: int) -> None:
    """What the answer says of itself; WrongBlobError if that cannot be the blob."""
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise WrongBlobError(f"it sends the blob encoded ({encoding[:40]!r}), unasked")
    if reply.status == PARTIAL_CONTENT:
        content_range = reply.headers.get("Content-Range", "")
        expected = f"bytes {start}-{size - 1}/"
        if content_range not in (f"{expected}{size}", f"{expected}*"):
            raise WrongBlobError(f"it sends the range {content_range[:60]!r}, not {expected}{size}")
    length = reply.headers.get("Content-Length")
    if length is not None and length.strip() != str(size - start):
        raise WrongBlobError(f"it has {length[:20]!r} bytes more instead of {size - start}")


def _copy(reply: Reply, size: int, partial: Path, start: int, handle: Handle) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(partial, flags, files.PRIVATE_FILE)
    except OSError as error:
        raise files.failure("open", partial, error) from error
    try:
        os.ftruncate(fd, start)
        os.lseek(fd, start, os.SEEK_SET)
        left = size - start
        while left and (piece := reply.read(min(PART_BYTES, left))):
            handle.check()
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
            left -= len(piece)
            handle.received += len(piece)
        os.fsync(fd)
    except OSError as error:
        raise files.failure("write", partial, error) from error
    finally:
        os.close(fd)
    if left:
        handle.check()
        raise TransferError(f"the connection ended after {size - left} of {size} bytes")
    if reply.read(1):
        raise WrongBlobError(f"it sends more than the {size} bytes of the blob")


def _check(blob: Blob, partial: Path) -> None:
    digest = sha256()
    try:
        with partial.open("rb", buffering=0) as file:
            while piece := file.read(PART_BYTES):
                digest.update(piece)
    except OSError as error:
        raise files.failure("read", partial, error) from error
    found = Digest.made(digest)
    if found != blob.digest:
        raise WrongBlobError(f"it gave {found}, which is another blob")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise files.failure("look at", path, error) from error
