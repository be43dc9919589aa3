"""A plugin's state as a file's content: what was written is read, anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import StoreError
from edge_agent.host import pluginstates
from edge_agent.host.pluginstates import MAX_BYTES, decode, encode, name_of
from edge_agent.store.digest import sha256_hex
from edge_agent.store.release import PluginId
from edge_agent.wasm.imports import MAX_KEY_BYTES, PluginState

TEXT = st.text(max_size=20)
VALUES = st.dictionaries(TEXT, st.binary(min_size=1, max_size=50), max_size=10)


@given(VALUES)
def test_what_was_written_is_read(values: dict[str, bytes]) -> None:
    assert decode(PluginId("10-a"), encode(PluginId("10-a"), values)) == values


def test_the_largest_state_fits() -> None:
    state = PluginState()
    for number in range(PluginState.MAX_KEYS):
        assert state.put(f"{number:04}", b"v" * 60)
    values = state.take()
    assert values is not None
    raw = encode(PluginId.of("10", "n" * 250), values)
    assert len(raw) <= MAX_BYTES
    assert decode(PluginId.of("10", "n" * 250), raw) == values


@given(VALUES, st.integers(0), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(values: dict[str, bytes], at: int, flip: int) -> None:
    raw = bytearray(encode(PluginId("10-a"), values))
    raw[at % len(raw)] ^= flip
    with pytest.raises(StoreError):
        decode(PluginId("10-a"), bytes(raw))


@given(VALUES, st.integers(0))
def test_a_file_that_ends_early_is_noticed(values: dict[str, bytes], size: int) -> None:
    raw = encode(PluginId("10-a"), values)
    with pytest.raises(StoreError):
        decode(PluginId("10-a"), raw[: size % len(raw)])


def test_another_plugins_file_is_refused() -> None:
    with pytest.raises(StoreError, match="another plugin's"):
        decode(PluginId("10-b"), encode(PluginId("10-a"), {"key": b"value"}))


@given(st.binary(max_size=100))
def test_content_with_a_right_hash_and_nothing_else_is_read_or_refused(body: bytes) -> None:
    body = b"\x00\x0410-a" + body
    raw = pluginstates.MAGIC + sha256_hex(body).encode() + b"\n" + body
    try:
        values = decode(PluginId("10-a"), raw)
    except StoreError:
        return
    assert encode(PluginId("10-a"), values) == raw


@pytest.mark.parametrize(
    "values",
    [
        {"k": b"v" * PluginState.MAX_BYTES},
        {f"{number}": b"v" for number in range(PluginState.MAX_KEYS + 1)},
        {"k" * (MAX_KEY_BYTES + 1): b"v"},
    ],
)
def test_more_than_a_plugin_may_keep_is_refused(values: dict[str, bytes]) -> None:
    with pytest.raises(StoreError, match="more than a plugin may keep"):
        decode(PluginId("10-a"), encode(PluginId("10-a"), values))


def test_names_are_safe_short_and_different() -> None:
    assert name_of(PluginId("10-a")) == PluginId("10-a.state")
    long = [name_of(PluginId.of("10", "n" * 300 + end)) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(each) <= 255 and "/" not in each for each in long)
