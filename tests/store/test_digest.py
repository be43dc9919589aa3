import copy
import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.store.digest import NO_DIGEST, PART_BYTES, Digest, keyed, sha256, sha256_hex


@given(st.binary(max_size=300))
def test_sha256_equals_the_standard_librarys(data: bytes) -> None:
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7])
def test_sha256_of_several_parts_equals_the_standard_librarys(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert sha256_hex(data[:size]) == hashlib.sha256(data[:size]).hexdigest()


def test_sha256_is_the_same_with_openssl_there() -> None:
    # hashlib, imported above, has loaded it.
    code = "from edge_agent.store.digest import sha256_hex; print(sha256_hex(bytes(100_000)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert type(sha256()) is type(hashlib.sha256())
    assert ran.stdout.strip() == sha256_hex(bytes(100_000))


@given(st.binary(min_size=1, max_size=64), st.lists(st.binary(max_size=200)))
def test_a_keyed_digest_equals_the_standard_librarys(key: bytes, parts: list[bytes]) -> None:
    mac = keyed(key)
    for part in parts:
        mac.update(part)
    whole = hashlib.blake2b(b"".join(parts), key=key, digest_size=32)
    assert mac.hexdigest() == whole.hexdigest()
    assert mac.hexdigest() != keyed(key + b"x" if len(key) < 64 else key[1:]).hexdigest()


def test_openssl_is_not_loaded_for_a_digest() -> None:
    code = (
        "import sys; from edge_agent.store.digest import keyed, sha256_hex; "
        "sha256_hex(b''); keyed(b'key').hexdigest(); "
        "print([name for name in ('_hashlib', 'hashlib', 'ssl') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "sha256:",
        "sha256:../../../../etc/passwd",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "a" * 64,
        "sha512:" + "a" * 128,
    ],
)
def test_only_a_digest_is_a_digest(text: str) -> None:
    """It names files: what is none must not come to a path."""
    with pytest.raises(ValueError, match="is not a digest"):
        Digest(text)
    with pytest.raises(ValueError, match="is not a digest"):
        Digest.of_hex(text.removeprefix("sha256:"[: 1 + len(text)]) + "/")


def test_a_digest_is_the_text_that_documents_have() -> None:
    digest = Digest.of(b"module")
    assert digest == f"sha256:{sha256_hex(b'module')}"
    assert digest == Digest.of_hex(digest.hex) == Digest(str(digest))
    assert (digest.hex, digest.short) == (sha256_hex(b"module"), sha256_hex(b"module")[:12])
    assert json.loads(json.dumps({digest: digest})) == {digest: digest}
    assert type(copy.deepcopy(digest)) is Digest


def test_no_digest_is_false_and_names_nothing() -> None:
    assert not NO_DIGEST
    assert NO_DIGEST.hex == NO_DIGEST.short == ""
