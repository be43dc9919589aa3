"""Private keys behind a passphrase, and keys that an ssh-agent keeps; both are real."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet_protocol import keys
from edge_agent.operator import ssh_agent
from edge_agent.operator.keyring import Keyring, read_public
from tests.operator.conftest import GUARD, Home
from tests.support.mosquitto import needs_mosquitto, needs_openssl

needs_ssh = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is missing")
WORDS = "correct horse"


@needs_openssl
def test_an_encrypted_key_signs_after_its_passphrase_was_asked_for_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return WORDS

    keyring = Keyring(tmp_path / "keys", ask)
    public = keyring.generate("alice", WORDS)
    text = keyring.private_file("alice").read_text()
    assert text.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert keyring.private_file("alice").stat().st_mode & 0o077 == 0
    for _ in range(2):
        (key,) = keyring.at_hand([public])
        assert keys.verify(public, b"text", key.sign(b"text"))
    assert asked == [f"passphrase of {keyring.private_file('alice')}: "]
    opened = subprocess.run(  # what others wrote, and whether others read ours
        ["openssl", "pkey", "-passin", f"pass:{WORDS}", "-in", keyring.private_file("alice")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert keys.SigningKey.from_pem(opened.stdout).public == public


@needs_openssl
def test_a_wrong_passphrase_or_nobody_to_ask_opens_nothing(tmp_path: Path) -> None:
    Keyring(tmp_path).generate("alice", WORDS)
    with pytest.raises(OperatorError, match="is that its passphrase"):
        Keyring(tmp_path, lambda _question: "wrong").load("alice")
    with pytest.raises(OperatorError, match="a passphrase has at least one character"):
        Keyring(tmp_path, lambda _question: "").load("alice")
    with pytest.raises(OperatorError, match="no terminal to ask at"):
        Keyring(tmp_path).load("alice")


@needs_openssl
def test_a_key_that_is_not_needed_is_not_asked_for(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keyring.generate("alice", WORDS)
    bob = keyring.generate("bob")
    assert [key.public for key in keyring.at_hand([bob])] == [bob]


def test_a_token_that_is_not_there_keeps_no_file_from_signing(tmp_path: Path) -> None:
    """Or a lost one could not be rotated out."""
    keyring = Keyring(tmp_path)
    alice, lost = keyring.generate("alice"), keyring.generate("hsm")
    keyring.private_file("hsm").unlink()
    keyring.token_file("hsm").write_text("pkcs11:token=lost?module-path=/nowhere/driver.so\n")
    assert [key.public for key in keyring.at_hand([alice, lost])] == [alice]
    (alone,) = keyring.at_hand([lost])
    with pytest.raises(OperatorError, match="token=lost"):
        alone.sign(b"text")


@contextmanager
def agent(folder: Path, monkeypatch: pytest.MonkeyPatch, *kinds: str) -> Iterator[list[Path]]:
    """An ssh-agent with a new key of each kind; their public files."""
    path = folder / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    try:
        while not path.exists():
            assert process.poll() is None
        files = []
        for kind in kinds:
            file = folder / f"id_{kind}"
            words = ("-q", "-t", kind, "-N", "", "-f", file)
            subprocess.run(["ssh-keygen", *words], check=True)
            subprocess.run(["ssh-add", "-q", file], check=True, stderr=subprocess.DEVNULL)
            file.unlink()  # it is nowhere but in the agent
            files.append(Path(f"{file}.pub"))
        yield files
    finally:
        process.terminate()
        process.wait()


@needs_ssh
def test_a_key_of_the_ssh_agent_signs_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(tmp_path, monkeypatch, "rsa", "ecdsa", "ed25519") as (rsa, *files):
        for file, algorithm in zip(files, (keys.P256, keys.ED25519), strict=True):
            public = read_public(file)
            (key,) = Keyring(tmp_path / "none").at_hand([public])
            assert public.algorithm == algorithm
            for number in range(20):  # leading zeros, and a byte too many
                message = b"text %d" % number
                assert keys.verify(public, message, key.sign(message))
            assert not keys.verify(public, b"another", key.sign(b"text"))
        with pytest.raises(OperatorError, match="no key of ssh that nodes know"):
            read_public(rsa)
        assert Keyring(tmp_path / "none").at_hand([keys.SigningKey.generate().public]) == []
        subprocess.run(["ssh-add", "-q", "-D"], check=True, stderr=subprocess.DEVNULL)
        with pytest.raises(OperatorError, match="does not sign"):
            key.sign(b"text")


@pytest.mark.system
@needs_ssh
@needs_mosquitto
def test_a_fleet_that_trusts_a_key_of_the_ssh_agent(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No private key is on any disk."""
    shutil.rmtree(home.keys)
    home.path = tmp_path / "other"
    with agent(tmp_path, monkeypatch, "ed25519") as (file,):
        url = f"mqtt://127.0.0.1:{home.port}"
        home.fleet("init", str(home.path), "--broker", url, "--key", str(file))
        home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
        words = ("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "-y", "--first")
        assert "deployed generation 1" in home.fleet(*words)


def test_an_agent_that_is_away_or_answers_nonsense_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    with pytest.raises(OperatorError, match="cannot be asked"):
        ssh_agent.signers()
    for answer in (
        *(b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\5", b"\0\0\0\2\x0c\0"),
        b"\0\0\0\5\x0c\0\0\0\1",  # one key, and none comes
        b"\0\0\0\x09\x0c\0\0\0\1\xff\xff\xff\xff",
    ):
        path = tmp_path / "rude"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            threading.Thread(target=_answer, args=(server, answer)).start()
            with pytest.raises(OperatorError):
                ssh_agent.signers()


def test_an_agent_that_is_away_ends_nothing_where_a_file_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "of yesterday"))
    keyring, others = Keyring(tmp_path / "keys"), keys.SigningKey.generate().public
    alice = keyring.generate("alice")
    assert [key.public for key in keyring.at_hand([alice, others])] == [alice]
    with pytest.raises(OperatorError, match="cannot be asked"):
        keyring.at_hand([others])


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def test_without_an_agent_there_are_no_keys_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert ssh_agent.signers() == []


@pytest.mark.parametrize(
    "line",
    [
        *("", "ssh-rsa AAAA", "ssh-ed25519", "ssh-ed25519 !!", "ssh-ed25519 AAAA x"),
        "ecdsa-sha2-nistp256 AAAAC3NzaC1lZDI1NTE5AAAAIIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
    ],
)
def test_what_is_no_key_of_ssh_that_nodes_know_is_told(line: str) -> None:
    with pytest.raises(KeyFormatError, match="ssh-keygen -t ed25519"):
        ssh_agent.parse_public(line)


@pytest.mark.system
@needs_mosquitto
def test_with_two_keys_two_must_sign_unless_somebody_says_otherwise(
    home: Home, tmp_path: Path
) -> None:
    home.fleet("keygen", "bob")
    url = f"mqtt://127.0.0.1:{home.port}"
    both = ("--broker", url, "--key", "alice", "--key", "bob")
    for words, threshold in ((both, 2), ((*both, "--threshold", "1"), 1)):
        folder = tmp_path / f"fleet{threshold}"
        told = home.fleet("init", str(folder), *words)
        assert f"threshold = {threshold}\n" in (folder / "fleet.toml").read_text()
        assert ("one key alone deploys" in told) == (threshold == 1)


def test_keygen_encrypts_only_where_somebody_can_be_asked(home_without_broker: Home) -> None:
    code, _, errors = home_without_broker.tried("keygen", "carol", "--encrypt")
    assert (code, "this is no terminal" in errors) == (1, True)
    assert not home_without_broker.keys.exists()


@pytest.fixture
def home_without_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path, 1, capsys)
