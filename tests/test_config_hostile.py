"""Whatever a configuration file holds, the outcome is settings or one ConfigError."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import Limits, load_agent_config, load_plugin_settings, parse_agent_config
from edge_agent.errors import ConfigError
from edge_agent.text import printable

FILE = Path("/etc/edge-agent/agent.toml")
EXAMPLE = (Path(__file__).parents[1] / "configs" / "agent.toml").read_text().replace("\n#", "\n")

keys = st.sampled_from(
    ["node", "limits", "memory", "nri", "sockets", "mqtt", "url", "urls", "labels", "permissions"]
) | st.text(max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["32MiB", "1s", "mqtt://h", "linux", "all"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


def toml(value: object) -> str:
    """`value` as TOML, without None."""
    if isinstance(value, dict):
        pairs = (f"{toml(key)} = {toml(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value if item is not None) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    return str(value)


def read_both(text: str) -> None:
    """Read `text` as either kind of file; a refusal's lines name the file and are safe to print."""
    for read in (
        lambda: parse_agent_config(FILE, text, hostname="board"),
        lambda: load_plugin_settings(FILE, text, Limits()),
    ):
        try:
            read()
        except ConfigError as error:
            lines = str(error).split("\n")
            assert all(line.startswith(f"{FILE}:") for line in lines)
            assert [printable(line) for line in lines] == lines


@given(st.dictionaries(keys, values, max_size=5))
def test_any_values_under_any_keys(tree: dict[str, object]) -> None:
    read_both(
        "\n".join(
            f"{toml(key)} = {toml(value)}" for key, value in tree.items() if value is not None
        )
    )


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    read_both(text)


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 30), st.text(max_size=10))
def test_the_example_with_a_piece_replaced(at: int, length: int, piece: str) -> None:
    read_both(EXAMPLE[:at] + piece + EXAMPLE[at + length :])


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            load_agent_config(Path(file.name))
        except ConfigError as error:
            assert str(error).startswith(f"{file.name}:")  # noqa: PT017 - or it is read


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_agent_config(tmp_path)
