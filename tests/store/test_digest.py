import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.store.digest import PART_BYTES, Hmac, sha256_hex


@given(st.binary(max_size=300))
def test_sha256_equals_the_standard_librarys(data: bytes) -> None:
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7])
def test_sha256_of_several_parts_equals_the_standard_librarys(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert sha256_hex(data[:size]) == hashlib.sha256(data[:size]).hexdigest()


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200)))
def test_hmac_equals_the_standard_librarys(key: bytes, parts: list[bytes]) -> None:
    mac = Hmac(key)
    for part in parts:
        mac.update(part)
    assert mac.hex() == hmac.new(key, b"".join(parts), "sha256").hexdigest()


def test_hmac_read_twice_gives_the_same() -> None:
    mac = Hmac(b"key")
    mac.update(b"data")
    assert mac.hex() == mac.hex()


def test_openssl_is_not_loaded_for_a_digest() -> None:
    code = (
        "import sys; from edge_agent.store.artifacts import sha256_hex; sha256_hex(b''); "
        "print([name for name in ('hashlib', 'ssl', 'hmac') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
