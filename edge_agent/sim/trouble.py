"""The scenes in which a plugin is replaced and in which one never returns."""

import time

from edge_agent.sim.board import WAIT_S
from edge_agent.sim.cast import (
    CONFIGS,
    DIGEST_CHARS,
    GUARD,
    IDENTITIES,
    STUCK,
    STUCK_IDENTITY,
    another_build,
    digest,
    module,
)
from edge_agent.sim.scene import MIB, Line, Scene, Tone, milliseconds, result_lines
from edge_agent.sim.stage import Stage
from edge_agent.sim.tally import Tally

NEW_GUARD_CONFIG = CONFIGS[GUARD].replace("64Mi", "96Mi")
OLD_LIMIT, NEW_LIMIT = 64 * MIB, 96 * MIB

STUCK_DEADLINE_S = 0.15
STUCK_SETTINGS = (
    f'failure_policy = "Ignore"\n[limits]\ndeadline = "{STUCK_DEADLINE_S * 1000:.0f}ms"\n'
)

ENOUGH = 10  # containers before the replacement, and after it
TOO_MANY = 3000  # containers; the new version would have to come long before
PAUSE_S = 0.02  # between two containers: a busy board, and a number that people can read


def a_plugin_is_replaced(stage: Stage, tally: Tally) -> Scene:
    """Make before break: no container goes without, none meets both."""
    scene = Scene(
        "A plugin is replaced while containers are created",
        "resource-guard gets a new file with another default; nothing is restarted.",
    )
    old, new = module(GUARD), another_build(module(GUARD), "2")
    pod = stage.runtime.run_pod("jobs").pod
    limits: list[int] = []
    while limits.count(NEW_LIMIT) < ENOUGH and len(limits) < TOO_MANY:
        if len(limits) == ENOUGH:
            stage.board.put(IDENTITIES[GUARD], new, NEW_GUARD_CONFIG)
        outcome = stage.runtime.create_container(pod, f"job-{len(limits)}")
        tally.outcomes.append(outcome)
        limits.append(outcome.container.linux.resources.memory.limit.value)
        time.sleep(PAUSE_S)
    before, after = limits.count(OLD_LIMIT), limits.count(NEW_LIMIT)
    scene.asked += [
        Line("pod default/jobs", Tone.HEAD),
        Line(f"{len(limits)} containers, one after the other, without limits", indent=1),
    ]
    for label, build, count, limit in (
        ("old", old, before, OLD_LIMIT),
        ("new", new, after, NEW_LIMIT),
    ):
        scene.answered += [
            Line(f"{label} version {digest(build)}", Tone.HEAD),
            Line(f"{count} containers", indent=1),
            Line(f"+ memory limit: {limit // MIB}MiB", Tone.GOOD, 1),
        ]
    scene.claim("the new version answers", after >= ENOUGH, after)
    scene.claim("every container has a limit", before + after == len(limits), limits)
    scene.claim("the old never answers after the new", sorted(limits) == limits, limits)
    _hear_versions(stage, scene, len(limits))
    scene.outcome = Line(
        f"{len(limits)} containers created, {len(limits) - before - after} without a limit",
        Tone.GOOD,
    )
    tally.outcomes.append(stage.runtime.stop_pod(pod))
    return scene


def _hear_versions(stage: Stage, scene: Scene, containers: int) -> None:
    heard = stage.listener

    def adjusted() -> list[str]:
        records = heard.about("jobs", "CreateContainer")
        return [
            record["version"].removeprefix("sha256:")[:DIGEST_CHARS]
            for record in records
            if record["plugin"] == IDENTITIES[GUARD] and record["outcome"] == "adjusted"
        ]

    complete = heard.wait_for(lambda: len(adjusted()) == containers, WAIT_S)
    versions = adjusted()
    scene.claim("each container has one result over MQTT", complete, f"{len(versions)} results")
    scene.heard.append(Line(f"results  {IDENTITIES[GUARD]}", Tone.HEAD))
    for version in dict.fromkeys(versions):
        text = f"{versions.count(version)} by {version}"
        scene.heard.append(Line(text, Tone.GOOD, 1))
    new = digest(another_build(module(GUARD), "2"))
    told = heard.wait_for(lambda: _state_digest(stage, GUARD) == new, WAIT_S)
    scene.heard += [
        Line("state", Tone.HEAD),
        Line(f"runs {_state_digest(stage, GUARD)}", Tone.GOOD, 1),
    ]
    scene.claim("the state names the new version", told, _state_digest(stage, GUARD))


def a_plugin_never_returns(stage: Stage, tally: Tally) -> Scene:
    """The agent answers in time, whatever the guest does."""
    scene = Scene(
        "A plugin never returns",
        f"A new plugin loops for ever. It has {STUCK_DEADLINE_S * 1000:.0f} ms for a call, and "
        "by its policy (Ignore) containers go on without it.",
    )
    stage.board.put(STUCK_IDENTITY, module(STUCK), settings=STUCK_SETTINGS)
    stage.board.wait_for_plugins(*IDENTITIES, STUCK)
    pod = stage.runtime.run_pod("patient").pod
    scene.asked.append(Line("pod default/patient", Tone.HEAD))
    outcomes = []
    for number in range(2):
        outcome = stage.runtime.create_container(pod, f"app-{number}")
        outcomes.append(outcome)
        scene.asked.append(Line(f"container app-{number}", indent=1))
        scene.answered.append(Line(f"container app-{number}", Tone.HEAD))
        for answer in outcome.by(STUCK):
            scene.answered.append(
                Line(f"{answer.plugin}  {milliseconds(answer.latency_s)}", Tone.PLAIN, 1)
            )
            word = "cut off" if answer.latency_s >= STUCK_DEADLINE_S else "answered by its policy"
            scene.answered.append(Line(word, Tone.BAD, 2))
        scene.answered.append(Line("the others as ever", Tone.GOOD, 1))
    tally.outcomes += outcomes
    scene.claim("both containers are created", all(outcome.ok for outcome in outcomes))
    scene.claim(
        "both have their limits",
        [o.container.linux.resources.memory.limit.value for o in outcomes] == [NEW_LIMIT] * 2,
    )
    scene.claim(
        "the runtime dropped nobody",
        not any(answer.dropped for o in outcomes for answer in o.answers),
        stage.runtime.dropped,
    )
    _hear_the_cut(stage, scene)
    scene.outcome = Line("2 containers created, the plugin is taken away again", Tone.GOOD)
    stage.board.take_away(STUCK_IDENTITY)
    stage.board.wait_for_plugins(*IDENTITIES)
    return scene


def _hear_the_cut(stage: Stage, scene: Scene) -> None:
    heard = stage.listener

    def cut() -> list[dict[str, object]]:
        return [
            record
            for record in heard.about("patient", "CreateContainer")
            if record["plugin"] == STUCK_IDENTITY and record["outcome"] == "timeout"
        ]

    scene.claim("the time-out arrives over MQTT", heard.wait_for(cut, WAIT_S))
    scene.heard += result_lines(cut()[:1])


def _state_digest(stage: Stage, name: str) -> str:
    state = stage.listener.states[-1]
    digests = [p["digest"] for p in state["plugins"] if p["name"] == name]
    return digests[-1].removeprefix("sha256:")[:DIGEST_CHARS] if digests else "none"
