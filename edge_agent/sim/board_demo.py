"""The demonstration's first act: one small board in a greenhouse.

Each function plays one scene and checks what must come out. A pod's name is used in one scene
only, so that its results are found by the name.
"""

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.sim.board import (
    GUARD,
    INJECTOR,
    LOGGER,
    STUCK,
    Board,
    Listener,
    Record,
    another_build,
    module,
    temporary_folder,
)
from edge_agent.sim.broker import Broker
from edge_agent.sim.demo_view import (
    BAD,
    GOOD,
    QUIET,
    Scene,
    milliseconds,
    show_answer,
    show_results,
)
from edge_agent.sim.plugin_connection import Outcome

FLEET, NODE = "demo", "greenhouse-7"
MIB = 1 << 20
DIGEST_CHARS = 8  # enough to tell versions apart

IDENTITIES = {INJECTOR: "10-device-injector", GUARD: "50-resource-guard", LOGGER: "90-event-logger"}
# No placeholder is registered while a plugin is compiled: the scenes count what is registered.
SETTINGS = 'failure_policy = "Ignore"\n'
CONFIGS = {
    INJECTOR: "device c 89:* /dev/i2c-*\ndevice c 254:* /dev/gpiochip*\n",
    GUARD: "[default]\nmemory.default = 64Mi\nmemory.maximum = 512Mi\npids.default = 128\n",
    LOGGER: "log = info\nreport = on\n",
}
ANNOTATION = "devices.noderesource.dev/container.{}"

OLD_LIMIT, NEW_LIMIT = 64 * MIB, 96 * MIB
STUCK_IDENTITY = "70-stuck"
STUCK_DEADLINE_S = 0.15
STUCK_SETTINGS = f'{SETTINGS}[limits]\ndeadline = "{STUCK_DEADLINE_S * 1000:.0f}ms"\n'
ENOUGH = 10  # containers before the replacement, and after it
TOO_MANY = 3000  # containers; the new version has to answer long before
PAUSE_S = 0.02  # between two containers: a busy board, and a number that people can read


@dataclass
class Stage:
    """One board, what it reports, and what its runtime got for an answer."""

    board: Board
    listener: Listener
    outcomes: list[Outcome] = field(default_factory=list)

    def figures(self) -> list[tuple[str, str]]:
        """The whole act in numbers: name and value."""
        heard = self.listener
        kinds = Counter(record["outcome"] for record in heard.results)
        memory = heard.states[-1]["memory"] if heard.states else {}
        latencies = [answer.latency_s for each in self.outcomes for answer in each.answers]
        hundredths = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
        median, most = milliseconds(hundredths[49]), milliseconds(hundredths[98])
        return [
            ("events answered", f"{len(latencies)} by the plugins, as measured in the runtime"),
            ("time for an answer", f"median {median}, 99 of 100 within {most}"),
            (
                "results over MQTT",
                f"{len(heard.results)} in {heard.messages} messages, {len(heard.gaps())} missing",
            ),
            ("of these", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
            ("memory of the agent", f"{memory.get('pss', 0) / MIB:.0f} MiB (PSS)"),
        ]


@contextmanager
def stage() -> Iterator[Stage]:
    """A board and a broker in a temporary folder; nothing is left behind."""
    topics = node_topics(FLEET, NODE)
    with (
        temporary_folder() as folder,
        Broker() as broker,
        Listener(broker.port, topics) as listener,
        Board(Path(folder) / "board", NODE, FLEET, broker.port) as board,
    ):
        yield Stage(board, listener)


# --- the scenes


def the_board_starts(stage: Stage) -> Scene:
    scene = Scene(
        "The board starts",
        "A runtime listens on a socket; the agent finds it, loads three plugins and registers "
        "each of them under its own name.",
    )
    for name, identity in IDENTITIES.items():
        stage.board.put(identity, module(name), CONFIGS[name], SETTINGS)
    stage.board.start_agent()
    for plugin in stage.board.wait_for_plugins(*IDENTITIES):
        scene.asked.add(plugin.identity, "configure", "synchronize")
        count = plugin.events.bit_count()
        scene.answered.add(
            plugin.identity,
            f"a module of {len(module(plugin.name)) / 1024:.0f} KiB",
            f"subscribes to {count} event{'s' * (count != 1)}",
        )
    heard = stage.listener

    def running() -> set[str]:
        return {each["name"] for each in heard.plugins() if each["status"] == "running"}

    online = heard.wait_for(
        lambda: heard.statuses[-1:] == ["online"] and running() == set(IDENTITIES)
    )
    scene.reported.add("status", " ".join(heard.statuses), style=GOOD)
    scene.reported.add("state")
    for name in sorted(running()):
        scene.reported.item(f"{name} runs", GOOD)
    scene.check("status and state arrive over MQTT", online, heard.statuses)
    scene.outcome = "three plugins are served", GOOD
    return scene


def a_sensor_needs_its_bus(stage: Stage) -> Scene:
    scene = Scene(
        "A sensor pod needs its bus",
        "Annotations name the I2C bus and the GPIO chip that its container needs.",
    )
    devices = [("/dev/i2c-1", "89", "1"), ("/dev/gpiochip0", "254", "0")]
    outcome = _one_container(stage, scene, "sensor", "reader", devices)
    paths = [device.path for device in outcome.container.linux.devices]
    scene.check("the container is created", outcome.ok, outcome.error)
    scene.check("it has both devices", paths == [path for path, _, _ in devices], paths)
    return scene


def a_greedy_pod(stage: Stage) -> Scene:
    scene = Scene(
        "A greedy pod",
        "It asks for 4 GiB on a small board and sets no limit for processes.",
    )
    outcome = _one_container(stage, scene, "greedy", "cache", memory_bytes=4096 * MIB)
    resources = outcome.container.linux.resources
    memory, processes = resources.memory.limit.value, resources.pids.limit
    scene.check("the container is created", outcome.ok, outcome.error)
    scene.check("it has 512 MiB", memory == 512 * MIB, memory)
    scene.check("it has 128 processes", processes == 128, processes)
    return scene


def a_mistake_in_an_annotation(stage: Stage) -> Scene:
    scene = Scene(
        "A mistake in an annotation",
        "A device's number is a word: the container must not start without the device.",
    )
    outcome = _one_container(stage, scene, "typo", "reader", [("/dev/i2c-1", "ten", "1")])
    told = "line 3: major is ten"
    scene.check("the container is refused", not outcome.ok)
    scene.check("the error names the line and the word", told in outcome.error, outcome.error)
    heard = stage.listener

    def logged() -> list[Record]:
        return [record for record in list(heard.logs) if "major is ten" in record["message"]]

    scene.check("the error is in the log over MQTT", heard.wait_for(logged))
    for record in logged():
        scene.reported.add(f"log #{record['seq']}")
    scene.reported.item("the same text", BAD)
    return scene


def a_plugin_is_replaced(stage: Stage) -> Scene:
    """Each container meets exactly one version."""
    scene = Scene(
        "A plugin is replaced while containers are created",
        "resource-guard gets a new file with another default; nothing is restarted.",
    )
    old, new = module(GUARD), another_build(module(GUARD), "2")
    runtime = stage.board.runtime
    pod = runtime.run_pod("jobs").pod
    limits: list[int] = []
    while limits.count(NEW_LIMIT) < ENOUGH and len(limits) < TOO_MANY:
        if len(limits) == ENOUGH:
            stage.board.put(IDENTITIES[GUARD], new, CONFIGS[GUARD].replace("64Mi", "96Mi"))
        outcome = runtime.create_container(pod, f"job-{len(limits)}")
        stage.outcomes.append(outcome)
        limits.append(outcome.container.linux.resources.memory.limit.value)
        time.sleep(PAUSE_S)
    before, after = limits.count(OLD_LIMIT), limits.count(NEW_LIMIT)
    scene.asked.add(
        "pod default/jobs", f"{len(limits)} containers, one after the other, without limits"
    )
    for label, build, count, limit in (
        ("old", old, before, OLD_LIMIT),
        ("new", new, after, NEW_LIMIT),
    ):
        scene.answered.add(f"{label} version {_digest(build)}", f"{count} containers")
        scene.answered.item(f"+ memory limit: {limit // MIB}MiB", GOOD)
    scene.check("the new version answers", after >= ENOUGH, after)
    scene.check("every container has a limit", before + after == len(limits), limits)
    scene.check("the old never answers after the new", sorted(limits) == limits, limits)

    heard = stage.listener

    def versions() -> list[str]:
        return [
            _short(record["version"])
            for record in heard.about("jobs", "CreateContainer")
            if record["plugin"] == IDENTITIES[GUARD] and record["outcome"] == "adjusted"
        ]

    def reported() -> list[str]:
        return [_short(each["digest"]) for each in heard.plugins() if each["name"] == GUARD]

    complete = heard.wait_for(lambda: len(versions()) == len(limits))
    told = heard.wait_for(lambda: reported()[-1:] == [_digest(new)])
    found = versions()
    scene.check("each container has one result over MQTT", complete, f"{len(found)} results")
    scene.check("the state names the new version", told, reported())
    scene.reported.add(f"results  {IDENTITIES[GUARD]}")
    for version in dict.fromkeys(found):
        scene.reported.item(f"{found.count(version)} by {version}", GOOD)
    scene.reported.add("state", f"runs {' '.join(reported())}", style=GOOD)
    missing = len(limits) - before - after
    scene.outcome = f"{len(limits)} containers created, {missing} without a limit", GOOD
    stage.outcomes.append(runtime.stop_pod(pod))
    return scene


def a_plugin_never_returns(stage: Stage) -> Scene:
    """The agent answers in time for the guest."""
    scene = Scene(
        "A plugin never returns",
        f"A new plugin loops for ever. It has {STUCK_DEADLINE_S * 1000:.0f} ms for a call, and "
        "by its policy (Ignore) containers are created without it.",
    )
    stage.board.put(STUCK_IDENTITY, module(STUCK), settings=STUCK_SETTINGS)
    stage.board.wait_for_plugins(*IDENTITIES, STUCK)
    runtime = stage.board.runtime
    pod = runtime.run_pod("patient").pod
    scene.asked.add("pod default/patient")
    outcomes = []
    for name in ("app-0", "app-1"):
        outcome = runtime.create_container(pod, name)
        outcomes.append(outcome)
        scene.asked.item(f"container {name}")
        scene.answered.add(f"container {name}")
        for answer in outcome.by(STUCK):
            scene.answered.item(f"{answer.plugin}  {milliseconds(answer.latency_s)}")
            cut = answer.latency_s >= STUCK_DEADLINE_S
            scene.answered.item("cut off" if cut else "answered by its policy", BAD, 2)
        scene.answered.item("the others as before", GOOD)
    stage.outcomes += outcomes
    limits = [each.container.linux.resources.memory.limit.value for each in outcomes]
    dropped = any(answer.dropped for each in outcomes for answer in each.answers)
    scene.check("both containers are created", all(outcome.ok for outcome in outcomes))
    scene.check("both have their limits", limits == [NEW_LIMIT] * 2, limits)
    scene.check("the runtime dropped no plugin", not dropped, runtime.dropped)
    heard = stage.listener

    def timeouts() -> list[Record]:
        return [
            record
            for record in heard.about("patient", "CreateContainer")
            if record["plugin"] == STUCK_IDENTITY and record["outcome"] == "timeout"
        ]

    scene.check("the time-out arrives over MQTT", heard.wait_for(timeouts))
    show_results(scene.reported, timeouts()[:1])
    scene.outcome = "2 containers created, the plugin is taken away again", GOOD
    stage.board.take_away(STUCK_IDENTITY)
    stage.board.wait_for_plugins(*IDENTITIES)
    return scene


def the_board_stops(stage: Stage) -> Scene:
    scene = Scene("The board stops", "SIGTERM: the agent leaves its runtime and its broker.")
    seconds = stage.board.stop_agent()
    heard = stage.listener
    offline = heard.wait_for(lambda: heard.statuses[-1:] == ["offline"])
    scene.asked.add("SIGTERM")
    scene.answered.add(f"ended in {milliseconds(seconds)}", head_style=GOOD)
    scene.reported.add("status", heard.statuses[-1], style=GOOD)
    scene.check("the last status is offline", offline, heard.statuses)
    scene.check("no result is missing", not heard.gaps(), heard.gaps())
    scene.outcome = "nothing is left behind", GOOD
    return scene


SCENES: Sequence[Callable[[Stage], Scene]] = (
    the_board_starts,
    a_sensor_needs_its_bus,
    a_greedy_pod,
    a_mistake_in_an_annotation,
    a_plugin_is_replaced,
    a_plugin_never_returns,
    the_board_stops,
)
"""In this order, on one stage. Each may raise DemoError."""


# --- parts of scenes


def _one_container(
    stage: Stage,
    scene: Scene,
    pod_name: str,
    name: str,
    devices: Sequence[tuple[str, str, str]] = (),
    memory_bytes: int | None = None,
) -> Outcome:
    """Create a pod with one container; show request, answers and results."""
    annotations = {}
    scene.asked.add(f"pod garden/{pod_name}", f"container {name}")
    if devices:
        annotations[ANNOTATION.format(name)] = "".join(
            f"- path: {path}\n  type: c\n  major: {major}\n  minor: {minor}\n"
            for path, major, minor in devices
        )
        scene.asked.item("by annotation", QUIET)
        for path, major, minor in devices:
            scene.asked.item(f"{path} {major}:{minor}")
    if memory_bytes is not None:
        scene.asked.item(f"memory limit {memory_bytes // MIB} MiB")
    pod = stage.board.runtime.run_pod(pod_name, "garden", annotations=annotations)
    outcome = stage.board.runtime.create_container(pod.pod, name, memory_bytes=memory_bytes)
    stage.outcomes += [pod, outcome]
    answers = [answer for answer in outcome.answers if answer.method == "CreateContainer"]
    for answer in answers:
        show_answer(scene.answered, answer)

    def results() -> list[Record]:
        return stage.listener.about(pod_name, "CreateContainer")

    complete = stage.listener.wait_for(lambda: len(results()) == len(answers))
    show_results(scene.reported, results())
    scene.check("each plugin's answer is a result over MQTT", complete, f"{len(results())} results")
    scene.outcome = ("container created", GOOD) if outcome.ok else (outcome.error, BAD)
    return outcome


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]


def _short(digest: str) -> str:
    """Of a digest as it is reported, with its algorithm in front."""
    return digest.removeprefix("sha256:")[:DIGEST_CHARS]
