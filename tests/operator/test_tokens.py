"""Keys in tokens of PKCS #11, with a real one in software: SoftHSM."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.keys import ED25519, P256
from edge_agent.operator import tokens
from edge_agent.operator.keyring import Keyring, read_public
from tests.operator.conftest import GUARD, Home
from tests.support.mosquitto import needs_mosquitto

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")
MODULE = next((each for each in MODULES if Path(each).exists()), "")
needs_softhsm = pytest.mark.skipif(
    not MODULE or shutil.which("softhsm2-util") is None, reason="softhsm2 is not installed"
)
PIN = "271828"
CURVES = {
    "ed": (KeyType.EC_EDWARDS, "1.3.101.112", Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
    "p256": (KeyType.EC, "secp256r1", Mechanism.EC_KEY_PAIR_GEN),
    "p384": (KeyType.EC, "secp384r1", Mechanism.EC_KEY_PAIR_GEN),
}


class Hsm(NamedTuple):
    """A folder of tokens; `label` is that of the one with keys."""

    folder: Path
    label: str

    def uri(self, key: str, more: str = "") -> str:
        return f"pkcs11:token={self.label};object={key}?module-path={MODULE}{more}"


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hsm]:
    """SoftHSM reads its configuration once in a process."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    try:
        for label in ("fleet", "other"):
            words = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN]
            subprocess.run(["softhsm2-util", *words], check=True, capture_output=True)
        _make_keys()
        yield Hsm(folder, "fleet")
    finally:
        pkcs11.unload(MODULE)
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before


def _make_keys() -> None:
    token = pkcs11.lib(MODULE).get_token(token_label="fleet")
    with token.open(rw=True, user_pin=PIN) as session:
        names = [("ed", "ed"), ("p256", "p256"), ("p384", "p384"), ("twice", "ed"), ("twice", "ed")]
        for label, curve in names:
            kind, name, mechanism = CURVES[curve]
            parameters = session.create_domain_parameters(
                kind, {Attribute.EC_PARAMS: encode_named_curve_parameters(name)}, local=True
            )
            parameters.generate_keypair(mechanism=mechanism, store=True, label=label)


class Asked:
    """Answers each question with `pin`, and notes it."""

    def __init__(self, pin: str = PIN) -> None:
        self.questions: list[str] = []
        self._pin = pin

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self._pin


@needs_softhsm
@pytest.mark.parametrize(("name", "algorithm"), [("ed", ED25519), ("p256", P256)])
def test_a_key_of_a_token_signs_as_any_other(
    hsm: Hsm, tmp_path: Path, name: str, algorithm: str
) -> None:
    ask = Asked()
    public = Keyring(tmp_path / "keys", ask).adopt("alice", hsm.uri(name))
    assert public.algorithm == algorithm
    assert read_public(tmp_path / "keys" / "alice.pem") == public
    assert ask.questions == ["PIN of the token fleet: "]
    again = Asked()
    (key,) = Keyring(tmp_path / "keys", again).at_hand([public])
    assert again.questions == []  # nobody is asked before something is to be signed
    for message in (b"text", b"another"):
        assert keys.verify(public, message, key.sign(message))
    assert again.questions == ["PIN of the token fleet: "]
    assert Keyring(tmp_path / "keys").at_hand([keys.SigningKey.generate().public]) == []
    assert Keyring(tmp_path / "keys").names() == ["alice"]


@needs_softhsm
def test_no_secret_is_in_what_is_kept(hsm: Hsm, tmp_path: Path) -> None:
    Keyring(tmp_path, Asked()).adopt("alice", hsm.uri("ed"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.pem", "alice.pkcs11"]
    assert (tmp_path / "alice.pkcs11").read_text() == f"{hsm.uri('ed')}\n"
    assert PIN not in "".join(path.read_text() for path in tmp_path.iterdir())


@needs_softhsm
def test_a_pin_may_be_in_a_file(hsm: Hsm, tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text(f"{PIN}\n")
    keyring = Keyring(tmp_path / "keys")
    public = keyring.adopt("alice", hsm.uri("ed", f"&pin-source=file:{file}"))
    (key,) = Keyring(tmp_path / "keys").at_hand([public])
    assert keys.verify(public, b"text", key.sign(b"text"))
    file.unlink()
    (key,) = Keyring(tmp_path / "keys").at_hand([public])
    with pytest.raises(OperatorError, match="the PIN cannot be read"):
        key.sign(b"text")


@needs_softhsm
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("token=fleet", "token=nowhere"), "0 tokens fit"),
        (("token=fleet;", ""), "[2-9] tokens fit"),
        (("object=ed", "object=nothing"), "0 of its objects are such a public key"),
        (("object=ed", "object=twice"), "2 of its objects are such a public key"),
        ((";object=ed", ""), "5 of its objects are such a public key"),
        (("object=ed", "object=p384"), "another kind than Ed25519 and P-256"),
        ((".so", ".so.9"), "libsofthsm2.so.9"),
    ],
)
def test_a_token_or_key_that_is_not_there_is_told(
    hsm: Hsm, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(OperatorError, match=said):
        Keyring(tmp_path / "keys", Asked()).adopt("alice", hsm.uri("ed").replace(*change))
    assert Keyring(tmp_path / "keys").names() == []


@needs_softhsm
def test_a_wrong_pin_or_nobody_to_ask_signs_nothing(hsm: Hsm, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="the token refuses: pin incorrect"):
        Keyring(tmp_path, Asked("wrong")).adopt("alice", hsm.uri("ed"))
    with pytest.raises(OperatorError, match=r"no terminal to ask at.*pin-source"):
        Keyring(tmp_path).adopt("alice", hsm.uri("ed"))
    assert Keyring(tmp_path).names() == []


@needs_softhsm
def test_a_uri_that_leads_to_another_key_by_now_is_told(hsm: Hsm, tmp_path: Path) -> None:
    public = Keyring(tmp_path, Asked()).adopt("alice", hsm.uri("ed"))
    (tmp_path / "alice.pem").write_text(keys.public_pem(keys.SigningKey.generate().public))
    other = read_public(tmp_path / "alice.pem")
    (key,) = Keyring(tmp_path, Asked()).at_hand([other])
    with pytest.raises(OperatorError, match="does not fit"):
        key.sign(b"text")
    assert Keyring(tmp_path, Asked()).at_hand([public]) == []


@needs_softhsm
def test_a_name_that_is_taken_is_not_given_again(hsm: Hsm, tmp_path: Path) -> None:
    keyring = Keyring(tmp_path, Asked())
    keyring.adopt("alice", hsm.uri("ed"))
    keyring.generate("bob")
    for name in ("alice", "bob"):
        with pytest.raises(OperatorError, match="there is a key of this name"):
            keyring.adopt(name, hsm.uri("p256"))
    with pytest.raises(OperatorError, match="there is a key of this name"):
        keyring.generate("alice")


@pytest.mark.system
@needs_softhsm
@needs_mosquitto
@pytest.mark.parametrize("name", ["ed", "p256"])
def test_a_fleet_that_trusts_a_key_of_a_token(
    hsm: Hsm, home: Home, tmp_path: Path, name: str
) -> None:
    """By the commands; the nodes' own rules take what it signs."""
    shutil.rmtree(home.keys)
    home.path = tmp_path / "other"
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    uri = hsm.uri(name, f"&pin-source=file:{pin}")
    assert "a trial signature was good" in home.fleet("keygen", "alice", "--token", uri)
    home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{home.port}")
    home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    words = ("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "-y", "--first")
    assert "deployed generation 1" in home.fleet(*words)
    assert "trusts version 2" in home.fleet("trust", "renew", "-y")
    with home.opened() as fleet:
        now = fleet.current()
        assert now.deployment is not None
        assert fleet.trust.version == 2


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "is no key of a token"),
        ("alice", "is no key of a token"),
        ("pkcs11:" + "x" * 3000, "is no key of a token"),
        ("pkcs11:object=a", "module-path is missing"),
        ("pkcs11:object=a?module-path=/m&pin-value=1234", "no part of a URI"),
        ("pkcs11:object=a;object=b?module-path=/m", "each once"),
        ("pkcs11:slot-id=3?module-path=/m", "known are"),
        ("pkcs11:object=%zz?module-path=/m", "written %25"),
        ("pkcs11:object=a;type=public?module-path=/m", "a private key is wanted"),
        ("pkcs11:object?module-path=/m", "known are"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused_by_its_part(uri: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        tokens.parse(uri)


def test_a_uri_is_read_as_the_rfc_has_it() -> None:
    found = tokens.parse(
        "pkcs11:token=The%20fleet;serial=4912;object=a%3bb;id=%01%FF;type=private"
        "?module-path=/usr/lib/a.so&pin-source=file:///run/pin"
    )
    assert found.token == {"token": b"The fleet", "serial": b"4912"}
    assert found.key == {"object": b"a;b", "id": b"\x01\xff"}
    assert (found.module, found.pin_file) == (Path("/usr/lib/a.so"), Path("/run/pin"))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pkcs11", None)
    with pytest.raises(OperatorError, match=r"edge-agent\[pkcs11\]"):
        tokens.public_key(tokens.parse("pkcs11:object=a?module-path=/m"))
