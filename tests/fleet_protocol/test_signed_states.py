"""States that nodes sign: docs/fleet-states-vectors.json is what this agent does."""

from __future__ import annotations

import json
import re
import ssl
import sys
from typing import Any

import pytest

from edge_agent.errors import CryptoError
from edge_agent.fleet_protocol import keys, libcrypto, signed_states
from edge_agent.fleet_protocol.reported_state import MAX_BYTES
from edge_agent.fleet_protocol.signed_states import (
    SIGNED_BYTES,
    UnprovenError,
    check,
    read,
    sealed,
    to_sign,
)
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from tests.fleet_protocol import statevectors
from tests.fleet_protocol.p256 import P256_KEYS
from tests.fleet_protocol.statevectors import SEED, STATE
from tests.fleet_protocol.test_keys import VECTORS as RFC_8032

KEY = keys.public_key(libcrypto.public_of(SEED))
VECTORS: list[dict[str, str]] = json.loads(statevectors.FILE.read_text())


def checked(message: bytes, key: keys.PublicKey = KEY) -> str:
    try:
        check(message, json.loads(message), key, "greenhouse", "board-7")
    except UnprovenError as error:
        return error.reason
    return "signed"


def test_the_file_is_fresh() -> None:
    assert statevectors.FILE.read_text() == statevectors.everything()


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_vector(vector: dict[str, str]) -> None:
    assert checked(vector["message"].encode()) == vector["result"]


def test_what_the_agent_makes_is_the_vector() -> None:
    document = statevectors.text(STATE)
    message = sealed(document, libcrypto.public_of(SEED), libcrypto.sign(SEED, to_sign(document)))
    assert message.decode() == VECTORS[0]["message"]
    assert len(message) - len(document) <= SIGNED_BYTES
    assert read(message).document == document
    assert read(message).public == KEY


def test_the_largest_state_and_what_is_signed_beside_it_fit_one_message() -> None:
    beside = {"session": (1 << 53) - 1, "fleet": "f" * 63, "number": 1 << 53, "time": 1 << 53}
    document = statevectors.text(beside | {"plugins": "x" * MAX_BYTES})
    assert len(sealed(document, bytes(32), bytes(64))) <= MAX_MESSAGE_BYTES


def test_session_and_number_come_back() -> None:
    message = VECTORS[0]["message"].encode()
    assert check(message, json.loads(message), KEY, "greenhouse", "board-7") == (7, 3)


def test_no_changed_byte_passes() -> None:
    message = VECTORS[0]["message"].encode()
    for at in range(len(message)):
        changed = bytearray(message)
        changed[at] ^= 1
        try:
            values: dict[str, Any] = json.loads(changed)
        except ValueError:
            continue
        with pytest.raises(UnprovenError):
            check(bytes(changed), values, KEY, "greenhouse", "board-7")


def test_a_key_of_another_algorithm_takes_no_signature_of_ed25519() -> None:
    assert checked(VECTORS[0]["message"].encode(), P256_KEYS[0].public) == "algorithm"


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_what_is_huge_is_read_in_time_that_grows_with_it(size: int) -> None:
    """No search that grows with the square: the whole would not end."""
    for message in (
        b'{"a":"' + b',"signed":{' * (size // 11) + b'"}',
        b'{"a":1,"signed":{"key":"' + b"A" * size + b'","sig":"AA=="}}',
        b'{"a":1,"signed":{"key":"AA==","sig":"' + b"A" * size,
    ):
        with pytest.raises(UnprovenError):
            read(message)


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_openssl_signs_as_the_rfc_does(
    seed: str, public: str, message: str, signature: str
) -> None:
    assert libcrypto.public_of(bytes.fromhex(seed)).hex() == public
    assert libcrypto.sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_what_is_no_key_signs_nothing(seed: bytes) -> None:
    with pytest.raises(CryptoError, match="32 bytes"):
        libcrypto.sign(seed, b"message")
    with pytest.raises(CryptoError, match="32 bytes"):
        libcrypto.public_of(seed)


def test_openssl_has_no_error_left_that_tls_would_find() -> None:
    libcrypto.sign(SEED, b"message")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(one, other, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()


def test_without_openssl_nothing_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    libcrypto.libcrypto.cache_clear()
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    try:
        with pytest.raises(CryptoError, match="has no OpenSSL"):
            libcrypto.sign(SEED, b"message")
    finally:
        libcrypto.libcrypto.cache_clear()


def test_the_type_is_the_pages() -> None:
    page = (statevectors.FILE.parent / "fleet-protocol.md").read_text()
    assert signed_states.PAYLOAD_TYPE in page
    for reason in {each["result"] for each in VECTORS} - {"signed"}:
        assert re.search(rf"^\| .*`{reason}`.* \|", page, re.MULTILINE)
