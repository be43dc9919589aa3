"""Keys: PEM as openssl has it, signatures as RFC 8032 has them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import CryptoError, KeyFormatError
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.keys import SigningKey

# RFC 8032, 7.1: (private key, public key, message, signature)
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
        "f9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
        "4dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_signatures_are_those_of_the_rfc(
    seed: str, public: str, message: str, signature: str
) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.public.keyid == hashlib.sha256(bytes.fromhex(public)).hexdigest()
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert keys.verify(key.public, bytes.fromhex(message), bytes.fromhex(signature))


@pytest.mark.parametrize("at", range(64))
def test_a_changed_signature_is_none(at: int) -> None:
    key = SigningKey(bytes(32))
    signature = bytearray(key.sign(b"message"))
    signature[at] ^= 1
    assert not keys.verify(key.public, b"message", bytes(signature))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_what_is_no_signature_is_none(signature: bytes) -> None:
    assert not keys.verify(SigningKey(bytes(32)).public, b"message", signature)


# Points of small order, with which one signature fits many messages (RFC 8032 takes them).
SMALL = ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f"]


@pytest.mark.parametrize("raw", SMALL)
def test_a_key_of_small_order_signs_nothing(raw: str) -> None:
    key = keys.public_key(bytes.fromhex(raw))
    for signature in (bytes(64), b"\1" + bytes(63), bytes.fromhex(raw) + bytes(32)):
        assert not keys.verify(key, b"message", signature)


def test_pem_goes_there_and_back() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_pem(key.to_pem()).public == key.public
    assert keys.parse_public(keys.public_pem(key.public)) == key.public
    assert SigningKey.generate().public != key.public


def test_a_private_key_is_not_in_its_repr() -> None:
    key = SigningKey(b"s" * 32)
    assert "s" * 8 not in repr(key)
    assert b"s".hex() * 8 not in repr(key)
    assert key.public.keyid[:12] in repr(key)


def test_openssl_reads_and_writes_the_same_files(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    ours = SigningKey.generate()
    (tmp_path / "ours").write_text(ours.to_pem())
    assert _openssl("pkey", "-in", str(tmp_path / "ours"), "-pubout") == keys.public_pem(
        ours.public
    )
    (tmp_path / "message").write_bytes(b"message")
    theirs = _openssl("genpkey", "-algorithm", "ed25519")
    (tmp_path / "theirs").write_text(theirs)
    public = keys.parse_public(_openssl("pkey", "-in", str(tmp_path / "theirs"), "-pubout"))
    assert SigningKey.from_pem(theirs).public == public
    with_text = _openssl("pkey", "-in", str(tmp_path / "theirs"), "-pubout", "-text")
    assert keys.parse_public(with_text) == public
    subprocess.run(
        [
            *("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(tmp_path / "theirs")),
            *("-in", str(tmp_path / "message"), "-out", str(tmp_path / "signature")),
        ],
        check=True,
    )
    assert keys.verify(public, b"message", (tmp_path / "signature").read_bytes())


def _openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


KEY = SigningKey(bytes(32))
PUBLIC, PRIVATE = keys.public_pem(KEY.public), KEY.to_pem()
RSA = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK0=\n-----END PUBLIC KEY-----\n"

BAD: dict[str, tuple[str, str]] = {
    "nothing": ("", "0 PEM blocks"),
    "two keys": (PUBLIC * 2, "2 PEM blocks"),
    "private": (PRIVATE, "a private key"),
    "a certificate": (PUBLIC.replace("PUBLIC KEY", "CERTIFICATE"), "a certificate"),
    "another kind": (PUBLIC.replace("PUBLIC KEY", "X"), "another kind: X"),
    "another algorithm": (RSA, "not an Ed25519 key"),
    "short": (PUBLIC.replace("AQAyEA", "AQAy", 1).replace("MCow", "", 1), "base64|not an Ed25519"),
    "no base64": (PUBLIC.replace("MCow", "====", 1), "base64"),
    "ends differ": (PUBLIC.replace("END PUBLIC", "END PRIVATE"), "0 PEM blocks"),
    "huge": (PUBLIC + "#" * 5000, "longer"),
}


@pytest.mark.parametrize(("pem", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_no_public_key_is_refused_with_its_reason(pem: str, said: str) -> None:
    with pytest.raises(KeyFormatError, match=said):
        keys.parse_public(pem)


BAD_PRIVATE: dict[str, tuple[str, str]] = {
    "public": (PUBLIC, "the public key"),
    "encrypted": (PRIVATE.replace("PRIVATE", "ENCRYPTED PRIVATE"), "asks for its passphrase"),
    "of ssh": (PRIVATE.replace("PRIVATE", "OPENSSH PRIVATE"), "ssh-add"),
}


@pytest.mark.parametrize(("pem", "said"), BAD_PRIVATE.values(), ids=BAD_PRIVATE.keys())
def test_what_is_no_private_key_is_refused_with_its_reason(pem: str, said: str) -> None:
    with pytest.raises(KeyFormatError, match=said):
        SigningKey.from_pem(pem)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(KeyFormatError, match="32 bytes"):
        keys.public_key(raw)
    with pytest.raises(KeyFormatError, match="32 bytes"):
        SigningKey(raw)


def test_without_pynacl_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nacl", "nacl.bindings", "nacl.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CryptoError, match="pip install PyNaCl"):
        keys.verify(KEY.public, b"message", bytes(64))


def test_pynacl_is_loaded_when_a_signature_is_checked_and_not_before() -> None:
    script = (
        "import sys\n"
        "from edge_agent.fleet_protocol import deployment, envelope, keys, trust\n"
        "assert not [name for name in sys.modules if name.startswith(('nacl', 'cffi'))]\n"
        "keys.verify(keys.public_key(bytes(32)), b'', bytes(64))\n"
        "assert 'nacl.bindings' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
