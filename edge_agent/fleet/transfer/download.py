"""A blob over HTTPS into a file: from a URL, or from a registry (OCI distribution spec 1.1).

What an earlier answer left on disk is continued. `oci://registry/repository`: with `:tag` or
`@digest` behind the repository, that manifest must name the blob among its layers; without, the
registry is asked for the blob itself, which it knows by the digest. A registry that wants a token
names who gives one (the Bearer flow of Docker's and CNCF's "token authentication"); a user's name
and password come from a file such as `docker login` and `oras login` write.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from edge_agent import strictjson
from edge_agent.errors import StoreError, TransferError, WrongBlobError
from edge_agent.fleet.transfer.web import Handle, Reply, get
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store import files
from edge_agent.store.digest import PART_BYTES, Digest, sha256
from edge_agent.text import printable

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


UNAUTHORIZED = 401
# That of one Wasm artifact has 500 bytes; an answer with a token a few KiB.
MAX_MANIFEST_BYTES = MAX_TOKEN_BYTES = 256 << 10
MAX_AUTH_FILE_BYTES = 1 << 20
MAX_CHALLENGE_CHARS = 2048  # a realm, a service and a scope: a few hundred
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# The specification's grammar of names, and what a host and its port may be.
_REFERENCE = re.compile(
    r"oci://(?P<registry>[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?)"
    r"/(?P<repository>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_PARAMETER = re.compile(r'(?<![a-zA-Z_])([a-zA-Z_]++)\s*=\s*"([^"]*)"')


class Reference(NamedTuple):
    """Where a blob lies; `manifest` is a tag, a digest or, to go without one, empty."""

    registry: str
    repository: str
    manifest: str = ""


def parse_reference(url: str) -> Reference:
    """TransferError if it is none."""
    match = _REFERENCE.fullmatch(url)
    if match is None:
        raise TransferError(f"{printable(url)[:200]}: not oci://registry/repository[:tag|@digest]")
    manifest = match["digest"] or match["tag"] or ""
    return Reference(match["registry"], match["repository"], manifest)


def oci(url: str, blob: Blob, partial: Path, handle: Handle, auth_file: Path | None) -> Path:
    """`blob` from the repository that `url` names. As `download`."""
    registry = _Registry(parse_reference(url), handle, auth_file)
    if registry.reference.manifest:
        registry.check_manifest(blob)
    return download(
        lambda headers: registry.get(f"blobs/{blob.digest}", headers), blob, partial, handle
    )


class _Registry:
    """One repository, for one transfer."""

    def __init__(self, reference: Reference, handle: Handle, auth_file: Path | None) -> None:
        self.reference = reference
        self._handle = handle
        self._auth_file = auth_file
        self._authorization = ""

    def check_manifest(self, blob: Blob) -> None:
        """WrongBlobError unless the manifest names `blob` among its layers."""
        manifest = self.reference.manifest
        with self.get(f"manifests/{manifest}", {"Accept": ", ".join(MANIFEST_TYPES)}) as reply:
            if reply.status != OK:
                raise reply.error(f"no manifest {manifest}")
            document = _json_object(reply.read_all(MAX_MANIFEST_BYTES), "the manifest")
        layers = document.get("layers")
        named = (
            [each for each in layers if isinstance(each, dict)] if isinstance(layers, list) else []
        )
        if not any(each.get("digest") == blob.digest for each in named):
            raise WrongBlobError(
                f"{self.reference.registry}: {manifest} does not name {blob.digest}"
            )

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[Reply]:
        """GET below the repository, with a token where one is wanted."""
        url = f"https://{self.reference.registry}/v2/{self.reference.repository}/{path}"
        with get(url, self._handle, headers, self._authorization) as reply:
            # A login is for the registry itself, not for wherever it sent this request on to.
            if reply.status != UNAUTHORIZED or self._authorization or reply.elsewhere:
                yield reply
                return
            challenge = reply.headers.get("WWW-Authenticate", "")
        self._authorization = self._answer(challenge)
        with get(url, self._handle, headers, self._authorization) as reply:
            yield reply

    def _answer(self, challenge: str) -> str:
        """The Authorization header that a challenge (RFC 9110, section 11.6.1) asks for."""
        if len(challenge) > MAX_CHALLENGE_CHARS:
            raise TransferError(
                f"{self.reference.registry}: a challenge of {len(challenge)} characters"
            )
        scheme, _, rest = challenge.partition(" ")
        basic = self._credentials()
        if scheme.lower() == "basic" and basic:
            return f"Basic {basic}"
        if scheme.lower() != "bearer":
            raise TransferError(
                f"{self.reference.registry}: it asks for a login; name a file with one as"
                " registry_auth_file in [updates]"
            )
        asked = {key.lower(): value for key, value in _PARAMETER.findall(rest)}
        query = {"scope": asked.get("scope") or f"repository:{self.reference.repository}:pull"}
        if "service" in asked:
            query["service"] = asked["service"]
        realm = asked.get("realm", "")
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        with get(url, self._handle, {}, f"Basic {basic}" if basic else "") as reply:
            if reply.status != OK:
                raise reply.error("no token")
            document = _json_object(reply.read_all(MAX_TOKEN_BYTES), "the answer with the token")
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise TransferError(f"{self.reference.registry}: its token server gave no token")
        return f"Bearer {token}"

    def _credentials(self) -> str:
        """`user:password` in base64, or nothing."""
        if self._auth_file is None:
            return ""
        try:
            raw = files.read(self._auth_file, MAX_AUTH_FILE_BYTES)
        except StoreError as error:
            raise TransferError(f"registry_auth_file: {error}") from error
        if raw is None:
            raise TransferError(f"registry_auth_file: {self._auth_file} is not there")
        entries = _json_object(raw, f"registry_auth_file {self._auth_file}").get("auths")
        entry = entries.get(self.reference.registry) if isinstance(entries, dict) else None
        if not isinstance(entry, dict):
            return ""
        if isinstance(entry.get("auth"), str):
            return str(entry["auth"]).strip()
        user, password = entry.get("username"), entry.get("password")
        if isinstance(user, str) and isinstance(password, str):
            return b64encode(f"{user}:{password}".encode()).decode()
        return ""


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = strictjson.loads(raw)  # which goes only as deep as a small stack allows
    except ValueError as error:
        raise TransferError(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise TransferError(f"{what} is not a JSON object")
    return document
