"""Whether a runtime misses a plugin by itself: the default validator's `required_plugins`.

While the agent runs it refuses for a plugin that does not (docs/adr/0033). While it is down only
the runtime can: containerd from 2.2 (NRI 0.10) has a validator that fails a creation at which a
plugin it requires is not registered (containerd/nri, plugins/default-validator).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.agentchecks import records
from edge_agent.cli.finding import Finding
from edge_agent.nri.generation import NEW_EVENTS, known_events

if TYPE_CHECKING:
    from edge_agent.cli.observe import Facts

SECTION = "plugins.'io.containerd.nri.v1.nri'.default_validator"
# So that a pod which brings the plugins themselves can be excused (docs/runtimes.md).
TOLERATION = "tolerate-missing-nri-plugins.noderesource.dev"


def check_required(facts: "Facts") -> Iterator[Finding]:
    """What would close the gap while the agent is down; the choice is the operator's."""
    known: dict[str, frozenset[str]] = {each.name: each.required for each in facts.runtimes}
    config = next((each.config for each in facts.runtimes if each.name == "containerd"), None)
    for runtime in records(facts.status or {}, "runtimes"):
        if runtime.get("name") != "containerd" or not _validates(runtime):
            continue
        names = _must_not_be_missed(facts, runtime.get("socket"))
        missing = [
            each for each in names if not {each, each[3:]} & known.get("containerd", frozenset())
        ]
        if missing:
            yield _proposal(str(runtime.get("version")), names, missing, config)
        elif names:
            text = f"containerd requires {', '.join(names)}, also while the agent is down"
            yield Finding("ok", "required", text)


def _validates(runtime: Mapping[str, object]) -> bool:
    told = (str(runtime.get(key) or "") for key in ("name", "version", "nri_version"))
    return known_events(*told) == NEW_EVENTS


def _must_not_be_missed(facts: "Facts", socket: object) -> list[str]:
    """Plugins of this runtime whose `failure_policy` is Fail."""
    found = {
        f"{entry.get('index')}-{entry.get('name')}"
        for entry in records(facts.status or {}, "plugins")
        if entry.get("index")
        and entry.get("runtime") == socket
        and entry.get("status") != "skipped"
        and entry.get("failure_policy", "Fail") == "Fail"
    }
    return sorted(found)


def _proposal(version: str, names: list[str], missing: list[str], config: Path | None) -> Finding:
    listed = ", ".join(f'"{each}"' for each in names)
    text = f"while the agent is down, containerd {version} creates containers without "
    todo = (
        f"to have it refuse them, in {config or '/etc/containerd/config.toml'}:\n"
        f"[{SECTION}]\n"
        "enable = true\n"
        f"required_plugins = [{listed}]\n"
        f'tolerate_missing_plugins_annotation = "{TOLERATION}"\n'
        "and read docs/runtimes.md first: this holds for every pod, static ones included"
    )
    return Finding("ok", "required", text + ", ".join(missing), todo)
