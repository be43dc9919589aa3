"""One plugin's state as the content of a file. Pure.

    edge-agent state 1 LF
    SHA-256 of the rest in hexadecimal LF
    the plugin's name, then each key and its value, with their lengths before them

Lengths are in big endian, of names and keys 2 bytes and of values 4.
"""

from collections.abc import Mapping

from edge_agent.errors import StoreError
from edge_agent.store.digest import sha256_hex
from edge_agent.wasm.imports import MAX_KEY_BYTES, PluginState

_MAGIC = b"edge-agent state 1\n"
_HASH_CHARS = 64
_NAME, _VALUE = 2, 4
MAX_BYTES = PluginState.MAX_BYTES + PluginState.MAX_KEYS * (_NAME + _VALUE) + 1024
SUFFIX = ".state"
MAX_NAME_CHARS = 200  # a file's name has at most 255 bytes


def name_of(identity: str) -> str:
    """The file's name: the plugin's, which is NN-name, or what stands for a long one."""
    if len(identity) > MAX_NAME_CHARS:
        kept = MAX_NAME_CHARS - _HASH_CHARS
        identity = f"{identity[:kept]}{sha256_hex(identity.encode())}"
    return f"{identity}{SUFFIX}"


def encode(identity: str, values: Mapping[str, bytes]) -> bytes:
    """A file's content."""
    name = identity.encode()
    parts = [len(name).to_bytes(_NAME, "big"), name]
    for key, value in values.items():
        raw = key.encode()
        parts += (len(raw).to_bytes(_NAME, "big"), raw)
        parts += (len(value).to_bytes(_VALUE, "big"), value)
    body = b"".join(parts)
    return b"".join((_MAGIC, sha256_hex(body).encode(), b"\n", body))


def decode(identity: str, raw: bytes) -> dict[str, bytes]:
    """The keys and values in a file. StoreError: it is damaged, or another plugin's."""
    at = len(_MAGIC) + _HASH_CHARS + 1
    body = raw[at:]
    if raw[:at] != b"".join((_MAGIC, sha256_hex(body).encode(), b"\n")):
        raise StoreError("its file is damaged")
    reader = _Reader(body)
    if reader.take(_NAME) != identity.encode():
        raise StoreError("its file is another plugin's")
    state = PluginState()
    values: dict[str, bytes] = {}
    while reader.left:
        key, value = reader.take(_NAME), reader.take(_VALUE)
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise StoreError("its file is damaged: a key is no text") from None
        if text in values or not value:
            raise StoreError("its file is damaged: a key twice or without a value")
        if len(key) > MAX_KEY_BYTES or not state.put(text, value):
            raise StoreError("its file has more than a plugin may keep")
        values[text] = value
    return values


class _Reader:
    """Takes pieces with a length before them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, size_bytes: int) -> bytes:
        begin = self._at + size_bytes
        end = begin + int.from_bytes(self._data[self._at : begin], "big")
        if begin > len(self._data) or end > len(self._data):
            raise StoreError("its file is damaged: it ends early")
        self._at = end
        return self._data[begin:end]
