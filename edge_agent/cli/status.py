"""`edge-agent status`: the running agent's report as tables."""

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_agent.cli import DEFAULT_CONFIG, OK, add_config_option
from edge_agent.store.digest import short
from edge_agent.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from edge_agent.cli import Subparsers


RUNTIME_COLUMNS = ("runtime socket", "state", "runtime", "nri")
PLUGIN_COLUMNS = (
    "plugin",
    "version",
    "at",
    "status",
    "for",
    "events",
    "failures",
    "p50",
    "p99",
    "memory",
    "digest",
)

Record = Mapping[str, object]


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("status", help="show the state of the running agent")
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print the agent's answer as JSON")
    parser.set_defaults(command=status)


def status(arguments: argparse.Namespace) -> int:
    """Ask the agent and print its answer. ControlError: no agent answers."""
    import json

    from edge_agent.control import ask

    answer = ask(control_socket(arguments.config), "status")
    print(json.dumps(answer, indent=2) if arguments.json else render(answer, time.time()))
    return OK


def control_socket(config: "Path") -> "Path":
    """The control socket of this configuration; the default one without a file."""
    from edge_agent.config import AgentConfig, load_agent_config

    if config == DEFAULT_CONFIG and not config.exists():
        return AgentConfig.control_socket
    return load_agent_config(config).control_socket


def render(answer: Record, now: float) -> str:
    """The answer to the verb `status` as tables; any part of it may be absent."""
    runtimes = [_runtime_row(runtime) for runtime in _records(answer, "runtimes")]
    plugins = _records(answer, "plugins")
    rows = [_plugin_row(plugin, now) for plugin in plugins]
    errors = [
        f"{_name(plugin)}: {_word(plugin, key)}"
        for plugin in plugins
        for key in ("error", "reason")
        if plugin.get(key)
    ]
    for plugin in plugins:
        lost = plugin.get("not_carried")
        if isinstance(lost, list) and lost:
            names = ", ".join(printable(str(each)) for each in lost)
            errors.append(
                f"{_name(plugin)}: the runtime does not carry {names}, which it may touch"
            )
        unread = plugin.get("unread")
        for each in unread if isinstance(unread, list) else ():
            errors.append(f"{_name(plugin)}: [pressure] {printable(str(each))}")
        if plugin.get("mode") == "monitor":
            counts = (_word(plugin, key) for key in ("would_adjust", "would_reject"))
            told = "would have adjusted {} and rejected {}".format(*counts)
            if plugin.get("updates_withheld"):
                told += f"; updates not sent: {_word(plugin, 'updates_withheld')}"
            errors.append(f"{_name(plugin)}: only monitored: {told}")
    parts = [
        _head(answer),
        table(RUNTIME_COLUMNS, runtimes) if runtimes else "no runtime is configured",
        table(PLUGIN_COLUMNS, rows) if rows else "no plugin is loaded",
        "\n".join(errors),
        _updates(_record(answer, "updates")),
        _mqtt(_record(answer, "mqtt"), _record(answer, "key")),
    ]
    return "\n\n".join(part for part in parts if part)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _head(answer: Record) -> str:
    engine, memory = _record(answer, "engine"), _record(answer, "memory")
    lines = [
        f"edge-agent {_word(answer, 'agent')} on {_word(answer, 'node')},"
        f" up {duration(answer.get('uptime_s'))}"
    ]
    if engine:
        named = f"{_word(engine, 'name')} {_word(engine, 'version')}"
        lines.append(f"engine {_word(engine, 'why') if engine.get('why') else named}")
    if memory:
        pss, rss = size(memory.get("pss")), size(memory.get("rss"))
        lines.append(f"memory {pss} proportional (PSS), {rss} resident (RSS)")
    return "\n".join(lines)


def _runtime_row(runtime: Record) -> Sequence[str]:
    name = " ".join(_word(runtime, key) for key in ("name", "version") if runtime.get(key))
    return (
        _word(runtime, "socket"),
        f"{_word(runtime, 'state')} ({_word(runtime, 'reason')})"
        if runtime.get("reason")
        else _word(runtime, "state"),
        name or "-",
        _word(runtime, "nri_version"),
    )


def _plugin_row(plugin: Record, now: float) -> Sequence[str]:
    since = plugin.get("since")
    age = now - since if isinstance(since, int | float) else None
    failures = _record(plugin, "failures")
    latency = _record(plugin, "latency_ms")
    return (
        _name(plugin),
        _word(plugin, "version"),
        _word(plugin, "runtime"),
        _word(plugin, "status")
        + (", containers are refused" if plugin.get("refusing") else "")
        + (", monitored" if plugin.get("mode") == "monitor" else "")
        + (", one-shot" if plugin.get("instance") == "per-event" else ""),
        _word(plugin, "since") if isinstance(since, str) else duration(age),
        _word(plugin, "events"),
        ", ".join(f"{_word(failures, kind)} {printable(kind)}" for kind in failures) or "none",
        milliseconds(latency.get("p50")),
        milliseconds(latency.get("p99")),
        size(plugin.get("memory_bytes")),
        short(_word(plugin, "digest")),
    )


def _name(plugin: Record) -> str:
    """`NN-name`; a file that is no plugin has no index."""
    return "-".join(_word(plugin, key) for key in ("index", "name") if plugin.get(key)) or "-"


def _updates(updates: Record) -> str:
    """The deployment of this node, and what the node refuses of it."""
    if not updates:
        return ""
    generation = updates.get("generation")
    lines = [f"runs generation {generation} of the fleet" if generation else "nothing is deployed"]
    if updates.get("pending"):
        fetching = [
            f"{short(_word(each, 'digest'))}"
            f" {percent(each.get('progress'))}{_because(each.get('trouble'))}"
            for each in _records(updates, "fetching")
        ]
        lines[0] += f"; fetches generation {_word(updates, 'pending')}"
        lines += [f"  {each}" for each in fetching]
    if _record(updates, "trust").get("expired"):
        lines.append("the trusted keys expired: no new deployment is taken")
    for what, told in (("deployment", updates), ("trust", _record(updates, "trust"))):
        refused = _record(told, "refused")
        if refused:
            lines.append(f"refuses the broker's {what}: {_word(refused, 'text')}")
    rejected = _record(updates, "rejected")
    for digest in rejected:
        name = short(printable(digest))
        lines.append(f"rejects {name}: {_word(rejected, digest)}")
    if updates.get("trouble"):
        lines.append(f"updates: {_word(updates, 'trouble')}")
    return "\n".join(lines)


def _because(trouble: object) -> str:
    return f" ({printable(str(trouble))})" if trouble else ""


def percent(share: object) -> str:
    """A share of 1."""
    return f"{share * 100:.0f} %" if isinstance(share, int | float) else "-"


def _mqtt(mqtt: Record, key: Record) -> str:
    if not mqtt:
        return "mqtt is off: the agent works alone"
    counts = ", ".join(f"{_word(mqtt, key)} {key}" for key in ("queued", "sent", "dropped"))
    trouble = f"; {_word(mqtt, 'last_error')}" if mqtt.get("last_error") else ""
    lines = [f"mqtt {_word(mqtt, 'state')}, {_word(mqtt, 'broker')}; {counts}{trouble}"]
    if mqtt.get("disk_trouble"):
        lines.append(f"results wait in memory only: {_word(mqtt, 'disk_trouble')}")
    elif mqtt.get("disk_bytes") is not None:
        disk, limit = size(mqtt.get("disk_bytes")), size(mqtt.get("disk_limit"))
        lines.append(f"results wait on disk: {disk} of {limit}")
    if mqtt.get("streams_cut"):
        lines.append("the agent before this one was cut short: its newest results may be lost")
    if key.get("id"):
        lines.append(f"key of this node {_word(key, 'id')} ({_word(key, 'file')})")
    if key.get("trouble"):
        lines.append(f"its state is not signed: {_word(key, 'trouble')}")
    return "\n".join(lines)


def duration(seconds: object) -> str:
    """`3 d 4 h`: the two largest units that are not zero."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        return "-"
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def size(count: object) -> str:
    """Bytes in a suitable unit."""
    if not isinstance(count, int | float):
        return "-"
    if count < 1 << 20:
        return f"{count / 1024:.0f} KiB"
    return f"{count / (1 << 20):.1f} MiB"


def milliseconds(count: object) -> str:
    """A latency."""
    return f"{count:.2f} ms" if isinstance(count, int | float) else "-"


def _word(record: Record, key: str) -> str:
    value = record.get(key)
    return "-" if value is None else printable(str(value))


def _record(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _records(record: Record, key: str) -> list[Record]:
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
