import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import StoreError, TransferError, WrongBlobError
from edge_agent.fleet.transfer.download import https
from edge_agent.fleet.transfer.web import Handle
from tests.support.blobs import cut, module
from tests.support.mosquitto import Certificates
from tests.support.smalldisk import small_disk
from tests.support.wait import wait_until
from tests.support.webserver import Handler, WebServer

DATA = module(100_000)
BLOB = cut(DATA).blob


def fetch(server: WebServer, partial: Path, path: str = "/a.wasm") -> bytes:
    return https(server.url + path, BLOB, partial, Handle()).read_bytes()


def test_blob_comes_whole(server: WebServer, partial: Path) -> None:
    server.files["/a.wasm?token=x"] = DATA
    handle = Handle()
    path = https(f"{server.url}/a.wasm?token=x", BLOB, partial, handle)
    assert path.read_bytes() == DATA
    assert handle.received == len(DATA)


def test_broken_transfer_goes_on_where_it_broke(server: WebServer, partial: Path) -> None:
    server.answers["/a.wasm"] = lambda request: request.serve_some(DATA, 30_000)
    for here in (30_000, 60_000, 90_000):
        with pytest.raises(TransferError, match=f"ended after {here} of 100000 bytes"):
            fetch(server, partial)
    assert fetch(server, partial) == DATA
    ranges = [headers.get("Range") for _, headers in server.requests]
    assert ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_server_without_ranges_sends_it_all_again(server: WebServer, partial: Path) -> None:
    partial.write_bytes(DATA[:500])
    server.answers["/a.wasm"] = lambda request: request.serve(DATA, ranges=False)
    assert fetch(server, partial) == DATA


def test_blob_that_is_here_already_costs_no_request(server: WebServer, partial: Path) -> None:
    partial.write_bytes(DATA)
    assert fetch(server, partial) == DATA
    assert not server.requests


def hang(server: WebServer) -> None:
    """Say nothing until the test is over."""
    server.released.wait()


def _chunked(data: bytes) -> Callable[[Handler], None]:
    def answer(request: Handler) -> None:
        request.head(200, **{"Transfer-Encoding": "chunked"})
        for at in range(0, len(data), 30_000):
            piece = data[at : at + 30_000]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    return answer


def test_answer_in_chunks_is_an_answer(server: WebServer, partial: Path) -> None:
    server.answers["/a.wasm"] = _chunked(DATA)
    assert fetch(server, partial) == DATA


def _with_headers(status: int = 200, **headers: str) -> Callable[[Handler], None]:
    def answer(request: Handler) -> None:
        request.head(status, **{name.replace("_", "-"): value for name, value in headers.items()})
        request.wfile.write(DATA)
        request.close_connection = True

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: request.serve(DATA[:-1] + b"\xff"), "which is another blob"),
        (lambda request: request.serve(DATA[:-1]), "'99999' bytes more instead of 100000"),
        (lambda request: request.serve(DATA + b"x"), "'100001' bytes more instead of 100000"),
        (_with_headers(Content_Length="99999999999"), "'99999999999' bytes more instead"),
        (_with_headers(Content_Length="100000", Content_Encoding="gzip"), "encoded ('gzip')"),
        (_with_headers(206, Content_Range="bytes 5-100004/100005"), "sends the range 'bytes 5-"),
        (_with_headers(206), "sends the range ''"),
        (_chunked(DATA + b"x"), "more than the 100000 bytes"),
        (_with_headers(), "^$"),
    ],
)
def test_what_cannot_be_the_blob_is_told_and_nothing_is_kept(
    server: WebServer, partial: Path, answer: Callable[[Handler], None], words: str
) -> None:
    server.answers["/a.wasm"] = answer
    if words == "^$":  # a server may say nothing of the length
        assert fetch(server, partial) == DATA
        return
    with pytest.raises(WrongBlobError) as caught:
        fetch(server, partial)
    assert words in str(caught.value)
    assert not partial.exists()


def test_server_that_sends_without_end_is_left_at_the_declared_size(
    server: WebServer, partial: Path
) -> None:
    def endless(request: Handler) -> None:
        request.head(200)
        while not server.released.is_set():
            request.wfile.write(bytes(1 << 16))

    server.answers["/a.wasm"] = endless
    handle = Handle()
    with pytest.raises(WrongBlobError, match="more than the 100000 bytes"):
        https(f"{server.url}/a.wasm", BLOB, partial, handle)
    assert handle.received == BLOB.size


def test_rest_that_does_not_fit_to_what_is_here_is_no_verdict_about_the_source(
    server: WebServer, partial: Path
) -> None:
    partial.write_bytes(b"from something else")
    server.files["/a.wasm"] = DATA
    with pytest.raises(TransferError, match="the next attempt begins anew") as caught:
        fetch(server, partial)
    assert not isinstance(caught.value, WrongBlobError)
    assert fetch(server, partial) == DATA


def test_more_here_than_the_blob_has_is_thrown_away(server: WebServer, partial: Path) -> None:
    partial.write_bytes(DATA + b"and more")
    server.files["/a.wasm"] = DATA
    assert fetch(server, partial) == DATA
    assert "Range" not in server.requests[0][1]


def test_file_that_became_shorter_at_the_server_is_asked_for_anew(
    server: WebServer, partial: Path
) -> None:
    partial.write_bytes(DATA[:50_000])
    server.files["/a.wasm"] = DATA[:40_000]
    with pytest.raises(TransferError, match="less than the 50000 bytes that are here"):
        fetch(server, partial)
    assert not partial.exists()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_https_is_followed_with_its_range(
    server: WebServer, partial: Path, status: int
) -> None:
    partial.write_bytes(DATA[:10])
    server.files["/b.wasm"] = DATA
    server.answers["/a.wasm"] = _with_headers(status, Location="/b.wasm", Content_Length="100000")
    assert fetch(server, partial) == DATA
    assert server.requests[-1][1]["Range"] == "bytes=10-"


@pytest.mark.parametrize(
    "scheme", ["http://localhost", "ftp://localhost", "file:///etc/passwd", "data:,"]
)
def test_redirect_to_anything_else_is_not(server: WebServer, partial: Path, scheme: str) -> None:
    with WebServer(None) as plain:
        plain.files["/a.wasm"] = DATA
        where = f"{plain.url}/a.wasm" if scheme.startswith("http:") else scheme
        server.answers["/a.wasm"] = _with_headers(302, Location=where, Content_Length="0")
        with pytest.raises(TransferError, match=r"is not https|not allowed"):
            fetch(server, partial)
        assert not plain.requests


@pytest.mark.parametrize(
    "length", [{}, {"Content-Length": str(1 << 40)}, {"Transfer-Encoding": "chunked"}]
)
def test_redirect_that_says_more_than_where_to_is_not_listened_to(
    server: WebServer, partial: Path, length: dict[str, str]
) -> None:
    sent = [0]

    def answer(request: Handler) -> None:
        request.head(302, Location="/there.wasm", **length)
        while sent[0] < 64 << 20:
            request.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            sent[0] += 1 << 16
        request.close_connection = True

    server.files["/there.wasm"] = DATA
    server.answers["/a.wasm"] = answer
    assert fetch(server, partial) == DATA
    assert sent[0] < 32 << 20  # what fits into the sockets' buffers


def test_redirects_in_a_circle_end(server: WebServer, partial: Path) -> None:
    server.answers["/a.wasm"] = _with_headers(302, Location="/a.wasm", Content_Length="100000")
    with pytest.raises(TransferError):
        fetch(server, partial)
    assert len(server.requests) < 20


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_status_is_told(server: WebServer, partial: Path, status: int) -> None:
    server.answers["/a.wasm"] = lambda request: request.send_error(status)
    with pytest.raises(TransferError, match=f"localhost: no blob: {status}"):
        fetch(server, partial)


def test_plain_http_is_refused_before_anything_is_asked(partial: Path) -> None:
    with WebServer(None) as plain, pytest.raises(TransferError, match="only https://"):
        https(f"{plain.url}/a.wasm", BLOB, partial, Handle())
    assert not plain.requests


def test_untrusted_certificate_is_told(
    certificates: Certificates, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with WebServer(certificates) as server, pytest.raises(TransferError, match="is not trusted"):
        fetch(server, partial)


def test_certificate_of_another_host_is_told(server: WebServer, partial: Path) -> None:
    with pytest.raises(TransferError, match=r"127\.0\.0\.1: its certificate is not trusted"):
        https(server.url.replace("localhost", "127.0.0.1") + "/", BLOB, partial, Handle())


@pytest.mark.parametrize(
    "url", ["https://localhost:1/", "https://no-such-host.invalid/", "https://[::/", "https://a b/"]
)
@pytest.mark.usefixtures("trusted")
def test_server_that_cannot_be_reached_is_told(partial: Path, url: str) -> None:
    with pytest.raises(TransferError):
        https(url, BLOB, partial, Handle())


@pytest.mark.parametrize(
    "answer", [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000]
)
def test_answer_that_is_not_http_is_told(
    trusted: Certificates, partial: Path, answer: bytes
) -> None:
    with WebServer(trusted) as server:
        server.answers["/"] = lambda request: _raw(request, answer)
        with pytest.raises(TransferError, match="localhost: "):
            fetch(server, partial, "/")


def _raw(request: Handler, answer: bytes) -> None:
    request.wfile.write(answer)
    request.close_connection = True


@pytest.fixture
def waiting(
    server: WebServer,
) -> Iterator[tuple[WebServer, Handle, list[Exception], Callable[[], None]]]:
    handle, errors = Handle(), list[Exception]()

    def run() -> None:
        try:
            https(f"{server.url}/a.wasm", BLOB, Path("/nonexistent/partial"), handle)
        except (TransferError, StoreError) as error:
            errors.append(error)

    thread = threading.Thread(target=run)

    def finish() -> None:
        thread.start()
        wait_until(lambda: server.requests, "the request arrives")
        handle.stop()
        thread.join(25)
        assert not thread.is_alive(), "it waits on"

    yield server, handle, errors, finish
    server.released.set()
    thread.join()


def test_stopped_while_the_server_says_nothing_it_ends(
    waiting: tuple[WebServer, Handle, list[Exception], Callable[[], None]],
) -> None:
    server, _, errors, finish = waiting
    server.answers["/a.wasm"] = lambda _: hang(server)
    finish()
    assert [str(error) for error in errors] == ["stopped"]


def test_stopped_while_the_headers_drip_it_ends(
    waiting: tuple[WebServer, Handle, list[Exception], Callable[[], None]],
) -> None:
    server, _, errors, finish = waiting

    def drip(request: Handler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.released.wait(0.05):
            request.wfile.write(b"y")

    server.answers["/a.wasm"] = drip
    finish()
    assert [str(error) for error in errors] == ["stopped"]


def test_stopped_before_it_begins_nothing_is_asked(server: WebServer, partial: Path) -> None:
    handle = Handle()
    handle.stop()
    with pytest.raises(TransferError, match="stopped"):
        https(f"{server.url}/a.wasm", BLOB, partial, handle)
    assert not server.requests


@pytest.mark.usefixtures("trusted")
def test_stopped_in_the_handshake_it_ends(partial: Path) -> None:
    """A peer that takes the connection and never answers the TLS hello."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        handle, began = Handle(), time.monotonic()

        def stop() -> None:
            with silent.accept()[0] as peer:
                peer.recv(1)
                handle.stop()
                peer.recv(100_000)
                while peer.recv(100_000):
                    pass

        threading.Thread(target=stop, daemon=True).start()
        with pytest.raises(TransferError, match="stopped"):
            https(f"https://localhost:{silent.getsockname()[1]}/", BLOB, partial, handle)
        assert time.monotonic() - began < 25, "only its time-out ended it"


def test_proxy_of_the_system_is_asked(
    server: WebServer, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy as RFC 9110 has it: CONNECT, then bytes both ways."""
    server.files["/a.wasm"] = DATA
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as client:
                asked.append(client.recv(4096).split(b"\r\n")[0].decode())
                with socket.create_connection(("127.0.0.1", server.server_port)) as target:
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(target, client), daemon=True)
                    back.start()
                    _pump(client, target)
                    back.join()

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        assert fetch(server, partial) == DATA
    assert asked == [f"CONNECT localhost:{server.server_port} HTTP/1.0"]


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.mark.system
def test_full_disk_is_an_error_of_the_store(server: WebServer, tmp_path: Path) -> None:
    server.files["/a.wasm"] = DATA
    with small_disk(tmp_path / "disk", 64) as folder:
        with pytest.raises(StoreError, match="No space left on device; free some space"):
            https(f"{server.url}/a.wasm", BLOB, folder / "partial", Handle())
        assert (folder / "partial").stat().st_size < len(DATA)


@pytest.mark.system
def test_read_only_disk_is_an_error_of_the_store(server: WebServer, tmp_path: Path) -> None:
    server.files["/a.wasm"] = DATA
    with (
        small_disk(tmp_path / "disk", 64, "ro") as folder,
        pytest.raises(StoreError, match="state_dir must be on a disk that can be written"),
    ):
        https(f"{server.url}/a.wasm", BLOB, folder / "partial", Handle())
