"""What the facts mean: `doctor`'s rules, each a function from what was seen to findings."""

import calendar
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent import RELEASED
from edge_agent.cli.observe import Facts, SocketFacts
from edge_agent.cli.runtimes import HOW_CONTAINERD, HOW_CRIO, HOW_DOCKER, Runtime

# A compiled Go plugin takes some 15 MiB; state and the next release come on top.
LOW_DISK_BYTES = 200 << 20
NO_DISK_BYTES = 20 << 20
# Set back by less than this, the clock is merely not synchronised yet.
DAY_SECONDS = 86_400

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: how bad, about what, what was seen and what to do."""

    level: Level
    subject: str
    text: str
    todo: str = ""


def judge(facts: Facts) -> list[Finding]:
    """Everything that there is to say, in the order in which one would set things right."""
    return [
        *check_config(facts),
        *check_user(facts),
        *check_clock(facts),
        *check_engine(facts),
        *check_folders(facts),
        *check_plugins(facts),
        *check_sockets(facts),
        *check_runtimes(facts),
        *check_agent(facts),
        *check_mqtt(facts),
        *check_updates(facts),
    ]


def check_config(facts: Facts) -> Iterator[Finding]:
    if facts.config_problem is None:
        yield Finding("ok", "configuration", f"{facts.config_path} is in order")
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
    if facts.engine_problem is None:
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


def check_plugins(facts: Facts) -> Iterator[Finding]:
    for name, problem in sorted(facts.plugin_problems.items()):
        for line in problem.split("\n"):
            file = facts.plugin_dir.path / name
            todo = f"set it right; `edge-agent plugin check {file}.wasm` tells about the module"
            yield Finding("fail", "plugin", line, todo)
    if facts.plugins:
        yield Finding("ok", "plugin", ", ".join(facts.plugins))
    elif facts.plugin_dir.readable and not facts.plugin_problems and facts.config.updates is None:
        todo = "put NN-name.wasm there, such as 10-device-injector.wasm; it is taken up at once"
        yield Finding("warn", "plugin", f"{facts.plugin_dir.path} has no plugin", todo)


def check_sockets(facts: Facts) -> Iterator[Finding]:
    for each in facts.sockets:
        yield _check_socket(each, facts.euid)
    if any(each.listening for each in facts.sockets):
        return
    if facts.runtimes:
        todo = "start one of those below, with NRI switched on; the agent connects by itself"
    else:
        hows = f"containerd: {HOW_CONTAINERD}\nCRI-O: {HOW_CRIO}\nDocker Engine: {HOW_DOCKER}"
        todo = f"none was found: install one and switch NRI on\n{hows}"
    yield Finding("fail", "runtime", "no runtime offers NRI on a configured socket", todo)


def _check_socket(seen: SocketFacts, euid: int) -> Finding:
    if not seen.exists:
        return Finding("ok", "socket", f"{seen.path} is not there; the agent waits for it")
    if not seen.is_socket:
        todo = "remove it, or take it out of [nri] sockets"
        return Finding("fail", "socket", f"{seen.path} is not a socket", todo)
    if not seen.permitted:
        todo = "run the agent as root" if euid else "see what confines root here (container, LSM)"
        return Finding("fail", "socket", f"{seen.path} may not be opened", todo)
    if not seen.listening:
        todo = "start the runtime that made it (in a container: from the host's network)"
        return Finding("warn", "socket", f"nobody is seen to listen on {seen.path}", todo)
    return Finding("ok", "socket", f"a runtime listens on {seen.path}")


def check_runtimes(facts: Facts) -> Iterator[Finding]:
    configured = {_place(each.path) for each in facts.sockets}
    listened = {_place(each.path) for each in facts.sockets if each.listening}
    taken: dict[str, str] = {}
    for runtime in facts.runtimes:
        place = _place(runtime.socket) if runtime.socket else ""
        yield _check_runtime(runtime, configured=place in configured, listened=place in listened)
        if not place or runtime.switched_on is False:
            continue
        if place in taken:
            text = f"{taken[place]} and {runtime.name} both use {runtime.socket} for NRI"
            todo = "give each a socket of its own, and name both in [nri] sockets"
            yield Finding("warn", "runtime", text, todo)
        taken[place] = runtime.name


def _place(path: Path) -> str:
    """A path by which two names of one socket can be told the same: /var/run is /run."""
    return str(path).removeprefix("/var")


def _check_runtime(runtime: Runtime, *, configured: bool, listened: bool) -> Finding:
    name = runtime.name
    if runtime.problem:
        return Finding("warn", name, f"{runtime.config}: {runtime.problem}", runtime.how)
    if runtime.switched_on is False:
        return Finding("warn", name, f"NRI is switched off in {runtime.config}", runtime.how)
    if runtime.socket is None:
        text = f"NRI is on but takes no connections, says {runtime.config}"
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


def check_agent(facts: Facts) -> Iterator[Finding]:
    if facts.status_problem:
        yield Finding("warn", "agent", facts.status_problem, "see the agent's log")
        return
    if facts.status is None:
        text = "not running, so a runtime's version and its NRI's are not known"
        todo = f"`edge-agent run -c {facts.config_path}` (asking by ourselves would disturb them)"
        yield Finding("warn", "agent", text, todo)
        return
    yield Finding("ok", "agent", f"running, version {facts.status.get('agent')}")
    runtimes = facts.status.get("runtimes")
    for runtime in runtimes if isinstance(runtimes, list) else []:
        if isinstance(runtime, dict) and runtime.get("name"):
            nri = runtime.get("nri_version") or "of unknown version"
            text = f"{runtime['name']} {runtime.get('version')}, NRI {nri}"
            yield Finding("ok", "agent", f"serves {text} on {runtime.get('socket')}")


def check_mqtt(facts: Facts) -> Iterator[Finding]:
    if facts.config.mqtt is None:
        yield Finding("ok", "mqtt", "not configured: the agent works alone")
        return
    for url, problem in facts.brokers.items():
        if problem is None:
            yield Finding("ok", "mqtt", f"{url} takes connections")
        else:
            todo = "check network, url and TLS files; results wait in the agent meanwhile"
            yield Finding("fail", "mqtt", f"{url}: {problem}", todo)
    yield from _check_outbox(facts)


def _check_outbox(facts: Facts) -> Iterator[Finding]:
    """Where results wait, as the running agent says."""
    mqtt = facts.status.get("mqtt") if facts.status else None
    if not isinstance(mqtt, dict):
        return
    if mqtt.get("disk_trouble"):
        text = f"results wait in memory only: {mqtt['disk_trouble']}"
        yield Finding("warn", "mqtt", text, "what waits there is lost when the agent ends")
    elif isinstance(used := mqtt.get("disk_bytes"), int):
        limit = mqtt.get("disk_limit")
        text = f"{mqtt.get('queued')} results wait, {used >> 10} KiB on disk"
        full = isinstance(limit, int) and mqtt.get("dropped") and used > limit * 3 // 4
        todo = f"raise `queue` in [mqtt], or find out why the broker is away: {facts.config_path}"
        if full:
            text += f", which is full: {mqtt.get('dropped')} were given up"
        yield Finding("warn" if full else "ok", "mqtt", text, todo if full else "")


def check_updates(facts: Facts) -> Iterator[Finding]:
    if facts.config.updates is None:
        return
    if facts.config.mqtt is None:
        todo = "add [mqtt], or seed this board with `edge-agent store import`"
        yield Finding("warn", "updates", "no broker is configured that could bring any", todo)
    if facts.trust_problem is not None:
        todo = "no deployment is taken before that is set right"
        yield Finding("fail", "updates", facts.trust_problem, todo)
    else:
        yield Finding("ok", "updates", facts.trusted)
    updates = facts.status.get("updates") if facts.status else None
    if not isinstance(updates, dict):
        return
    if updates.get("trouble"):
        yield Finding("fail", "updates", str(updates["trouble"]))
    generation = updates.get("generation")
    text = f"runs generation {generation}" if generation else "nothing was deployed here so far"
    yield Finding("ok", "updates", text)
    trust = updates.get("trust")
    for what, told in (("deployment", updates), ("trust", trust)):
        refused = told.get("refused") if isinstance(told, dict) else None
        if isinstance(refused, dict):
            text = f"refuses the broker's {what}: {refused.get('text')}"
            yield Finding("warn", "updates", text, "the operator's `edge-agent fleet nodes` tells")
    for digest, reason in _texts(updates.get("rejected")):
        todo = (
            "the operator may let it be tried again:"
            " `edge-agent fleet request NODE release --arg plugin=NN-name`"
        )
        yield Finding("warn", "updates", f"rejects {digest[:19]}: {reason}", todo)


def _texts(told: object) -> Iterator[tuple[str, str]]:
    for key, value in told.items() if isinstance(told, dict) else ():
        yield str(key), str(value)
