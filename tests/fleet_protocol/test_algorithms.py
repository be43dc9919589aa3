"""Keys and signatures of another algorithm than Ed25519, known here or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import strictjson
from edge_agent.errors import CryptoError, KeyFormatError, RefusedError
from edge_agent.fleet_protocol import deployment, envelope, keys, libcrypto, trust
from edge_agent.fleet_protocol.keys import ED25519, P256, PublicKey, SigningKey
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store.catalogue import NOTHING_KNOWN
from edge_agent.store.digest import sha256_hex
from tests.fleet_protocol.p256 import P256_KEYS, N
from tests.fleet_protocol.papers import DEPLOYMENT, FLEET, KEYS
from tests.support.mosquitto import needs_openssl

A, B = KEYS[:2]
C, D = P256_KEYS
TYPE = deployment.PAYLOAD_TYPE
NOW = 1_795_600_000.0


def keyset(version: int, threshold: int, *public: PublicKey) -> TrustSet:
    return TrustSet(FLEET, version, threshold, public)


def test_what_the_standards_arithmetic_signs_openssl_finds_good() -> None:
    for message in (b"", b"message", bytes(70_000)):
        signature = C.sign(message)
        assert keys.verify(C.public, message, signature)
        assert not keys.verify(C.public, message + b"!", signature)
        assert not keys.verify(D.public, message, signature)


# RFC 6979, A.2.5: the key, and the signature of "sample" with SHA-256.
RFC_KEY = (
    "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
RFC_SIGNATURE = (
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
)


def test_the_signature_of_the_rfc_is_good() -> None:
    key = keys.public_key(bytes.fromhex(RFC_KEY), P256)
    assert keys.verify(key, b"sample", bytes.fromhex(RFC_SIGNATURE))
    assert not keys.verify(key, b"test", bytes.fromhex(RFC_SIGNATURE))


@pytest.mark.parametrize("at", range(64))
def test_a_changed_signature_is_none(at: int) -> None:
    signature = bytearray(C.sign(b"message"))
    signature[at] ^= 1
    assert not keys.verify(C.public, b"message", bytes(signature))


@pytest.mark.parametrize(
    "signature",
    [
        *(b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64),
        bytes(32) + C.sign(b"message")[32:],
        C.sign(b"message")[:32] + bytes(32),
        C.sign(b"message")[:32] + N.to_bytes(32, "big"),
        libcrypto.der_signature(C.sign(b"message")),  # one form only
    ],
)
def test_what_is_no_signature_is_none(signature: bytes) -> None:
    assert not keys.verify(C.public, b"message", signature)


def test_a_point_that_is_not_on_the_curve_signs_nothing() -> None:
    nowhere = keys.public_key(b"\4" + bytes(63) + b"\7", P256)
    assert not keys.verify(nowhere, b"message", C.sign(b"message"))


def test_openssl_has_no_error_left_that_tls_would_find() -> None:
    import ssl

    keys.verify(keys.public_key(b"\4" + bytes(64), P256), b"message", bytes(64))
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(one, other, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()


@needs_openssl
def test_openssl_writes_and_reads_the_same_keys(tmp_path: Path) -> None:
    private, public, signature = (tmp_path / name for name in ("private", "public", "signature"))
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    _openssl("genpkey", *curve, "-out", private)
    pem = _openssl("pkey", "-in", private, "-pubout").decode()
    key = keys.parse_public(pem)
    assert (key.algorithm, keys.public_pem(key)) == (P256, pem)
    (tmp_path / "message").write_bytes(b"message")
    _openssl("dgst", "-sha256", "-sign", private, "-out", signature, tmp_path / "message")
    assert keys.verify(key, b"message", _raw(signature.read_bytes()))
    public.write_text(keys.public_pem(C.public))
    signature.write_bytes(libcrypto.der_signature(C.sign(b"message")))
    good = ("-verify", public, "-signature", signature)
    _openssl("dgst", "-sha256", *good, tmp_path / "message")


def _openssl(*words: str | Path) -> bytes:
    return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout


def _raw(der: bytes) -> bytes:
    """r and s of a SEQUENCE of two INTEGER."""
    size = der[3]
    numbers = der[4 : 4 + size], der[6 + size :]
    return b"".join(int.from_bytes(each, "big").to_bytes(32, "big") for each in numbers)


def test_a_key_is_named_by_its_digest_and_another_algorithms_by_all_of_it() -> None:
    assert A.public.keyid == sha256_hex(A.public.raw)
    der = keys.der_of(keys.public_pem(C.public), "PUBLIC KEY")
    assert C.public.keyid == sha256_hex(der)
    unknown = keys.parse_named("ml-dsa-65", keys.public_pem(C.public))
    assert (unknown.keyid, unknown.known) == (C.public.keyid, False)
    assert keys.public_pem(unknown) == keys.public_pem(C.public)


@pytest.mark.parametrize("raw", [b"", bytes(65), b"\2" + bytes(32), b"\4" + bytes(63)])
def test_a_key_of_p256_is_a_whole_point(raw: bytes) -> None:
    with pytest.raises(KeyFormatError, match="65 bytes"):
        keys.public_key(raw, P256)


def sealed(*signers: keys.Signer, payload: bytes | None = None, kind: str = TYPE) -> bytes:
    return envelope.seal(kind, payload or strictjson.dumps(DEPLOYMENT), signers)


def accept(raw: bytes, trusted: TrustSet) -> deployment.Deployment | None:
    return deployment.accept(raw, fleet=FLEET, trust=trusted, known=NOTHING_KNOWN, clock=NOW)


def test_an_envelope_names_the_algorithm_unless_it_is_ed25519() -> None:
    both = json.loads(sealed(A, C))
    assert "algorithm" not in both["signatures"][0]
    assert both["signatures"][1]["algorithm"] == P256


def test_keys_of_two_algorithms_make_up_a_threshold() -> None:
    trusted = keyset(1, 2, A.public, C.public)
    assert accept(sealed(A, C), trusted) is not None
    for signers in ((A,), (C,), (A, D), (B, C), (C, C)):
        with pytest.raises(RefusedError) as caught:
            accept(sealed(*signers), trusted)
        assert caught.value.reason == "signature"


def renamed(raw: bytes, algorithm: object, at: int = 0) -> bytes:
    values: dict[str, Any] = json.loads(raw)
    if algorithm is None:
        values["signatures"][at].pop("algorithm", None)
    else:
        values["signatures"][at]["algorithm"] = algorithm
    return strictjson.dumps(values)


@pytest.mark.parametrize(
    ("signer", "algorithm"),
    [(A, P256), (A, "ml-dsa-65"), (A, ""), (C, None), (C, ED25519), (C, "ml-dsa-65")],
)
def test_a_signature_that_names_another_algorithm_than_its_key_has_is_none(
    signer: keys.Signer, algorithm: str | None
) -> None:
    raw = sealed(signer)
    trusted = keyset(1, 1, signer.public)
    assert accept(raw, trusted) is not None
    with pytest.raises(RefusedError) as caught:
        accept(renamed(raw, algorithm), trusted)
    assert caught.value.reason == "signature"


@pytest.mark.parametrize("algorithm", [1, None, [], {}])
def test_an_algorithm_that_is_no_text_makes_no_envelope(algorithm: object) -> None:
    values = json.loads(sealed(A))
    values["signatures"][0]["algorithm"] = algorithm
    with pytest.raises(RefusedError) as caught:
        accept(strictjson.dumps(values), keyset(1, 1, A.public))
    assert caught.value.reason == "envelope"


class FutureKey:
    """A signer by an algorithm that no agent knows yet."""

    def __init__(self, inner: SigningKey) -> None:
        self._inner = inner
        self.public = keys.parse_named("ml-dsa-65", keys.public_pem(inner.public))

    def sign(self, message: bytes) -> bytes:
        return self._inner.sign(message)


FUTURE = FutureKey(B)


def test_what_an_algorithm_to_come_signs_counts_for_nothing_and_is_told_by_name() -> None:
    trusted = keyset(1, 1, A.public, FUTURE.public)
    assert not keys.verify(FUTURE.public, b"message", FUTURE.sign(b"message"))
    assert accept(sealed(A, FUTURE), trusted) is not None
    with pytest.raises(RefusedError, match=r"ml-dsa-65.*update the agent") as caught:
        accept(sealed(FUTURE), trusted)
    assert caught.value.reason == "algorithm"
    two = keyset(1, 2, A.public, FUTURE.public)
    with pytest.raises(RefusedError) as caught:
        accept(sealed(A, FUTURE), two)
    assert caught.value.reason == "algorithm"


def rotated(before: TrustSet, after: TrustSet, *signers: keys.Signer) -> TrustSet | None:
    raw = sealed(*signers, payload=trust.to_payload(after), kind=trust.PAYLOAD_TYPE)
    return trust.rotated(raw, before)


def test_a_fleet_moves_from_one_algorithm_to_another() -> None:
    first, both, last = (
        keyset(1, 1, A.public),
        keyset(2, 1, A.public, C.public),
        keyset(3, 1, C.public),
    )
    assert rotated(first, both, A) == both
    assert rotated(both, last, C) == last
    assert rotated(first, keyset(2, 1, C.public), A, C) == keyset(2, 1, C.public)
    assert accept(sealed(C), last) is not None
    with pytest.raises(RefusedError):
        accept(sealed(A), last)


def test_a_set_with_a_key_to_come_is_followed_as_long_as_the_others_can_sign() -> None:
    first = keyset(1, 1, A.public)
    both = keyset(2, 1, A.public, FUTURE.public)
    assert rotated(first, both, A) == both
    assert rotated(first, both, A, FUTURE) == both
    for after in (keyset(2, 1, FUTURE.public), keyset(2, 2, A.public, FUTURE.public)):
        with pytest.raises(RefusedError) as caught:  # its own keys could not be checked here
            rotated(first, after, A, FUTURE)
        assert caught.value.reason == "algorithm"


def test_keys_of_any_algorithm_go_into_a_document_and_back() -> None:
    value = keyset(3, 2, A.public, C.public, FUTURE.public)
    payload = trust.to_payload(value)
    assert trust.parse(payload, FLEET) == value
    told = json.loads(payload)["keys"]
    assert told[0] == keys.public_pem(A.public)  # as agents up to 0.1.0 read it
    assert told[1] == {"algorithm": P256, "key": keys.public_pem(C.public)}
    assert told[2]["algorithm"] == "ml-dsa-65"


PEM = keys.public_pem(C.public)


@pytest.mark.parametrize(
    "key",
    [
        PEM,  # without a name it would be of Ed25519
        {"algorithm": ED25519, "key": PEM},
        {"algorithm": P256, "key": keys.public_pem(A.public)},
        {"algorithm": P256, "key": "no PEM"},
        {"algorithm": "ml-dsa-65", "key": "no PEM"},
        {"algorithm": "ML DSA", "key": PEM},
        {"algorithm": "", "key": PEM},
        {"algorithm": 1, "key": PEM},
        {"algorithm": P256},
        {"key": PEM},
        {},
    ],
)
def test_a_key_that_is_not_what_it_is_called_is_refused(key: object) -> None:
    values = json.loads(trust.to_payload(keyset(2, 1, C.public)))
    with pytest.raises(RefusedError) as caught:
        trust.parse(strictjson.dumps({**values, "keys": [key]}), FLEET)
    assert caught.value.reason == "malformed"


def test_where_openssl_is_missing_other_keys_count_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libcrypto.libcrypto.cache_clear()
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    try:
        trusted = keyset(1, 1, A.public, C.public)
        assert accept(sealed(A, C), trusted) is not None
        with pytest.raises(CryptoError, match="has no OpenSSL"):
            accept(sealed(C), trusted)
    finally:
        libcrypto.libcrypto.cache_clear()


def test_where_openssl_is_missing_the_chain_is_followed_as_far_as_it_can_be_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or keys that were rotated out long ago would count there for ever."""
    first, second = keyset(1, 1, A.public), keyset(2, 1, B.public)
    third, fourth = keyset(3, 2, B.public, C.public), keyset(4, 1, A.public)
    links = [
        envelope.seal(trust.PAYLOAD_TYPE, trust.to_payload(after), signers)
        for after, signers in ((second, (A, B)), (third, (B, C)), (fourth, (B, C, A)))
    ]
    assert trust.rotated(trust.chain(links), first) == fourth
    libcrypto.libcrypto.cache_clear()
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    try:
        assert trust.rotated(trust.chain(links[:2]), first) == second
        with pytest.raises(CryptoError, match="has no OpenSSL"):
            trust.rotated(trust.chain(links[1:2]), second)
        # What is older than the node's own set is no hindrance either.
        present, next_one = keyset(3, 2, A.public, B.public, C.public), keyset(4, 1, B.public)
        last = envelope.seal(trust.PAYLOAD_TYPE, trust.to_payload(next_one), (A, B))
        assert trust.rotated(trust.chain([links[1], last]), present) == next_one
    finally:
        libcrypto.libcrypto.cache_clear()


def test_a_set_that_the_disk_could_not_give_back_is_refused() -> None:
    """It would be trusted until the next look at the disk, and nobody afterwards."""
    body = "A" * 4032  # in one line it fits, as it is written again it does not
    pem = f"-----BEGIN PUBLIC KEY----- {body}-----END PUBLIC KEY-----"
    first = keyset(1, 1, A.public)
    good = json.loads(trust.to_payload(keyset(2, 1, A.public)))
    for odd in (
        {"issued": "0999-01-01T00:00:00Z", "expires": "2030-01-01T00:00:00Z"},
        {"issued": "2026-01-01T00:00:00.2Z", "expires": "2026-01-01T00:00:00.7Z"},
        {"keys": [*good["keys"], {"algorithm": "ml-dsa-65", "key": pem}]},
    ):
        payload = strictjson.dumps({**good, **odd})
        with pytest.raises(RefusedError) as caught:
            trust.rotated(envelope.seal(trust.PAYLOAD_TYPE, payload, [A]), first)
        assert caught.value.reason == "malformed"


def test_p256_is_loaded_when_such_a_signature_is_checked_and_not_before() -> None:
    script = (
        "import sys\n"
        "from edge_agent.fleet_protocol import deployment, keys, trust\n"
        "keys.verify(keys.public_key(bytes(32)), b'', bytes(64))\n"
        "assert 'edge_agent.fleet_protocol.libcrypto' not in sys.modules\n"
        "keys.verify(keys.public_key(b'\\4' + bytes(64), keys.P256), b'', bytes(64))\n"
        "assert 'edge_agent.fleet_protocol.libcrypto' in sys.modules\n"
        "assert 'nacl' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
