"""One GET over HTTPS at a time, which another thread can end at any moment, and the thread for it.

The certificate authorities and proxies are the system's, as Python's urllib finds them
(`https_proxy`, `no_proxy`, `SSL_CERT_FILE`). Redirects lead to `https` only. What belongs
to urllib and TLS is imported with the first request: a node that fetches over MQTT pays
nothing for it. There is one thread for all transfers, and only while there is something to fetch.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from edge_agent import __version__, process
from edge_agent.errors import EdgeAgentError, StoreError, TransferError
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.text import printable

# To connect, and for each piece of an answer; the whole is limited by the caller.
TIMEOUT_S = 30.0
_NEVER_SENT_ON = "Authorization"  # a redirect may lead to another owner's storage


class Handle:
    """One transfer as its two threads see it: progress one way, the order to stop the other."""

    def __init__(self) -> None:
        self.received = 0  # bytes of the blob that are here
        self.stopped = False
        self._lock = Lock()
        self._sockets: list[socket.socket] = []

    def stop(self) -> None:
        """End what waits for the network; nothing new is opened."""
        with self._lock:
            self.stopped = True
            for each in self._sockets:
                with suppress(OSError):  # the peer was faster
                    each.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """TransferError once stopped."""
        if self.stopped:
            raise TransferError("stopped")

    def connect(self, *arguments: Any, **options: Any) -> socket.socket:
        """`socket.create_connection`, remembered."""
        self.check()
        connected = socket.create_connection(*arguments, **options)
        with self._lock:
            # Its own descriptor of the same connection: TLS takes the other one away.
            self._sockets.append(connected.dup())
        if self.stopped:
            connected.close()
            self.check()
        return connected

    def close(self) -> None:
        """Forget the connections, which their owners have closed."""
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()


class Reply:
    """An answer: `status`, `headers` and a body that is read in pieces.

    `elsewhere`: a redirect led to another host than was asked.
    """

    def __init__(self, response: Any, url: str) -> None:
        host = _host(url)
        self.status = int(response.status)
        self.headers: Mapping[str, str] = response.headers
        self.elsewhere = _authority(response.url) != _authority(url)
        self._response = response
        self._host = host

    def read(self, size: int) -> bytes:
        """The next 1 to `size` bytes, b"" at the end. TransferError."""
        from http.client import HTTPException

        try:
            return bytes(self._response.read1(size))
        except (OSError, HTTPException, ValueError) as error:
            raise TransferError(f"{self._host}: {_reason(error)}") from error

    def read_all(self, limit: int) -> bytes:
        """The whole body. TransferError for more than `limit` bytes."""
        parts, left = [], limit + 1
        while left and (part := self.read(left)):
            parts.append(part)
            left -= len(part)
        if not left:
            raise TransferError(f"{self._host}: its answer has more than {limit} bytes")
        return b"".join(parts)

    def error(self, what: str) -> TransferError:
        """The TransferError for a status that is of no use."""
        reason = printable(str(getattr(self._response, "reason", "")))[:100]
        return TransferError(f"{self._host}: {what}: {self.status} {reason}")


@contextmanager
def get(
    url: str, handle: Handle, headers: Mapping[str, str], authorization: str = ""
) -> Iterator[Reply]:
    """GET `url`; any status is an answer. TransferError if there is none."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request

    handle.check()
    if not url.startswith("https://"):
        raise TransferError(f"{_shown(url)}: only https:// is fetched from")
    host = _host(url)
    try:
        request = Request(url, headers={"User-Agent": f"edge-agent/{__version__}", **headers})
        request.add_header("Accept-Encoding", "identity")
        if authorization:
            request.add_unredirected_header(_NEVER_SENT_ON, authorization)
        try:
            response: Any = _opener(handle).open(request, timeout=TIMEOUT_S)
        except HTTPError as error:
            response = error
    except (OSError, HTTPException, ValueError) as error:
        handle.close()
        handle.check()
        raise TransferError(f"{host}: {_reason(error)}") from error
    try:
        with response:
            handle.check()  # http.client takes headers that were cut by it for whole
            yield Reply(response, url)
    finally:
        handle.close()


def _opener(handle: Handle) -> Any:
    import ssl
    from http.client import HTTPSConnection
    from urllib import request

    class Connection(HTTPSConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._create_connection = handle.connect

    class Https(request.HTTPSHandler):
        def https_open(self, req: request.Request) -> Any:
            return self.do_open(Connection, req, context=context)

    class Redirects(request.HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            if not newurl.startswith("https://"):
                raise OSError(f"it redirects to {_shown(newurl)}, which is not https://")
            handle.check()
            # Or urllib would read its body into memory, however long it is.
            fp.chunked, fp.length = False, 0
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    context = ssl.create_default_context()
    # By hand: `build_opener` would bring handlers for ftp, file and data too.
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        Https(),
        request.HTTPDefaultErrorHandler(),
        Redirects(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return printable(urlsplit(url).hostname or "")
    except ValueError:
        return _shown(url)


def _authority(url: str) -> str:
    """Host and port as they stand there."""
    return url.partition("://")[2].partition("/")[0].lower()


def _shown(url: str) -> str:
    """Without the query, which may be a secret, and short."""
    return printable(url.partition("?")[0])[:200]


def _reason(error: Exception) -> str:
    import ssl

    cause = getattr(error, "reason", error)  # URLError wraps another
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT_S:.0f} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return printable(f"{cause or type(cause).__name__}")[:300]


# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class TransferThread:
    """Runs jobs one after the other. Jobs must not raise, and end soon once stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy = False

    def run(self, job: Callable[[], None]) -> None:
        """Have `job` run on the thread; returns at once."""
        with self._lock:
            self._jobs.append(job)
            if self._busy:
                return
            self._busy = True
        try:
            process.start(self._work, name="transfer", stack_bytes=STACK_BYTES)
        except RuntimeError:  # no thread to be had: the next job tries again
            with self._lock:
                self._busy = False

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._busy = False
                    return
                job = self._jobs.popleft()
            job()


# For the whole of one try: what is slower is as good as away. 64 MiB may take 18 hours.
SETUP_S = 300.0
SLOWEST_BYTES_PER_S = 1024


class BlockingAttempt:
    """One try to get `blob` by `fetch`, which runs on the transfer thread."""

    def __init__(
        self,
        blob: Blob,
        fetch: Callable[[Handle], Path],
        thread: TransferThread,
        wake: Callable[[], None],
        now: float,
    ) -> None:
        """`wake` is called on the transfer thread when `step` has something to say."""
        self._blob = blob
        self._fetch = fetch
        self._wake = wake
        self._handle = Handle()
        self._result: Path | EdgeAgentError | None = None
        self.due = now + SETUP_S + blob.size / SLOWEST_BYTES_PER_S
        thread.run(self._run)

    @property
    def progress(self) -> float:
        """How much of the blob is here, 0 to 1."""
        return self._handle.received / max(1, self._blob.size)

    def step(self, now: float) -> Path | None:
        """The blob once it is here. TransferError, WrongBlobError, StoreError."""
        if isinstance(self._result, EdgeAgentError):
            raise self._result
        if self._result is None and now >= self.due:
            self.close()
            raise TransferError("it is too slow: given up")
        return self._result

    def take(self, number: int, data: bytes, now: float) -> None:
        """No part was asked for."""

    def close(self) -> None:
        """End it soon; what came stays on the disk."""
        self._handle.stop()

    def _run(self) -> None:
        try:
            self._handle.check()
            self._result = self._fetch(self._handle)
        except (TransferError, StoreError) as error:
            self._result = error
        except Exception as error:  # whatever a server can make the libraries do
            self._result = TransferError(f"unexpected: {error!r}"[:300])
        self._wake()
