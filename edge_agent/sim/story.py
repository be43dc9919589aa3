"""The story that the demonstration plays: five pods of a small board in a greenhouse.

Each function plays one scene on a `Stage` and says what had to come out. Names of pods
are those of one scene each, so that results are found by them.
"""

from collections.abc import Callable

from edge_agent.sim.asking import Outcome
from edge_agent.sim.board import WAIT_S
from edge_agent.sim.cast import CONFIGS, IDENTITIES, SETTINGS, module
from edge_agent.sim.scene import MIB, Line, Scene, Tone, answer_lines, milliseconds, result_lines
from edge_agent.sim.stage import Stage
from edge_agent.sim.tally import Tally
from edge_agent.sim.trouble import a_plugin_is_replaced, a_plugin_never_returns

ANNOTATION = "devices.noderesource.dev/container.{}"


def the_board_starts(stage: Stage, _tally: Tally) -> Scene:
    """The agent starts and its plugins register."""
    scene = Scene(
        "The board starts",
        "A runtime listens on a socket; the agent finds it, loads three plugins and registers "
        "each of them under its own name.",
    )
    for name, identity in IDENTITIES.items():
        stage.board.put(identity, module(name), CONFIGS[name], SETTINGS)
    stage.board.start_agent()
    plugins = stage.board.wait_for_plugins(*IDENTITIES)
    for plugin in plugins:
        scene.asked += [
            Line(plugin.identity, Tone.HEAD),
            Line("configure", indent=1),
            Line("synchronize", indent=1),
        ]
        count = bin(plugin.events).count("1")
        scene.answered += [
            Line(plugin.identity, Tone.HEAD),
            Line(f"a module of {len(module(plugin.name)) / 1024:.0f} KiB", indent=1),
            Line(f"subscribes to {count} event{'s' * (count != 1)}", indent=1),
        ]
    heard = stage.listener
    online = heard.wait_for(
        lambda: heard.statuses[-1:] == ["online"] and _running(stage) == set(IDENTITIES), WAIT_S
    )
    scene.heard += [Line("status", Tone.HEAD), Line(" ".join(heard.statuses), Tone.GOOD, 1)]
    scene.heard += [Line("state", Tone.HEAD)]
    scene.heard += [Line(f"{name} runs", Tone.GOOD, 1) for name in sorted(_running(stage))]
    scene.claim("status and state arrive over MQTT", online, heard.statuses)
    scene.outcome = Line("three plugins are served", Tone.GOOD)
    return scene


def a_sensor_wants_its_bus(stage: Stage, tally: Tally) -> Scene:
    """Devices by annotation."""
    scene = Scene(
        "A sensor pod wants its bus",
        "Annotations name the I2C bus and the GPIO chip that its container needs.",
    )
    devices = [("/dev/i2c-1", "89", "1"), ("/dev/gpiochip0", "254", "0")]
    outcome = _one_container(stage, tally, scene, "sensor", "reader", devices)
    paths = [device.path for device in outcome.container.linux.devices]
    scene.claim("the container is created", outcome.ok, outcome.error)
    scene.claim("it has both devices", paths == [path for path, _, _ in devices], paths)
    return scene


def a_greedy_pod(stage: Stage, tally: Tally) -> Scene:
    """A limit above the maximum is lowered, one that is missing is set."""
    scene = Scene(
        "A greedy pod",
        "It asks for 4 GiB of a small board and says nothing of processes.",
    )
    outcome = _one_container(stage, tally, scene, "greedy", "cache", memory_bytes=4096 * MIB)
    resources = outcome.container.linux.resources
    scene.claim("the container is created", outcome.ok, outcome.error)
    scene.claim(
        "it has 512 MiB", resources.memory.limit.value == 512 * MIB, resources.memory.limit.value
    )
    scene.claim("it has 128 processes", resources.pids.limit == 128, resources.pids.limit)
    return scene


def a_mistake_in_an_annotation(stage: Stage, tally: Tally) -> Scene:
    """A plugin refuses, and says why."""
    scene = Scene(
        "A mistake in an annotation",
        "Somebody wrote a word where a number belongs: the container must not start half.",
    )
    outcome = _one_container(stage, tally, scene, "typo", "reader", [("/dev/i2c-1", "ten", "1")])
    scene.claim("the container is refused", not outcome.ok)
    scene.claim(
        "the error names the line and the word",
        "line 3: major is ten" in outcome.error,
        outcome.error,
    )
    logs = stage.listener.logs
    scene.claim(
        "the error is in the log over MQTT",
        stage.listener.wait_for(lambda: any("major is ten" in r["message"] for r in logs), WAIT_S),
    )
    scene.heard += [
        Line(f"log #{record['seq']}", Tone.HEAD)
        for record in logs
        if "major is ten" in record["message"]
    ]
    scene.heard += [Line("the same text", Tone.BAD, 1)]
    return scene


def the_board_stops(stage: Stage, _tally: Tally) -> Scene:
    """SIGTERM."""
    scene = Scene("The board stops", "SIGTERM: the agent leaves its runtime and says goodbye.")
    seconds = stage.board.stop_agent()
    heard = stage.listener
    offline = heard.wait_for(lambda: heard.statuses[-1:] == ["offline"], WAIT_S)
    scene.asked += [Line("SIGTERM", Tone.HEAD)]
    scene.answered += [Line(f"ended in {milliseconds(seconds)}", Tone.GOOD)]
    scene.heard += [Line("status", Tone.HEAD), Line(heard.statuses[-1], Tone.GOOD, 1)]
    scene.claim("the last status is offline", offline, heard.statuses)
    scene.claim("no result is missing", not heard.gaps(), heard.gaps())
    scene.outcome = Line("nothing is left behind", Tone.GOOD)
    return scene


Play = Callable[[Stage, Tally], Scene]

SCENES: tuple[Play, ...] = (
    the_board_starts,
    a_sensor_wants_its_bus,
    a_greedy_pod,
    a_mistake_in_an_annotation,
    a_plugin_is_replaced,
    a_plugin_never_returns,
    the_board_stops,
)
"""In this order, on one stage. Each may raise StageError."""


# --- steps


def _one_container(
    stage: Stage,
    tally: Tally,
    scene: Scene,
    pod_name: str,
    name: str,
    devices: list[tuple[str, str, str]] | None = None,
    memory_bytes: int | None = None,
) -> Outcome:
    """A pod with one container: asked, answered, heard."""
    annotations = {}
    scene.asked.append(Line(f"pod garden/{pod_name}", Tone.HEAD))
    scene.asked.append(Line(f"container {name}", indent=1))
    if devices:
        annotations[ANNOTATION.format(name)] = "".join(
            f"- path: {path}\n  type: c\n  major: {major}\n  minor: {minor}\n"
            for path, major, minor in devices
        )
        scene.asked.append(Line("by annotation", Tone.QUIET, 1))
        scene.asked += [Line(f"{path} {major}:{minor}", indent=1) for path, major, minor in devices]
    if memory_bytes is not None:
        scene.asked.append(Line(f"memory limit {memory_bytes // MIB} MiB", indent=1))
    pod = stage.runtime.run_pod(pod_name, "garden", annotations=annotations)
    outcome = stage.runtime.create_container(pod.pod, name, memory_bytes=memory_bytes)
    tally.outcomes += [pod, outcome]
    scene.answered += answer_lines(outcome)
    asked = sum(answer.method == "CreateContainer" for answer in outcome.answers)

    def results() -> list[dict[str, object]]:
        return stage.listener.about(pod_name, "CreateContainer")

    complete = stage.listener.wait_for(lambda: len(results()) == asked, WAIT_S)
    scene.heard += result_lines(results())
    scene.claim("each plugin's answer is a result over MQTT", complete, f"{len(results())} results")
    scene.outcome = (
        Line("container created", Tone.GOOD) if outcome.ok else Line(outcome.error, Tone.BAD)
    )
    return outcome


def _running(stage: Stage) -> set[str]:
    """The plugins that the last state over MQTT calls running."""
    state = stage.listener.states[-1] if stage.listener.states else {}
    return {p["name"] for p in state.get("plugins", ()) if p["status"] == "running"}
