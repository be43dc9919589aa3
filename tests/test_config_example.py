"""configs/agent.toml names every key and states the real defaults."""

import re
from dataclasses import fields
from pathlib import Path

from edge_agent.config import (
    AgentConfig,
    Limits,
    LogConfig,
    MqttConfig,
    NriConfig,
    RequestsConfig,
    UpdatesConfig,
)
from edge_agent.config.agent import read_agent
from edge_agent.config.document import Document, KeyPath
from edge_agent.config.table import Table

EXAMPLE = Path(__file__).parents[1] / "configs" / "agent.toml"
UNIT = re.compile(r"(?<!_per)_(bytes|ms|s)$")
# Shown as examples since their default is no fixed value, or none.
WITHOUT_FIXED_DEFAULT = (
    r"node|client_id|username|password_file|registry_auth_file|ca_file|cert_file|key_file"
    r"|tls_server_name|urls|board"
)


def uncommented(*, but: str = "urls") -> str:
    """The example with its keys switched on, except those that match `but`."""
    text = re.sub(r"^#(?=\[|[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    return re.sub(rf"^({but}) = .*$", "", text, flags=re.MULTILINE)


def read(text: str) -> tuple[AgentConfig, set[KeyPath]]:
    document = Document(EXAMPLE, text)
    config = read_agent(Table(document), "board")
    document.check()
    return config, document.asked


def test_the_example_as_it_stands_is_the_defaults() -> None:
    assert read(EXAMPLE.read_text())[0] == AgentConfig(node="board")


def test_every_stated_default_is_the_real_one() -> None:
    shown, _ = read(uncommented(but=WITHOUT_FIXED_DEFAULT))
    plain, _ = read('[mqtt]\nurl = "mqtt://broker.example:1883"\n[updates]')
    assert shown == plain


def test_the_example_shows_exactly_the_keys_that_are_read() -> None:
    # A URL for TLS, so that the settings of TLS may stand beside it.
    _, asked = read(uncommented().replace('url = "mqtt:', 'url = "mqtts:'))
    assert asked == paths(Document(EXAMPLE, uncommented(but="nothing")).values)


def test_every_field_has_a_key_named_like_it_without_its_unit() -> None:
    shown = paths(Document(EXAMPLE, uncommented(but="nothing")).values)
    rooms = {"nri": NriConfig, "limits": Limits, "log": LogConfig, "mqtt": MqttConfig}
    rooms |= {"updates": UpdatesConfig, "requests": RequestsConfig}
    top = {UNIT.sub("", field.name) for field in fields(AgentConfig)}
    assert {path[0] for path in shown} == top
    for name, room in rooms.items():
        keys = {UNIT.sub("", field.name) for field in fields(room)}
        keys = keys - {"brokers"} | {"url", "urls"} if name == "mqtt" else keys
        assert {path[1] for path in shown if len(path) == 2 and path[0] == name} == keys


def paths(values: dict[str, object]) -> set[KeyPath]:
    """Every table and key."""
    found: set[KeyPath] = set()
    for key, value in values.items():
        found.add((key,))
        if isinstance(value, dict):
            found |= {(key, *below) for below in paths(value)}
    return found
