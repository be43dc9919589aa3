"""Reads a plugin's limits and settings: of `NN-name.toml` beside it, or of a deployment."""

from pathlib import Path

from edge_agent.config.document import Document
from edge_agent.config.model import (
    KIB,
    MIB,
    PERMISSIONS,
    RUNTIMES,
    FailurePolicy,
    Limits,
    PluginSettings,
    Report,
)
from edge_agent.config.table import MAX_SOCKET_PATH_BYTES, PATH_PATTERN, Table
from edge_agent.errors import ConfigError

EVERYTHING = "*"  # of permissions
MAX_FUEL = 10**15  # instructions: no processor runs as many within the longest deadline


def load_plugin_settings(
    path: Path, text: str, defaults: Limits, report: Report = "all"
) -> PluginSettings:
    """The settings in `text`, the content of `path`; what it leaves out comes from the agent.

    Raises ConfigError with every problem of the file.
    """
    document = Document(path, text)
    root = Table(document)
    settings = read_settings(root, defaults, report)
    root.end()
    document.check()
    return settings


def read_settings(table: Table, defaults: Limits, report: Report) -> PluginSettings:
    """The settings among the keys of a table, which may have others."""
    return PluginSettings(
        limits=read_limits(table.table("limits"), defaults),
        failure_policy=table.choice("failure_policy", FailurePolicy, PluginSettings.failure_policy),
        permissions=_read_permissions(table),
        report=table.choice("report", Report, report),
        runtimes=_read_runtimes(table),
    )


def read_failure_policy(path: Path, text: str) -> FailurePolicy:
    """The policy alone, of a text that `load_plugin_settings` refuses for another key.

    The default where the policy cannot be read either: what a plugin is there to prevent must
    not happen because its file is damaged.
    """
    try:
        return Table(Document(path, text)).choice(
            "failure_policy", FailurePolicy, PluginSettings.failure_policy
        )
    except ConfigError:
        return PluginSettings.failure_policy


def read_limits(table: Table, defaults: Limits) -> Limits:
    """A `limits` table over `defaults`."""
    limits = Limits(
        # From one Wasm page to what the largest of small boards could spare.
        memory_bytes=table.size(
            "memory", defaults.memory_bytes, at_least=64 * KIB, at_most=1024 * MIB
        ),
        deadline_ms=table.milliseconds(
            "deadline", defaults.deadline_ms, at_least=1, at_most=60_000
        ),
        # The engine runs the guest on the thread's own stack, 8 MiB in most systems.
        stack_bytes=table.size("stack", defaults.stack_bytes, at_least=32 * KIB, at_most=4 * MIB),
        # ttRPC carries no message above 4 MiB.
        reply_bytes=table.size("reply", defaults.reply_bytes, at_least=KIB, at_most=4 * MIB),
        log_lines_per_s=table.count(
            "log_lines_per_s", defaults.log_lines_per_s, at_least=0, at_most=10_000
        ),
        log_line_bytes=table.size(
            "log_line", defaults.log_line_bytes, at_least=64, at_most=64 * KIB
        ),
        start_ms=table.milliseconds("start", defaults.start_ms, at_least=10, at_most=300_000),
        fuel=table.count("fuel", defaults.fuel, at_least=0, at_most=MAX_FUEL),
    )
    table.end()
    return limits


def _read_runtimes(root: Table) -> tuple[str, ...] | None:
    """Names of RUNTIMES and absolute paths of sockets."""
    names = root.texts("runtimes", None, pattern=PATH_PATTERN, form="a name or a path")
    if names is None:
        return None
    if not names:
        root.problem("runtimes", "must name one at least; leave the key out for every runtime")
    for name in names:
        if len(name.encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
            root.problem("runtimes", f"a socket's path has {MAX_SOCKET_PATH_BYTES} bytes at most")
        elif not name.startswith("/") and name not in RUNTIMES:
            root.unknown_word("runtimes", name, (*RUNTIMES, "/the/path/of/its/socket"))
    if len(set(names)) < len(names):
        root.problem("runtimes", "names a runtime twice")
    return names


def _read_permissions(root: Table) -> tuple[str, ...] | None:
    """Names of PERMISSIONS in its order; a parent stands for all that is below it. None:
    everything, be it written or not."""
    names = root.texts("permissions", None)
    if names is None or list(names) == [EVERYTHING]:
        return None
    granted = set()
    for name in names:
        if name == EVERYTHING:
            root.problem("permissions", f'"{EVERYTHING}" is everything, so it stands alone')
            continue
        covered = [each for each in PERMISSIONS if each == name or each.startswith(f"{name}.")]
        if not covered:
            root.unknown_word("permissions", name, (*PERMISSIONS, "linux"))
        granted.update(covered)
    return tuple(name for name in PERMISSIONS if name in granted)
