"""The benchmark in a few tables, and what it ran on: docs/benchmark-table.md and the README."""

from collections.abc import Callable, Mapping
from typing import Any

from scripts.benchmarks.contestants import NATIVE, WAZERO
from scripts.benchmarks.latency import contestant
from scripts.benchmarks.report import MB, ratio, table
from scripts.benchmarks.start import COLD, WARM
from scripts.benchmarks.swap import SWAPPED


def headline(result: Mapping[str, Any]) -> str:
    """Five figures of the first engine, for the README. Of all parts."""
    speed, engines = result["parts"]["latency"], result["parts"]["board"]["engines"]
    engine = next(iter(engines))

    def fast(kind: str) -> str:
        name = contestant(kind, engine, speed["engines"])
        return ratio(speed["contestants"][name]["to_native"])

    last = result["parts"]["fleet"]["fleets"][-1]
    rows = [
        ("C plugin answers CreateContainer, in times of a native Go daemon", fast("C")),
        ("Go Wasm plugin, the same", fast("Go")),
        ("PSS with one C plugin and MQTT over TLS", f"{engines[engine]['C']['alone'] / MB:.1f} MB"),
        ("each further C plugin", f"{engines[engine]['further C']['pss'] / MB:.2f} MB"),
        (f"{last['nodes']} nodes run a new plugin after", f"{last['seconds']:.1f} s"),
    ]
    return table(("", ""), rows)


def summary(result: Mapping[str, Any]) -> str:
    """Who serves, how fast, how small, how soon. Of all parts."""
    parts = result["parts"]
    speed, soon = parts["latency"]["contestants"], parts["start"]["contestants"]
    processes, more = parts["memory"]["contestants"], parts["memory"]["increments"]
    rows = [
        (NATIVE, *_fast(speed[NATIVE]), _small(processes[NATIVE]), _soon(soon[NATIVE])),
        (
            WAZERO,
            *_fast(speed[WAZERO]),
            _small(more["the plugin in wazero"], "+"),
            f"{_soon(soon[WAZERO])}, every time",
        ),
    ]
    for name, one in (("C plugin", "1 C plugin"), ("Go Wasm plugin", "1 Go plugin")):
        starts = [_soon(soon[f"edge-agent, {one}, {when}"]) for when in (WARM, COLD)]
        rows.append(
            (
                f"edge-agent, {name}",
                *_fast(speed[f"edge-agent, {name}"]),
                _small(processes[f"edge-agent, {one}"]),
                f"{starts[0]}, the first {starts[1]}",
            )
        )
    for kind, plugins in (("C", "5 to 20"), ("Go", "1 to 5")):
        name = f"each further {kind} plugin"
        rows.append((name, "", "", "", "", _small(more[f"{name} ({plugins})"], "+"), ""))
    head = ("plugin in", "median", "/ native", "p99", "events/s", "RSS / private dirty", "start")
    return table(head, rows)


def board(result: Mapping[str, Any]) -> str:
    """The table of small boards: a column for each engine. Of all parts."""
    speed, found = result["parts"]["latency"], result["parts"]["board"]

    def small(what: str, *keys: str) -> Callable[[str], str]:
        return lambda engine: " / ".join(
            f"{found['engines'][engine][what][key] / MB:.1f}" for key in keys
        )

    def fast(kind: str) -> Callable[[str], str]:
        return lambda engine: ratio(
            speed["contestants"][contestant(kind, engine, speed["engines"])]["to_native"]
        )

    rows: list[tuple[str, Callable[[str], str]]] = [
        ("PSS with one C plugin, MQTT over TLS, MB", small("C", "alone")),
        (
            "each further C plugin, MB",
            lambda of: f"{found['engines'][of]['further C']['pss'] / MB:.2f}",
        ),
        (
            "each further Go plugin, private dirty / PSS, MB",
            small("further Go", "private_dirty", "pss"),
        ),
        ("an update of a Go plugin: peak above before, MB", small("update", "over")),
        ("... of the compiler's own process, MB", small("update", "child_peak")),
        (
            "load of that plugin from the store, ms",
            lambda of: f"{found['engines'][of]['load']['code_ms']:.0f}",
        ),
        ("CreateContainer / native Go daemon, C plugin", fast("C")),
        ("... Go plugin", fast("Go")),
    ]
    head = (f"after {found['rest_s']:.0f} s and {found['events']} events", *found["engines"])
    return table(head, [(name, *map(cell, found["engines"])) for name, cell in rows])


def fleet(result: Mapping[str, Any]) -> str:
    """The table of a fleet and of results that wait. Of all parts."""
    parts = result["parts"]
    queue, writes = parts["outbox"]["queue"], parts["outbox"]["writes"]
    swapped = parts["swap"]["contestants"][SWAPPED]
    first, last = queue["marks"][0]["queued"], queue["marks"][-1]["queued"]
    rows = [
        (
            f"{found['nodes']} nodes run a new plugin after",
            f"{found['seconds']:.1f} s, half of them after {found['half_s']:.1f} s",
        )
        for found in parts["fleet"]["fleets"]
    ]
    rows += [
        (f"memory of {last} waiting results beyond {first}", f"{queue['more_pss'] / MB:.1f} MB"),
        ("disk for each", f"{queue['bytes_each']:.0f} bytes"),
        ("sent after the outage", f"{queue['sent_per_s']:.0f} a second"),
    ]
    if "skipped" not in writes:
        rows += [
            (f"written for 1,000: {name}", f"{found['device_per_1000'] / 1e3:.0f} KB")
            for name, found in writes.items()
        ]
    rows.append(
        (
            f"{swapped['replaced']} replacements under {parts['swap']['asked_per_s']} creations a"
            " second: unanswered / answered twice",
            f"{swapped['unanswered']} / {swapped['twice']}",
        )
    )
    return table(("one mosquitto; results while it is away", "figure"), rows)


def described(result: Mapping[str, Any]) -> str:
    """The machine and the versions, on two lines."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"{machine['cpu']} ({machine['architecture']}), {machine['cores']} cores, "
        f"{machine['memory_mb'] / 1000:.0f} GB, Linux {machine['kernel']}, "
        f"load {machine['load'][0]} before and {machine['load_after'][0]} after\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


def _fast(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (
        f"{found['median_us']:.0f} us",
        ratio(found["to_native"]),
        f"{found['p99_us']:.0f} us",
        f"{found['events_per_s']:.0f}",
    )


def _small(found: Mapping[str, float], sign: str = "") -> str:
    digits = 2 if found["rss"] < MB else 1
    rss, dirty = (f"{sign}{found[key] / MB:.{digits}f}" for key in ("rss", "private_dirty"))
    return f"{rss} / {dirty} MB"


def _soon(found: Mapping[str, float]) -> str:
    ms = found["median_ms"]
    return f"{ms / 1e3:.1f} s" if ms > 1e3 else f"{ms:.0f} ms"
