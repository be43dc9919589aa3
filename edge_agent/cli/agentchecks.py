"""`doctor`'s rules for the running agent's own report: its runtimes, plugins, broker and updates.

Files and sockets are examined only for facts that the report lacks."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_agent.cli.observe import Facts, Finding, Level, SocketFacts
from edge_agent.cli.runtimes import HOW_CONTAINERD, HOW_CRIO, HOW_DOCKER
from edge_agent.config.units import Validity, written

Record = Mapping[str, object]

# What `status` says of a plugin at a runtime -> how good that is, and what to do.
_PLUGIN_STATES: dict[str, tuple[Level, str]] = {
    "running": ("ok", ""),
    "probation": ("ok", ""),
    "waiting": ("ok", ""),  # for its runtime, of which another line tells
    "skipped": ("ok", ""),  # by choice
    "starting": ("warn", "it is being compiled or registered: look again in a while"),
    "backoff": (
        "fail",
        "it is tried again and again: see `journalctl -u edge-agent`, and try it with"
        " `edge-agent plugin run`",
    ),
    "quarantined": (
        "fail",
        "put another version there, or lift it with `edge-agent plugin unquarantine NN-name`",
    ),
    "failed": ("fail", "set right what it says; `edge-agent plugin check FILE` tells more"),
}
_DROPS = (
    "a newer runtime, or another way to set it: docs/runtimes.md, What a runtime drops; "
    "`edge-agent status` counts for how many containers"
)
_ASK_AGAIN = "see what keeps it from running: `edge-agent status`, `journalctl -u edge-agent`"
_UNREAD = "without this reading the plugin is not called for it: docs/plugins.md, Time and pressure"
_RESTART = "restart the agent: it runs with another configuration than this one"


def check_agent(facts: Facts) -> Iterator[Finding]:
    if facts.status_problem:
        todo = "what follows comes from files, which do not tell what runs; see the agent's log"
        yield Finding("warn", "agent", facts.status_problem, todo)
        return
    if facts.status is None:
        text = "not running: what it would find at the runtimes and the broker is not known"
        todo = f"`edge-agent run -c {facts.config_path}` (asking by ourselves would disturb them)"
        yield Finding("warn", "agent", text, todo)
        return
    yield Finding("ok", "agent", f"running, version {facts.status.get('agent')}")


# --- plugins


def check_plugins(facts: Facts) -> Iterator[Finding]:
    for name, problem in sorted(facts.plugin_problems.items()):
        for line in problem.split("\n"):
            file = facts.plugin_dir.path / name
            todo = f"set it right; `edge-agent plugin check {file}.wasm` tells about the module"
            yield Finding("fail", "plugin", line, todo)
    if facts.status is None:
        yield from _plugins_by_file(facts)
    else:
        yield from _plugins_by_status(facts, facts.status)
    if facts.unrestricted:
        text = f"{', '.join(facts.unrestricted)}: may change everything, hooks on the node included"
        todo = 'write permissions into NN-name.toml beside it, or permissions = ["*"] to keep it so'
        yield Finding("warn", "plugin", text, todo)


def _plugins_by_file(facts: Facts) -> Iterator[Finding]:
    if facts.plugins:
        text = f"{', '.join(facts.plugins)}: the files are in order; the agent does not run"
        yield Finding("ok", "plugin", text)
    elif facts.plugin_dir.readable and not facts.plugin_problems and facts.config.updates is None:
        yield _no_plugin(facts)


def _no_plugin(facts: Facts) -> Finding:
    todo = "put NN-name.wasm there, such as 10-device-injector.wasm; it is taken up at once"
    return Finding("warn", "plugin", f"{facts.plugin_dir.path} has no plugin", todo)


def _plugins_by_status(facts: Facts, status: Record) -> Iterator[Finding]:
    entries = records(status, "plugins")
    running: dict[str, None] = {}
    for entry in entries:
        name = _name(entry)
        if name in facts.plugin_problems:
            continue  # told by its file
        state = str(entry.get("status"))
        level, todo = _PLUGIN_STATES.get(state, ("warn", _ASK_AGAIN))
        at = f" at {entry['runtime']}" if entry.get("runtime") else ""
        said = entry.get("error") or entry.get("reason")
        reason = f": {said}" if said else ""
        if state == "starting" and entry.get("error"):
            level, todo = _PLUGIN_STATES["backoff"]  # the next attempt of one that fails
        if entry.get("refusing"):
            level, reason = "fail", f", containers are refused{reason}"
        if state in ("running", "probation") and reason and level == "ok":
            level, todo = "warn", _ASK_AGAIN
        if isinstance(lost := entry.get("not_carried"), list) and lost:
            named = ", ".join(map(str, lost))
            text = f"{name}: the runtime{at} does not carry {named}, which the plugin may touch"
            yield Finding("warn", "plugin", text, _DROPS)
        for each in unread if isinstance(unread := entry.get("unread"), list) else ():
            yield Finding("warn", "plugin", f"{name}{at}: [pressure] {each}", _UNREAD)
        if entry.get("running"):
            level, todo = "warn" if level == "ok" else level, todo or _ASK_AGAIN
            reason = f"; still another version than the one that is wanted{reason}"
        if entry.get("mode") == "monitor":
            yield Finding(
                "ok", "plugin", f"{name}{at}: only monitored; it changes and refuses nothing"
            )
        if state == "running" and level == "ok" and not reason:
            running[name] = None
        else:
            todo = todo.replace("NN-name", name)
            yield Finding(level, "plugin", f"{name}: {state}{at}{reason}", todo)
    if running:
        yield Finding("ok", "plugin", f"{', '.join(running)}: running")
    known = {_name(entry) for entry in entries}
    for name in facts.plugins:
        if name not in known:
            text = f"{name}: is in {facts.plugin_dir.path}, and the agent does not have it"
            yield Finding("warn", "plugin", text, f"look again in a few seconds, or {_RESTART}")
    if not entries and not facts.plugins and facts.config.updates is None:
        yield _no_plugin(facts)


def _name(entry: Record) -> str:
    return "-".join(str(entry[key]) for key in ("index", "name") if entry.get(key))


# --- runtimes


def check_sockets(facts: Facts) -> Iterator[Finding]:
    told = runtimes_by_socket(facts)
    for each in facts.sockets:
        entry = told.get(each.path)
        if facts.status is None:
            yield _socket_by_file(each, facts.euid)
        elif entry is None:
            text = f"{each.path} is configured, and the running agent does not look for it"
            yield Finding("warn", "socket", text, _RESTART)
        else:
            yield _socket_by_status(each, entry, facts)
    offered = any(each.get("state") in ("connected", "present") for each in told.values())
    if offered or (facts.status is None and any(each.listening for each in facts.sockets)):
        return
    if facts.runtimes:
        todo = "start one of those below, with NRI switched on; the agent connects by itself"
    else:
        hows = f"containerd: {HOW_CONTAINERD}\nCRI-O: {HOW_CRIO}\nDocker Engine: {HOW_DOCKER}"
        todo = f"none was found: install one and switch NRI on\n{hows}"
    yield Finding("fail", "runtime", "no runtime offers NRI on a configured socket", todo)


def runtimes_by_socket(facts: Facts) -> dict[Path, Record]:
    """The running agent's report about each socket."""
    entries = records(facts.status, "runtimes") if facts.status else []
    return {Path(str(entry.get("socket"))): entry for entry in entries}


def _socket_by_status(seen: SocketFacts, entry: Record, facts: Facts) -> Finding:
    state = entry.get("state")
    if state == "connected":
        nri = entry.get("nri_version") or "of unknown version"
        name = f"{entry.get('name') or 'a runtime'} {entry.get('version') or ''}".rstrip()
        return Finding("ok", "socket", f"the agent serves {name}, NRI {nri} on {seen.path}")
    trouble = _socket_trouble(seen, facts.euid)
    if trouble is not None:
        return trouble
    if state == "present":
        if not records(facts.status or {}, "plugins"):
            if seen.by_name:  # the agent has not connected either
                text, todo = _one_of_that_name(seen), "with a first plugin the agent connects there"
                return Finding("warn", "socket", text, f"{todo}: put one there, and look again")
            text = f"a runtime is at {seen.path}; without a plugin nothing is registered there"
            return Finding("ok", "socket", text)
        text = f"a runtime is at {seen.path}, and no plugin is registered there"
        return Finding("warn", "socket", text, _ASK_AGAIN)
    reason = entry.get("reason") or "for a reason that it does not tell"
    text = f"the agent is not connected to {seen.path}: {reason}"
    return Finding("warn", "socket", text, "restart the runtime that made the socket")


def _socket_by_file(seen: SocketFacts, euid: int) -> Finding:
    """The sockets while no agent runs."""
    trouble = _socket_trouble(seen, euid)
    if trouble is not None:
        return trouble
    if seen.by_name:
        todo = "which of them, this kernel does not tell: start the agent, and look again"
        return Finding("warn", "socket", _one_of_that_name(seen), todo)
    return Finding("ok", "socket", f"a runtime listens on {seen.path}")


def _one_of_that_name(seen: SocketFacts) -> str:
    return f"somebody listens on {seen.path}, or on another file of that name"


def _socket_trouble(seen: SocketFacts, euid: int) -> Finding | None:
    """Why no runtime can be reached at a socket, whether an agent runs or not."""
    if not seen.exists:
        return Finding("ok", "socket", f"{seen.path} is not there; the agent waits for it")
    if not seen.is_socket:
        todo = "remove it, or take it out of [nri] sockets"
        return Finding("fail", "socket", f"{seen.path} is not a socket", todo)
    if not seen.permitted:
        todo = "run the agent as root" if euid else "see what confines root here (container, LSM)"
        return Finding("fail", "socket", f"{seen.path} may not be opened", todo)
    if seen.elsewhere:
        text = f"nobody listens on {seen.path}: who listens on that name has another file there"
        todo = "the runtime sees other folders than this (a container): mount its folder here"
        return Finding("warn", "socket", text, todo)
    if not seen.listening:
        todo = "start the runtime that made it (in a container: from the host's network)"
        return Finding("warn", "socket", f"nobody is seen to listen on {seen.path}", todo)
    return None


# --- the broker


def check_mqtt(facts: Facts) -> Iterator[Finding]:
    mqtt = facts.status.get("mqtt") if facts.status else None
    if facts.config.mqtt is None:
        if isinstance(mqtt, dict):
            yield Finding("warn", "mqtt", "not configured, and the agent uses a broker", _RESTART)
        else:
            yield Finding("ok", "mqtt", "not configured: the agent works alone")
        return
    if isinstance(mqtt, dict):
        yield _link(mqtt)
    elif facts.status is not None:
        yield Finding("warn", "mqtt", "configured, and the agent uses no broker", _RESTART)
    for url, problem in facts.brokers.items():
        if problem is not None:
            todo = "check network, url and TLS files; results wait in the agent meanwhile"
            yield Finding("fail", "mqtt", f"{url}: {problem}", todo)
        elif isinstance(mqtt, dict):
            yield Finding("ok", "mqtt", f"{url} takes connections; the line above tells the rest")
        else:
            text = f"{url} takes connections; whether it lets this node in is not known"
            yield Finding("warn", "mqtt", text, "start the agent, and look again")
    if isinstance(mqtt, dict):
        yield from _outbox(mqtt, facts)
    yield from _certificate(facts)


def _certificate(facts: Facts) -> Iterator[Finding]:
    """The node's certificate; the link reports one that is unreadable or none."""
    found, mqtt = facts.certificate, facts.config.mqtt
    if found is None or mqtt is None or mqtt.cert_file is None:
        return
    file = mqtt.cert_file
    told = found.ending(facts.now)
    if not told:
        yield Finding("ok", "mqtt", f"{file} counts until {written(found.expires)}")
        return
    todo = f"whoever has the fleet's authority: `configs/mosquitto/certificate renew {file.stem}`"
    level: Level = "fail" if found.over(facts.now) else "warn"
    yield Finding(level, "mqtt", f"{file} {told}", f"{todo}, and the new file in its place here")


def _link(mqtt: Record) -> Finding:
    """The agent's connection to the broker."""
    state, broker, trouble = (mqtt.get(key) for key in ("state", "broker", "last_error"))
    if state == "connected":
        if trouble:
            todo = "the broker's access list, or its limits, forbid what the agent does"
            return Finding("warn", "mqtt", f"connected to {broker}; {trouble}", todo)
        return Finding("ok", "mqtt", f"connected to {broker}, MQTT {mqtt.get('protocol')}")
    if not trouble:
        text = f"{state}, {broker}: no connection so far"
        return Finding("warn", "mqtt", text, "look again in a few seconds")
    text = f"not connected ({state}): {trouble}"
    todo = "results wait in the agent; check username, password_file, TLS files and url in [mqtt]"
    return Finding("fail", "mqtt", text, todo)


def _outbox(mqtt: Record, facts: Facts) -> Iterator[Finding]:
    """The queue of results."""
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
    if mqtt.get("streams_cut"):
        text = "the agent before this one was cut short: its newest results may be lost"
        todo = 'find out what ended it; durability = "always" in [mqtt] loses nothing to a SIGKILL'
        yield Finding("warn", "mqtt", text, todo)


# --- the fleet


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
        if facts.status is not None:
            text = "configured, and the agent takes no updates"
            yield Finding("warn", "updates", text, _RESTART)
        return
    if updates.get("trouble"):
        yield Finding("fail", "updates", str(updates["trouble"]))
    generation = updates.get("generation")
    text = f"runs generation {generation}" if generation else "nothing was deployed here so far"
    yield Finding("ok", "updates", text)
    trust = updates.get("trust")
    yield from _trust_ending(trust, facts.now)
    for what, told in (("deployment", updates), ("trust", trust)):
        refused = told.get("refused") if isinstance(told, dict) else None
        if isinstance(refused, dict):
            text = f"refuses the broker's {what}: {refused.get('text')}"
            yield Finding("warn", "updates", text, "the operator's `edge-agent fleet nodes` tells")
    for digest, reason in _texts(updates.get("rejected")):
        todo = (
            "the operator may let it be tried again:"
            " `edge-agent fleet request NODE unquarantine --arg plugin=NN-name`"
        )
        yield Finding("warn", "updates", f"rejects {digest[:19]}: {reason}", todo)


def _trust_ending(trust: object, now: float) -> Iterator[Finding]:
    """The validity of the trusted keys by the agent's report, whose clock may be better."""
    if not isinstance(trust, dict) or not isinstance(trust.get("expires"), int):
        return
    todo = "whoever has the fleet's keys: `edge-agent fleet trust renew`; what runs goes on"
    if trust.get("expired"):
        text = "the trusted keys expired: no new deployment is taken"
        yield Finding("fail", "updates", text, todo)
    elif told := Validity(int(trust.get("issued", 0)), trust["expires"]).ending(now):
        yield Finding("warn", "updates", f"the set of trusted keys {told}", todo)


def records(record: Record, key: str) -> list[Record]:
    """The objects in a list of an answer, which may be of another version."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(told: object) -> Iterator[tuple[str, str]]:
    for key, value in told.items() if isinstance(told, dict) else ():
        yield str(key), str(value)
