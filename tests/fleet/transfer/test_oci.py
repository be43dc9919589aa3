"""Against distribution's registry and what `oras push` made there."""

import json
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import TransferError, WrongBlobError
from edge_agent.fleet.transfer.download import Reference, oci, parse_reference
from edge_agent.fleet.transfer.web import Handle
from tests.support.blobs import cut, module
from tests.support.gobuild import require_go
from tests.support.mosquitto import OPENSSL, Certificates
from tests.support.registry import Registry, docker_config
from tests.support.wait import wait_until
from tests.support.webserver import Handler, WebServer

pytestmark = pytest.mark.usefixtures("trusted")

DATA = module(200_000)
IT = cut(DATA)
BLOB, OTHER = IT.blob, cut(module(200_000, seed=1)).blob
# Of "secret" by bcrypt, which this registry wants.
PASSWORD_FILE = "board:$2b$04$9fLNQE16.n46TBhImN3S7uJeH6edaOe3Uxy25x7wM27QCj5MjK1zG\n"
LOGIN = ("board", "secret")


@pytest.fixture(scope="module")
def pushed(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    require_go()
    folder = tmp_path_factory.mktemp("registry")
    with Registry(folder, certificates) as registry:
        _push(registry, folder)
        yield registry


def _push(registry: Registry, folder: Path, login: tuple[str, str] | None = None) -> None:
    wasm = folder / "plugin.wasm"
    wasm.write_bytes(DATA)
    registry.push("fleet/plugin:1.0.0", wasm, login)


def fetch(
    registry: Registry, partial: Path, repository: str = "fleet/plugin", auth: Path | None = None
) -> bytes:
    return oci(f"oci://{registry.host}/{repository}", BLOB, partial, Handle(), auth).read_bytes()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("oci://ghcr.io/a/b", Reference("ghcr.io", "a/b")),
        ("oci://localhost:5000/a", Reference("localhost:5000", "a")),
        ("oci://[::1]:5000/a", Reference("[::1]:5000", "a")),
        ("oci://r/a-b/c__d.e:1.0-x", Reference("r", "a-b/c__d.e", "1.0-x")),
        (f"oci://r/a@sha256:{'0' * 64}", Reference("r", "a", f"sha256:{'0' * 64}")),
        (f"oci://r/a:1@sha256:{'0' * 64}", Reference("r", "a", f"sha256:{'0' * 64}")),
    ],
)
def test_reference_is_read(url: str, expected: Reference) -> None:
    assert parse_reference(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "oci://",
        "oci://r",
        "oci://r/",
        "https://r/a",
        "oci://user@r/a",
        "oci://r/A",
        "oci://r/a/../b",
        "oci://r/a?x",
        "oci://r/a:",
        "oci://r/a@sha256:0",
        "oci://r/a b",
        "oci://r/a\n",
        "oci://" + "a" * 100_000,
    ],
)
def test_what_is_no_reference_is_refused(url: str) -> None:
    with pytest.raises(TransferError, match="not oci://registry/repository"):
        parse_reference(url)


@pytest.mark.system
def test_blob_of_an_oras_push_comes(pushed: Registry, partial: Path) -> None:
    assert fetch(pushed, partial) == DATA


@pytest.mark.system
def test_blob_comes_by_a_tag_whose_manifest_names_it(pushed: Registry, partial: Path) -> None:
    assert fetch(pushed, partial, "fleet/plugin:1.0.0") == DATA


@pytest.mark.system
def test_broken_transfer_goes_on(pushed: Registry, partial: Path) -> None:
    partial.write_bytes(DATA[:150_000])
    handle = Handle()
    oci(f"oci://{pushed.host}/fleet/plugin", BLOB, partial, handle, None)
    assert partial.read_bytes() == DATA
    # The registry writes its log after it has answered.
    wait_until(lambda: '" 206 ' in pushed.requests()[-1], "a part was asked for")


@pytest.mark.system
def test_manifest_that_names_another_blob_is_refused(pushed: Registry, partial: Path) -> None:
    url = f"oci://{pushed.host}/fleet/plugin:1.0.0"
    with pytest.raises(WrongBlobError, match=f"1.0.0 does not name {OTHER.digest}"):
        oci(url, OTHER, partial, Handle(), None)


@pytest.mark.system
@pytest.mark.parametrize(
    ("repository", "words"),
    [("fleet/plugin:2", "no manifest 2: 404"), ("fleet/nothing", "no blob: 404")],
)
def test_what_the_registry_does_not_have_is_told(
    pushed: Registry, partial: Path, repository: str, words: str
) -> None:
    with pytest.raises(TransferError, match=words):
        fetch(pushed, partial, repository)


@pytest.fixture(scope="module")
def locked(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry that wants a user's name and a password."""
    require_go()
    folder = tmp_path_factory.mktemp("locked")
    (folder / "passwords").write_text(PASSWORD_FILE)
    settings = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "fleet",
        "REGISTRY_AUTH_HTPASSWD_PATH": str(folder / "passwords"),
    }
    with Registry(folder, certificates, settings) as registry:
        _push(registry, folder, LOGIN)
        yield registry


@pytest.mark.system
def test_login_of_a_docker_config_is_used(locked: Registry, partial: Path, tmp_path: Path) -> None:
    auth = docker_config(tmp_path / "config.json", locked.host, *LOGIN)
    assert fetch(locked, partial, auth=auth) == DATA


@pytest.mark.system
def test_login_of_plain_names_is_used(locked: Registry, partial: Path, tmp_path: Path) -> None:
    auth = tmp_path / "config.json"
    auth.write_text(
        json.dumps(
            {"auths": {locked.host: dict(zip(("username", "password"), LOGIN, strict=True))}}
        )
    )
    assert fetch(locked, partial, auth=auth) == DATA


@pytest.mark.system
def test_missing_login_is_told_with_what_to_do(
    locked: Registry, partial: Path, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match="name a file with one as registry_auth_file"):
        fetch(locked, partial)
    auth = docker_config(tmp_path / "config.json", "another.registry", *LOGIN)
    with pytest.raises(TransferError, match="it asks for a login"):
        fetch(locked, partial, auth=auth)


@pytest.mark.system
def test_wrong_login_is_told(locked: Registry, partial: Path, tmp_path: Path) -> None:
    auth = docker_config(tmp_path / "config.json", locked.host, "board", "wrong")
    with pytest.raises(TransferError, match="no blob: 401"):
        fetch(locked, partial, auth=auth)


@pytest.mark.system
@pytest.mark.parametrize(
    "content", ["", "[]", "nonsense", '{"auths": []}', '{"auths": {"HOST": 5}}']
)
def test_auth_file_of_another_form_gives_no_login(
    locked: Registry, partial: Path, tmp_path: Path, content: str
) -> None:
    auth = tmp_path / "config.json"
    auth.write_text(content.replace("HOST", locked.host))
    with pytest.raises(TransferError, match=r"registry_auth_file|asks for a login"):
        fetch(locked, partial, auth=auth)


@pytest.mark.system
def test_auth_file_that_is_missing_is_told(locked: Registry, partial: Path, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"registry_auth_file: .*/none is not there"):
        fetch(locked, partial, auth=tmp_path / "none")


class TokenServer:
    """Gives tokens that distribution's registry checks: JWTs signed by openssl (RFC 7515)."""

    def __init__(self, folder: Path, web: WebServer) -> None:
        assert OPENSSL is not None
        self.key, self.certificate = folder / "token.key", folder / "token.pem"
        self.asked: list[str] = []
        self.actions = ["pull", "push"]
        self.anonymous = True
        subprocess.run(
            [
                *(OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=tokens", "-keyout", self.key, "-out", self.certificate),
            ],
            check=True,
            capture_output=True,
        )
        self.web = web

    def answer(self, request: Handler) -> None:
        """`GET /token?scope=...&service=...`."""
        self.asked.append(request.headers.get("Authorization", ""))
        if not self.anonymous and not self.asked[-1]:
            request.send_error(401)
            return
        body = json.dumps({"token": self.token()}).encode()
        request.head(200, **{"Content-Length": str(len(body))})
        request.wfile.write(body)

    def token(self) -> str:
        """One for the repository fleet/plugin."""
        pem = self.certificate.read_text().splitlines()
        der = "".join(line for line in pem if "-----" not in line)
        now = int(time.time())
        access = {"type": "repository", "name": "fleet/plugin", "actions": self.actions}
        claims = {
            "iss": "tests",
            "sub": "",
            "aud": "registry",
            "jti": "1",
            "access": [access],
            "exp": now + 600,
            "nbf": now - 10,
            "iat": now,
        }
        message = ".".join(
            _base64url(json.dumps(each).encode())
            for each in ({"alg": "RS256", "typ": "JWT", "x5c": [der]}, claims)
        )
        assert OPENSSL is not None
        signature = subprocess.run(
            [OPENSSL, "dgst", "-sha256", "-sign", self.key],
            input=message.encode(),
            capture_output=True,
            check=True,
        ).stdout
        return f"{message}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class _Tokens(WebServer):
    """Every path below /token is answered by the token server."""

    def attach(self, tokens: TokenServer) -> None:
        self.answers = _Every("/token", tokens.answer)


class _Every(dict):  # type: ignore[type-arg]
    """Answers by the path without its query."""

    def __init__(self, path: str, answer: object) -> None:
        super().__init__()
        self._path, self._answer = path, answer

    def get(self, path: str, default: object = None) -> object:
        return self._answer if path.partition("?")[0] == self._path else default


@pytest.fixture(scope="module")
def guarded(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Registry, TokenServer]]:
    """A registry that wants a token, and who gives it."""
    require_go()
    folder = tmp_path_factory.mktemp("guarded")
    with _Tokens(certificates) as web:
        tokens = TokenServer(folder, web)
        web.attach(tokens)
        settings = {
            "REGISTRY_AUTH": "token",
            "REGISTRY_AUTH_TOKEN_REALM": f"{web.url}/token",
            "REGISTRY_AUTH_TOKEN_SERVICE": "registry",
            "REGISTRY_AUTH_TOKEN_ISSUER": "tests",
            "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": str(tokens.certificate),
        }
        with Registry(folder, certificates, settings) as registry:
            _push(registry, folder, LOGIN)
            tokens.actions = ["pull"]
            yield registry, tokens


@pytest.fixture
def tokens(guarded: tuple[Registry, TokenServer]) -> TokenServer:
    tokens = guarded[1]
    tokens.asked.clear()
    tokens.web.requests.clear()
    tokens.anonymous = True
    return tokens


@pytest.mark.system
def test_anonymous_token_is_fetched_once_for_manifest_and_blob(
    guarded: tuple[Registry, TokenServer], tokens: TokenServer, partial: Path
) -> None:
    assert fetch(guarded[0], partial, "fleet/plugin:1.0.0") == DATA
    assert tokens.asked == [""]
    assert tokens.web.requests[0][0] == (
        "/token?scope=repository%3Afleet%2Fplugin%3Apull&service=registry"
    )


@pytest.mark.system
def test_token_is_asked_for_with_the_login(
    guarded: tuple[Registry, TokenServer],
    tokens: TokenServer,
    partial: Path,
    tmp_path: Path,
) -> None:
    tokens.anonymous = False
    with pytest.raises(TransferError, match="no token: 401"):
        fetch(guarded[0], partial)
    auth = docker_config(tmp_path / "config.json", guarded[0].host, *LOGIN)
    assert fetch(guarded[0], partial, auth=auth) == DATA
    assert tokens.asked == ["", "Basic Ym9hcmQ6c2VjcmV0"]


@pytest.mark.system
def test_token_for_another_repository_is_no_token(
    guarded: tuple[Registry, TokenServer], tokens: TokenServer, partial: Path
) -> None:
    with pytest.raises(TransferError, match="no blob: 401"):
        fetch(guarded[0], partial, "fleet/another")
    assert len(tokens.asked) == 1


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ("", "asks for a login"),
        ("Negotiate", "asks for a login"),
        ("Bearer", "only https://"),
        ('Bearer realm="http://localhost:1/token"', "only https://"),
        ('Bearer realm="file:///etc/passwd"', "only https://"),
        ('Bearer realm="SELF/nothing"', "no token: 404"),
        ('Bearer realm="SELF/list"', "not a JSON object"),
        ('Bearer realm="SELF/text"', "is not JSON"),
        ('Bearer realm="SELF/empty"', "gave no token"),
        ('Bearer realm="SELF/newline"', "gave no token"),
        ('Bearer realm="SELF/large"', "more than 262144 bytes"),
        ('Bearer realm="SELF/deep"', "is not JSON: nested deeper"),
    ],
)
def test_registry_that_lies_about_tokens_is_left(
    server: WebServer, partial: Path, challenge: str, words: str
) -> None:
    answers = {
        "list": b"[]",
        "text": b"hello",
        "empty": b"{}",
        "newline": b'{"token": "a\\r\\nX: y"}',
        "large": b" " * 300_000,
        "deep": b"[" * 200_000,
    }
    for name, body in answers.items():
        server.answers[f"/{name}?scope=repository%3Aa%3Apull"] = _body(body)
    header = {"WWW-Authenticate": challenge.replace("SELF", server.url)}
    server.answers[f"/v2/a/blobs/{BLOB.digest}"] = lambda request: request.head(
        401, **header, **{"Content-Length": "0"}
    )
    host = server.url.removeprefix("https://")
    with pytest.raises(TransferError, match=words):
        oci(f"oci://{host}/a", BLOB, partial, Handle(), None)


def test_challenge_that_makes_patterns_slow_costs_nothing(server: WebServer, partial: Path) -> None:
    # One long header line: a pattern that tries it from each letter holds the interpreter, and
    # with it the thread that answers runtimes, for half a minute.
    server.answers[f"/v2/a/blobs/{BLOB.digest}"] = lambda request: request.head(
        401, **{"WWW-Authenticate": f"Bearer {'a' * 65_000}", "Content-Length": "0"}
    )
    host = server.url.removeprefix("https://")
    with pytest.raises(TransferError, match="a challenge of 65007 characters"):
        oci(f"oci://{host}/a", BLOB, partial, Handle(), None)


def _body(body: bytes):  # type: ignore[no-untyped-def]
    def answer(request: Handler) -> None:
        request.head(200, **{"Content-Length": str(len(body))})
        request.wfile.write(body)

    return answer


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b'{"layers": 5}', b'{"layers": [5]}', b"x"])
def test_manifest_of_another_form_is_refused(
    server: WebServer, partial: Path, manifest: bytes
) -> None:
    server.answers["/v2/a/manifests/1"] = _body(manifest)
    host = server.url.removeprefix("https://")
    with pytest.raises(TransferError, match=r"is not|does not name"):
        oci(f"oci://{host}/a:1", BLOB, partial, Handle(), None)


def test_login_is_not_sent_on_to_where_a_registry_redirects(
    server: WebServer, trusted: Certificates, partial: Path, tmp_path: Path
) -> None:
    host = server.url.removeprefix("https://")
    auth = docker_config(tmp_path / "config.json", host, *LOGIN)
    with WebServer(trusted) as storage:
        storage.files["/there"] = DATA

        def answer(request: Handler) -> None:
            if "Authorization" not in request.headers:
                request.head(401, **{"WWW-Authenticate": "Basic", "Content-Length": "0"})
            else:
                request.head(307, Location=f"{storage.url}/there", **{"Content-Length": "0"})

        server.answers[f"/v2/a/blobs/{BLOB.digest}"] = answer
        assert oci(f"oci://{host}/a", BLOB, partial, Handle(), auth).read_bytes() == DATA
        assert "Authorization" not in storage.requests[0][1]
        assert len(storage.requests) == 1


def test_login_is_not_given_to_who_asks_for_it_where_a_registry_redirects(
    server: WebServer, trusted: Certificates, partial: Path, tmp_path: Path
) -> None:
    host = server.url.removeprefix("https://")
    auth = docker_config(tmp_path / "config.json", host, *LOGIN)
    with WebServer(trusted) as storage:
        realm = f'Bearer realm="{storage.url}/token"'
        storage.answers["/there"] = lambda request: request.head(
            401, **{"WWW-Authenticate": realm, "Content-Length": "0"}
        )
        server.answers[f"/v2/a/blobs/{BLOB.digest}"] = lambda request: request.head(
            307, Location=f"{storage.url}/there", **{"Content-Length": "0"}
        )
        with pytest.raises(TransferError, match="no blob: 401"):
            oci(f"oci://{host}/a", BLOB, partial, Handle(), auth)
        assert [path for path, _ in storage.requests] == ["/there"]
