"""The benchmark's result as Markdown tables, for a terminal and for docs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MB = 1e6
_SHOWN = 8  # mappings by name
_RESTART_KEYS = ("unseen", "partly", "first_ms", "all_ms")
_SMALL = ("alone", "pss", "private_dirty")

HEADS = {
    "latency": "CreateContainer through upstream's pkg/adaptation",
    "engine": "One call of a guest on Wasmtime, without socket",
    "deadline": "Calls that never end, on a busy machine",
    "memory": "Memory",
    "imports": "Memory by import",
    "start": "Start, until the runtime has registered the plugin",
    "board": "On each engine",
    "swap": "CreateContainer while the plugin is replaced",
    "restart": "Containers that a restarted runtime creates before its plugins are back",
    "fleet": "A fleet, from deploy until every node runs the plugin",
    "outbox": "Results that wait for the broker",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, with columns that also line up where Markdown is not rendered."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]

    def written(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    ruler = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([written(lines[0]), written(ruler), *map(written, lines[1:])])


def part(name: str, result: Mapping[str, Any]) -> str:
    """One part's table below its headline."""
    return f"{HEADS[name]}\n\n{_PARTS[name](result)}"


def _latency(result: Mapping[str, Any]) -> str:
    head = (
        "host",
        "median us",
        "p99 us",
        "events/s",
        "/ floor",
        "/ native",
        "p99 / native",
        "/ wazero",
        "CPU us",
    )
    rows = [
        (
            name,
            f"{found['median_us']:.0f}",
            f"{found['p99_us']:.0f}",
            f"{found['events_per_s']:.0f}",
            ratio(found["to_floor"]),
            ratio(found["to_native"]),
            ratio(found["p99_to_native"]),
            ratio(found["to_wazero"]),
            f"{found['cpu_us_per_event']:.0f}",
        )
        for name, found in result["contestants"].items()
    ]
    return table(head, rows)


def _engine(result: Mapping[str, Any]) -> str:
    head = ("guest", "call us", "p99 us", "its own work us", "on top us", "half of the pairs")
    keys = ("call_us", "call_p99_us", "own_us", "on_top_us")
    rows = []
    for name, found in result["contestants"].items():
        half = f"{found['on_top_low_us']:.1f} to {found['on_top_high_us']:.1f}"
        rows.append((name, *(f"{found[key]:.1f}" for key in keys), half))
    return table(head, rows)


def _deadline(result: Mapping[str, Any]) -> str:
    head = (
        f"{result['busy']} busy processes, {result['calls']} calls of"
        f" {result['deadline_s']:g} s on each engine",
        "calls",
        "median ms",
        "p99 ms",
        "longest ms",
        "ended by",
    )
    rows = [
        (
            f"{engine}: {name}",
            str(found["calls"]),
            *(f"{found[key] * 1e3:.2f}" for key in ("median_s", "p99_s", "longest_s")),
            ", ".join(f"{end} {count}" for end, count in sorted(found["ends"].items())),
        )
        for engine, kinds in result["engines"].items()
        for name, found in kinds.items()
    ]
    return table(head, rows)


def _memory(result: Mapping[str, Any]) -> str:
    head = (f"process, after {result['events']} events", "RSS MB", "PSS MB", "private dirty MB")
    keys = ("rss", "pss", "private_dirty")
    rows = [
        (name, *(f"{found[key] / MB:.1f}" for key in keys))
        for name, found in result["contestants"].items()
    ]
    rows += [
        (f"+ {name}", *(f"{found[key] / MB:.2f}" for key in keys))
        for name, found in result["increments"].items()
    ]
    return table(head, rows)


def _imports(result: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{each['rss'] / MB:.2f}", f"{each['private_dirty'] / MB:.2f}")
        for name, each in result["imports"].items()
    ]
    return table(("each adds, MB", "RSS", "private dirty"), rows)


def _start(result: Mapping[str, Any]) -> str:
    head = ("what", "median ms", "lowest", "highest")
    keys = ("median_ms", "low_ms", "high_ms")
    return table(
        head,
        [
            (name, *(f"{found[key]:.0f}" for key in keys))
            for name, found in result["contestants"].items()
        ],
    )


def _board(result: Mapping[str, Any]) -> str:
    """Rows are figures, columns engines; below it, what the smallest process consists of."""
    found = result["engines"]

    def small(what: str, digits: int) -> Callable[[Mapping[str, Any]], str]:
        return lambda of: " / ".join(f"{of[what][key] / MB:.{digits}f}" for key in _SMALL)

    def update(key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda of: f"{of['update'][key] / MB:.1f}"

    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("one C plugin, MQTT over TLS: PSS alone / PSS / private dirty, MB", small("C", 1)),
        ("each further C plugin, MB", small("further C", 2)),
        ("one Go plugin, no broker, MB", small("Go", 1)),
        ("each further Go plugin, MB", small("further Go", 1)),
        ("update of a Go plugin: anonymous memory before, MB", update("before")),
        ("... at its peak, both guests there", update("peak")),
        ("... after it", update("after")),
        ("... a second guest alone takes", update("guest")),
        ("... peak of the compiler's process", update("child_peak")),
        ("load of a Go plugin from the store, ms", lambda of: f"{of['load']['code_ms']:.0f}"),
        ("... without TLS, so without OpenSSL", lambda of: f"{of['load']['alone_ms']:.0f}"),
        ("... its guest made and initialised, ms", lambda of: f"{of['load']['guest_ms']:.0f}"),
    ]
    head = (f"after {result['rest_s']:.0f} s and {result['events']} events", *found)
    made = table(head, [(name, *(cell(of) for of in found.values())) for name, cell in rows])
    parts = "\n\n".join(_mappings(engine, of["mappings"]) for engine, of in found.items())
    return f"{made}\n\n{parts}"


def _mappings(engine: str, found: Mapping[str, Mapping[str, int]]) -> str:
    """The largest, and the rest in one line."""
    ordered = sorted(found.items(), key=lambda each: -each[1]["alone"])
    rest = [each for _, each in ordered[_SHOWN:]]
    rows = [
        *((name.rpartition("/")[2], of) for name, of in ordered[:_SHOWN]),
        (f"{len(rest)} more", {key: sum(of[key] for of in rest) for key in _SMALL}),
    ]
    head = (
        f"{engine}, one C plugin, by what is mapped, MB",
        "PSS alone",
        "PSS",
        "private dirty",
    )
    return table(head, [(name, *(f"{of[key] / MB:.2f}" for key in _SMALL)) for name, of in rows])


def _swap(result: Mapping[str, Any]) -> str:
    head = (
        f"{result['asked_per_s']} a second asked for",
        "replaced",
        "created",
        "a second",
        "unanswered",
        "answered twice",
        "failed",
        "median us",
        "p99 us",
        "longest ms",
    )
    rows = [
        (
            name,
            *(str(found[key]) for key in ("replaced", "samples")),
            f"{found['created_per_s']:.0f}",
            *(str(found[key]) for key in ("unanswered", "twice", "failed")),
            f"{found['median_us']:.0f}",
            f"{found['p99_us']:.0f}",
            f"{found['max_us'] / 1e3:.1f}",
        )
        for name, found in result["contestants"].items()
    ]
    return table(head, rows)


def _restart(result: Mapping[str, Any]) -> str:
    head = (
        f"{result['asked_per_s']} containers a second, {result['rounds']} restarts",
        "plugins",
        "seen by none",
        "not by all",
        "first seen ms",
        "by all ms",
    )
    rows = [
        (
            name,
            str(found["plugins"]),
            *(f"{found[key]['median']:.0f} ({found[key]['high']:.0f})" for key in _RESTART_KEYS),
        )
        for name, of in result["contestants"].items()
        for found in of
    ]
    return f"{table(head, rows)}\n\nMedian, and the most, of the restarts."


def _outbox(result: Mapping[str, Any]) -> str:
    queue, writes, answers = (result[key] for key in ("queue", "writes", "answers"))
    first, last = queue["marks"][0], queue["marks"][-1]
    waiting = [
        (f"RSS with {mark['queued']} queued, MB", f"{mark['rss'] / MB:.1f}")
        for mark in queue["marks"]
    ]
    waiting += [
        (
            f"more PSS from {first['queued']} to {last['queued']}, MB",
            f"{queue['more_pss'] / MB:.2f}",
        ),
        ("more RSS while they are sent, MB", f"{queue['sending_rss'] / MB:.2f}"),
        ("on disk, bytes for each", f"{queue['bytes_each']:.0f}"),
        ("queued, a second", f"{queue['queued_per_s']:.0f}"),
        ("sent after the outage, a second", f"{queue['sent_per_s']:.0f}"),
    ]
    parts = [table(("a link alone", "figure"), waiting)]
    if "skipped" in writes:
        parts.append(f"Writes: {writes['skipped']}.")
    else:
        rows = [
            (
                name,
                f"{found['record_per_1000'] / 1e3:.0f}",
                f"{found['device_per_1000'] / 1e3:.0f}",
            )
            for name, found in writes.items()
        ]
        what = "ext4 on a disk of its own, KB for 1,000 results"
        parts.append(table((what, "into files", "at the disk"), rows))
    singles = [
        (f'durability = "{name}"', f"{found:.0f}") for name, found in result["singles"].items()
    ]
    parts.append(
        table(("a mosquitto there, a result at a time", "bytes written for each"), singles)
    )
    answered = [
        (name, *(f"{found[key]:.0f}" for key in ("samples", "median_us", "p99_us", "max_us")))
        for name, found in answers["contestants"].items()
    ]
    head = ("CreateContainer, C plugin", "samples", "median us", "p99 us", "longest us")
    parts.append(table(head, answered))
    parts.append(
        f"{answers['sent']} results went out in {answers['seconds']:.0f} s, in which the broker"
        f" was killed {answers['broker_killed']} times; {answers['dropped']} were dropped. Median,"
        f" round by round: {ratio(answers['to_quiet'])} of the other agent's; p99"
        f" {ratio(answers['p99_to_quiet'])}."
    )
    return "\n\n".join(parts)


def ratio(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def _fleet(result: Mapping[str, Any]) -> str:
    if not result["fleets"]:
        return str(result["missing"])
    head = (
        f"nodes, a plugin of {result['plugin_bytes'] / 1024:.0f} KiB",
        "half s",
        "all s",
        "ms a node",
        "KiB a node",
        "messages a node",
    )
    rows = []
    for found in result["fleets"]:
        nodes = found["nodes"]
        moved = found["bytes_sent"] + found["bytes_received"]
        messages = found["messages_sent"] + found["messages_received"]
        rows.append(
            (
                str(nodes),
                f"{found['half_s']:.1f}",
                f"{found['seconds']:.1f}",
                f"{found['seconds'] / nodes * 1000:.0f}",
                f"{moved / nodes / 1024:.1f}",
                f"{messages / nodes:.1f}",
            )
        )
    return table(head, rows)


_PARTS = {
    "latency": _latency,
    "engine": _engine,
    "deadline": _deadline,
    "memory": _memory,
    "imports": _imports,
    "start": _start,
    "board": _board,
    "swap": _swap,
    "restart": _restart,
    "fleet": _fleet,
    "outbox": _outbox,
}
