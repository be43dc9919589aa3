"""agent.toml, edited as a person edits it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edge_agent.config import load_agent_config
from tests.boards.settings import changed

SHIPPED = (Path(__file__).resolve().parents[2] / "configs" / "agent.toml").read_text()


def test_what_is_shown_in_the_packages_file_can_be_set(tmp_path: Path) -> None:
    text = changed(
        SHIPPED,
        {
            "": {"node": "board-7", "fleet": "default"},
            "mqtt": {"url": "mqtts://10.0.2.2:8883", "client_id": "x"},
        },
    )
    file = tmp_path / "agent.toml"
    file.write_text(text)
    config = load_agent_config(file)
    assert (config.node, config.fleet) == ("board-7", "default")
    assert config.mqtt is not None
    assert config.mqtt.client_id == "x"
    assert config.updates is None  # its section was not named
    assert set(tomllib.loads(text)) == {"node", "fleet", "labels", "nri", "limits", "log"} | {
        "mqtt",
        "requests",
    }


def test_a_key_that_the_file_does_not_show_is_an_error() -> None:
    with pytest.raises(KeyError, match="nods"):
        changed(SHIPPED, {"": {"nods": "board-7"}})
    with pytest.raises(KeyError, match="url"):
        changed(SHIPPED, {"updates": {"url": "mqtt://broker"}})
