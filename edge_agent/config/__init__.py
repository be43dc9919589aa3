"""Configuration: what an operator may write, checked in one place, then frozen.

`model` says what there is, `agent` and `plugin` read the two kinds of file, `reader`
collects every problem of a file with its line, `units` reads sizes and durations.
Names carry their unit; in a file the value carries it (`memory = "32MiB"` becomes
`memory_bytes`).
"""

from edge_agent.config.agent import load_agent_config, parse_agent_config
from edge_agent.config.model import (
    PERMISSIONS,
    RUNTIMES,
    AgentConfig,
    Broker,
    FailurePolicy,
    Limits,
    LogConfig,
    MqttConfig,
    NriConfig,
    PluginSettings,
    Report,
    RequestsConfig,
    Source,
    UpdatesConfig,
    load_plugin_settings,
    read_policy,
)

__all__ = [
    "PERMISSIONS",
    "RUNTIMES",
    "AgentConfig",
    "Broker",
    "FailurePolicy",
    "Limits",
    "LogConfig",
    "MqttConfig",
    "NriConfig",
    "PluginSettings",
    "Report",
    "RequestsConfig",
    "Source",
    "UpdatesConfig",
    "load_agent_config",
    "load_plugin_settings",
    "parse_agent_config",
    "read_policy",
]
