"""`doctor`'s rules for the machine: functions from facts to findings.

edge_agent.cli.agentchecks has the rules for the agent's own report.
"""

import calendar
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import RELEASED
from edge_agent.cli import DEFAULT_CONFIG
from edge_agent.cli.agentchecks import (
    check_agent,
    check_mqtt,
    check_plugins,
    check_sockets,
    check_updates,
    records,
    runtimes_by_socket,
)
from edge_agent.cli.observe import Facts, Finding, Level
from edge_agent.cli.runtimes import Runtime
from edge_agent.nri.events import NEW_EVENTS, known_events

if TYPE_CHECKING:
    from edge_agent.cli.observe import Facts

# A compiled Go plugin takes some 15 MiB; state and the next release come on top.
LOW_DISK_BYTES = 200 << 20
NO_DISK_BYTES = 20 << 20
# Set back by less than this, the clock is merely not synchronised yet.
DAY_SECONDS = 86_400

# How a runtime names itself to a plugin -> how doctor names it.
_NAMES = {"containerd": "containerd", "cri-o": "CRI-O", "docker": "Docker Engine"}

__all__ = ["Finding", "Level", "judge"]


def judge(facts: Facts) -> list[Finding]:
    """All findings, in the order in which a person would correct the problems."""
    return [
        *check_config(facts),
        *check_user(facts),
        *check_clock(facts),
        *check_engine(facts),
        *check_folders(facts),
        *check_exposure(facts),
        *check_agent(facts),
        *check_plugins(facts),
        *check_sockets(facts),
        *check_runtimes(facts),
        *check_required(facts),
        *check_mqtt(facts),
        *check_updates(facts),
    ]


def check_config(facts: Facts) -> Iterator[Finding]:
    if facts.config_problem is None:
        yield Finding("ok", "configuration", f"{facts.config_path} is in order")
        return
    if not facts.config_there:
        text = f"{facts.config_path} is not there; what follows was looked at with the defaults"
        options = "" if facts.config_path == DEFAULT_CONFIG else f" -c {facts.config_path}"
        todo = f"`edge-agent config init{options}` writes it, with every key explained"
        yield Finding("fail", "configuration", text, todo)
        return
    for line in facts.config_problem.split("\n"):
        yield Finding("fail", "configuration", line)
    todo = "set it right; what follows was looked at with the defaults"
    yield Finding("warn", "configuration", "the agent will not start with it", todo)


def check_user(facts: Facts) -> Iterator[Finding]:
    if facts.euid == 0:
        yield Finding("ok", "user", "running as root, as the runtimes' sockets require")
    else:
        todo = "run the agent, and doctor, as root: runtimes open their NRI socket to root only"
        yield Finding("warn", "user", f"running as user {facts.euid}", todo)


def check_clock(facts: Facts) -> Iterator[Finding]:
    released = calendar.timegm(time.strptime(RELEASED, "%Y-%m-%d"))
    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime(facts.now))
    if facts.now < released - DAY_SECONDS:
        text = f"it is {now} UTC here, before this version was released ({RELEASED})"
        todo = "set the clock (NTP: `timedatectl set-ntp true`): TLS and time stamps need it"
        yield Finding("fail", "clock", text, todo)
    else:
        yield Finding("ok", "clock", f"{now} UTC")


def check_engine(facts: Facts) -> Iterator[Finding]:
    if facts.engine_problem is None and facts.engine_instead:
        yield Finding("warn", "engine", str(facts.engine), facts.engine_instead)
    elif facts.engine_problem is None:
        yield Finding("ok", "engine", str(facts.engine))
    else:
        todo = 'install it, or set engine = "auto" to take what is installed'
        yield Finding("fail", "engine", facts.engine_problem, todo)


def check_folders(facts: Facts) -> Iterator[Finding]:
    plugins, state = facts.plugin_dir, facts.state_dir
    if not plugins.exists:
        todo = f"`mkdir -p {plugins.path}` and put NN-name.wasm there, or set plugin_dir"
        yield Finding("fail", "plugin_dir", f"{plugins.path} is not there", todo)
    elif not plugins.readable:
        todo = "give the agent's user the right to read it"
        yield Finding("fail", "plugin_dir", f"{plugins.path} cannot be read", todo)
    else:
        yield Finding("ok", "plugin_dir", str(plugins.path))

    free = f"{state.free_bytes >> 20} MiB free"
    if not state.writable:
        todo = "give the agent's user the right to write there, or set state_dir"
        yield Finding("fail", "state_dir", f"{state.path} cannot be written", todo)
    elif state.free_bytes < NO_DISK_BYTES:
        todo = "free some: compiled plugins and state would not fit"
        yield Finding("fail", "state_dir", f"{state.path}: only {free}", todo)
    elif state.free_bytes < LOW_DISK_BYTES:
        todo = f"free some: {LOW_DISK_BYTES >> 20} MiB hold ten large plugins"
        yield Finding("warn", "state_dir", f"{state.path}: only {free}", todo)
    else:
        yield Finding("ok", "state_dir", f"{state.path}, {free}")


def check_exposure(facts: Facts) -> Iterator[Finding]:
    for path, reason in facts.exposed:
        todo = f"`chown root {path}; chmod go-w {path}`: it decides what runs here as root"
        yield Finding("fail", "permissions", f"{path} {reason}", todo)
    if not facts.exposed:
        text = "only root and the agent may change configuration, plugins, keys and state"
        yield Finding("ok", "permissions", text)


def check_runtimes(facts: Facts) -> Iterator[Finding]:
    configured = {_place(each.path) for each in facts.sockets}
    listened = {_place(each.path) for each in facts.sockets if each.listening}
    served = {
        _place(path): _NAMES.get(str(entry.get("name")).lower(), "")
        for path, entry in runtimes_by_socket(facts).items()
        if entry.get("state") == "connected"
    }
    listened |= served.keys()
    taken: dict[str, str] = {}
    hidden = []
    for runtime in facts.runtimes:
        place = _place(runtime.socket) if runtime.socket else ""
        holder = served.get(place, "")
        # Where its files do not name the socket, its name tells.
        by_name = (runtime.problem or not place) and runtime.name in served.values()
        if runtime.serves and (by_name or holder == runtime.name):
            yield Finding("ok", runtime.name, "offers NRI, and the agent is connected")
        elif holder and holder != runtime.name:
            text = f"should offer NRI on {runtime.socket}, where {holder} is"
            todo = "give each a socket of its own, and name both in [nri] sockets"
            yield Finding("warn", runtime.name, text, todo)
        else:
            yield _check_runtime(runtime, place in configured, place in listened)
            hidden += [runtime.name] * runtime.unseen
        if not place or runtime.switched_on is False:
            continue
        if place in taken and not holder:
            text = f"{taken[place]} and {runtime.name} both use {runtime.socket} for NRI"
            todo = "give each a socket of its own, and name both in [nri] sockets"
            yield Finding("warn", "runtime", text, todo)
        taken[place] = runtime.name
    if hidden:
        text = f"with which words {', '.join(hidden)} was started cannot be seen from here"
        todo = "they may say otherwise than the files: run `edge-agent doctor` as root in a shell"
        yield Finding("warn", "runtime", text, todo)


def _place(path: Path) -> str:
    """The path with /run for /var/run, so that two names of one socket are equal."""
    return str(path).removeprefix("/var")


def _check_runtime(runtime: Runtime, configured: bool, listened: bool) -> Finding:
    name = runtime.name
    if runtime.problem:
        return Finding("warn", name, f"{runtime.config}: {runtime.problem}", runtime.how)
    if runtime.switched_on is False:
        return Finding("warn", name, f"NRI is switched off in {runtime.source}", runtime.how)
    if runtime.socket is None:
        text = f"NRI is on but takes no connections, says {runtime.source}"
        return Finding("warn", name, text, runtime.how)
    if not runtime.serves:
        text = f"its CRI is switched off in {runtime.config}, and only that passes NRI"
        todo = 'take "cri" out of disabled_plugins, unless another program makes the containers'
        return Finding("warn", name, text, f"{todo} (Docker Engine has an NRI of its own)")
    if not configured:
        todo = f'add "{runtime.socket}" to [nri] sockets'
        return Finding("warn", name, f"offers NRI on {runtime.socket}, unused", todo)
    if not listened:
        text = f"should offer NRI on {runtime.socket} and does not"
        return Finding("warn", name, text, f"start it, or {runtime.how}")
    return Finding("ok", name, f"offers NRI on {runtime.socket}")


# --- plugins that a runtime requires (`required_plugins` of the default validator)
#
# While the agent runs it refuses creations for a plugin that does not run (docs/adr/0033). While
# the agent is down only the runtime can: containerd from 2.2 (NRI 0.10) has a validator that fails
# a creation at which a required plugin is not registered (containerd/nri,
# plugins/default-validator).

SECTION = "plugins.'io.containerd.nri.v1.nri'.default_validator"
# So that a pod which brings the plugins themselves can be excused (docs/runtimes.md).
TOLERATION = "tolerate-missing-nri-plugins.noderesource.dev"


def check_required(facts: "Facts") -> Iterator[Finding]:
    """Propose `required_plugins` for the time while the agent is down; the operator decides."""
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
        and entry.get("mode") != "monitor"
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
