"""A small HTTPS server that serves files as they should be, or misbehaves as it is told."""

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.support.mosquitto import Certificates
from tests.support.names import require_localhost

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request; `WebServer.files` and `answers` say what comes of it."""

    server: "WebServer"
    protocol_version = "HTTP/1.1"
    timeout = 60  # no thread stays for ever

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        if answer := self.server.answers.get(self.path):
            answer(self)
        elif (data := self.server.files.get(self.path)) is not None:
            self.serve(data)
        else:
            self.send_error(404)

    def serve(self, data: bytes, *, ranges: bool = True) -> None:
        """`data`, or the part of it that is asked for."""
        start = self.range_start() if ranges else 0
        if start >= len(data) > 0:
            self.head(416, **{"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if start else 200, **headers)
        self.wfile.write(data[start:])

    def serve_some(self, data: bytes, count: int) -> None:
        """Says that all of `data` from the asked start on comes, and hangs up after `count`."""
        start = self.range_start()
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if start else 200, **headers)
        self.wfile.write(data[start : start + count])
        self.close_connection = True

    def range_start(self) -> int:
        """Where `Range: bytes=N-` begins."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def head(self, status: int, **headers: str) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `requests`."""


class WebServer(ThreadingHTTPServer):
    """On `localhost`, with a certificate of `certificates`, or without TLS; a context manager."""

    daemon_threads = True

    def __init__(self, certificates: Certificates | None) -> None:
        require_localhost()
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()  # for answers that wait until the test is over
        self._tls = None
        if certificates is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificates.broker)
        self.url = f"{'https' if self._tls else 'http'}://localhost:{self.server_port}"

    def finish_request(self, request: object, client_address: object) -> None:
        # The handshake in the connection's own thread: a client that is slow holds up nobody.
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
            except OSError:
                return  # the client does not trust the certificate
        super().finish_request(request, client_address)  # type: ignore[arg-type]
        request.close()  # type: ignore[attr-defined]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()
