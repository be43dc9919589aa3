"""The second act: a fleet of three boards, and what its operator sends them.

Each function plays one scene on a `FleetStage` and says what had to come out.
"""

from collections.abc import Callable

from edge_agent.operator.view import Node, View
from edge_agent.sim.board import WAIT_S, Board
from edge_agent.sim.cast import CONFIGS, GUARD, STUCK, another_build, module
from edge_agent.sim.fleetstage import NODES, FleetStage
from edge_agent.sim.scene import MIB, Line, Scene, Tone
from edge_agent.sim.tally import Tally

INDEX = "50"
GOOD, BAD, BETTER = "1.0.0", "1.1.0", "1.2.0"
COLUMNS = ("the operator", "the boards", "over MQTT")
PLUGIN = f"""
[[plugins]]
name = "{GUARD}"
index = "{INDEX}"
config = '''
{CONFIGS[GUARD]}'''
failure_policy = "Ignore"
permissions = ["linux.resources"]
limits = {{ deadline = "150ms" }}

[[plugins.releases]]
version = "{GOOD}"
"""
LIMIT = 64 * MIB
CONTAINERS = 3  # on each board while the broker is off
ENOUGH = 6  # containers, to end a probation


def a_fleet_begins(stage: FleetStage, tally: Tally) -> Scene:
    """Keys, a folder, a first deployment."""
    scene = Scene(
        "A fleet begins",
        "Three boards know one public key. The operator publishes a plugin and deploys it: one "
        "signed document, which each board checks before anything else.",
        columns=COLUMNS,
    )
    stage.start()
    stage.wait(lambda view: view.online == len(NODES), "the boards")
    published = stage.fleet.publish(stage.module(GUARD, module(GUARD)), GUARD, GOOD)
    folder = stage.fleet.folder
    folder.write(folder.deployment_file, folder.deployment_file.read_text() + PLUGIN)
    prepared = stage.fleet.deploy(first=True)
    scene.asked += [
        Line("keygen, init", Tone.HEAD),
        Line(f"publish {GUARD} {GOOD}", Tone.HEAD),
        Line(f"{published.packed_bytes / 1024:.1f} KiB in {published.parts} part", indent=1),
        Line("deploy", Tone.HEAD),
        Line(f"generation {prepared.deployment.generation}", indent=1),
    ]
    view = stage.wait(lambda view: running(view, GOOD) == set(NODES), f"{GOOD} on each board")
    limits = {node: _container(board, tally, "first") for node, board in stage.boards.items()}
    for node in NODES:
        scene.answered += [
            Line(node, Tone.HEAD),
            Line(f"limit {limits[node] // MIB} MiB", Tone.GOOD, 1),
        ]
    scene.heard += _told(view)
    kept = running(view, GOOD)
    scene.claim("each board runs it", kept == set(NODES), kept)
    scene.claim("each sets its limit", set(limits.values()) == {LIMIT}, limits)
    scene.outcome = Line("three boards run what was signed", Tone.GOOD)
    return scene


def a_bad_version_goes_back(stage: FleetStage, tally: Tally) -> Scene:
    """A canary, and its rollback without anybody's help."""
    canary, percent = stage.canary(GUARD, BAD)
    scene = Scene(
        "A bad version reaches one board, and goes back by itself",
        f"{BAD} loops for ever. It is for {percent} % of the boards, which is {canary} alone. New "
        "releases are on probation: the first failure brings the one before back.",
        columns=COLUMNS,
    )
    stage.fleet.publish(stage.module("bad", module(STUCK)), GUARD, BAD)
    prepared = stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BAD, percent))
    scene.asked += [
        Line(f"publish {GUARD} {BAD}", Tone.HEAD),
        Line(f"rollout --percent {percent}", Tone.HEAD),
        Line(f"plan: {len(prepared.changes)} board changes", indent=1),
    ]
    stage.wait(
        lambda view: version(view.nodes.get(canary)) == (BAD, "probation"), f"{BAD} on {canary}"
    )
    limits = {node: _container(board, tally, "canary") for node, board in stage.boards.items()}
    view = stage.wait(
        lambda view: running(view, GOOD) == set(NODES) and _rejected(view) == {canary},
        f"{canary} to go back",
    )
    after = _container(stage.boards[canary], tally, "afterwards")
    for node in NODES:
        told = f"limit {limits[node] // MIB} MiB" if limits[node] else f"{BAD} is cut off"
        scene.answered += [
            Line(node, Tone.HEAD),
            Line(told, Tone.GOOD if limits[node] else Tone.BAD, 1),
        ]
    scene.answered += [Line(f"next: limit {after // MIB} MiB", Tone.GOOD, 1)]
    scene.heard += _told(view)
    untouched = {limits[node] for node in NODES if node != canary}
    scene.claim("the others never met it", untouched == {LIMIT}, limits)
    scene.claim("the canary's container was created all the same", canary in limits)
    scene.claim(f"{GOOD} is back", after == LIMIT, after)
    scene.claim("the canary says why", _reason(view, canary), _reason(view, canary))
    scene.heard += [
        Line(f"{canary} rejects {BAD}", Tone.BAD),
        Line(_reason(view, canary)[:60], Tone.QUIET, 1),
    ]
    scene.outcome = Line(
        f"{canary} went back to {GOOD} and says why; two boards never noticed", Tone.GOOD
    )
    return scene


def a_good_version_reaches_all(stage: FleetStage, tally: Tally) -> Scene:
    """Canary, then everywhere."""
    canary, percent = stage.canary(GUARD, BETTER)
    scene = Scene(
        "A good version reaches all",
        f"{BETTER} first for {canary}; when it has proven itself there, for everybody.",
        columns=COLUMNS,
    )
    better = another_build(module(GUARD), BETTER)
    stage.fleet.publish(stage.module("better", better), GUARD, BETTER)
    stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BETTER, percent))
    stage.wait(lambda view: version(view.nodes.get(canary))[0] == BETTER, f"{BETTER} on {canary}")
    _containers(stage.boards[canary], tally, "proof", ENOUGH)
    stage.wait(lambda view: running(view, BETTER) == {canary}, f"{BETTER} to be kept on {canary}")
    prepared = stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BETTER, 100))
    stage.wait(
        lambda view: all(version(view.nodes.get(node))[0] == BETTER for node in NODES),
        f"{BETTER} everywhere",
    )
    for node, board in stage.boards.items():
        if node != canary:
            _containers(board, tally, "proof", ENOUGH)
    view = stage.wait(lambda view: running(view, BETTER) == set(NODES), f"{BETTER} to be kept")
    scene.asked += [
        Line(f"publish {GUARD} {BETTER}", Tone.HEAD),
        Line(f"rollout --percent {percent}", Tone.HEAD),
        Line("rollout --advance", Tone.HEAD),
        Line(f"generation {prepared.deployment.generation}", indent=1),
    ]
    for node in NODES:
        word = "proves it first" if node == canary else "follows"
        scene.answered += [Line(node, Tone.HEAD), Line(word, Tone.GOOD, 1)]
    scene.heard += _told(view)
    scene.claim(
        "each board has kept it", running(view, BETTER) == set(NODES), running(view, BETTER)
    )
    scene.outcome = Line("three boards run it, no agent was restarted", Tone.GOOD)
    return scene


def the_broker_goes_and_comes(stage: FleetStage, tally: Tally) -> Scene:
    """Boards work alone; nothing is lost."""
    scene = Scene(
        "The broker is switched off, and on again",
        "Boards go on without it, results wait on their disks and arrive afterwards, each of them.",
        columns=COLUMNS,
    )
    stage.switch_broker_off()
    limits = [
        limit
        for board in stage.boards.values()
        for limit in _containers(board, tally, "alone", CONTAINERS)
    ]
    stage.switch_broker_on()
    scene.asked += [Line("the broker is off", Tone.BAD), Line("the broker is on", Tone.GOOD)]
    scene.answered += [
        Line(f"{len(limits)} containers meanwhile", Tone.HEAD),
        Line(f"each with its limit of {LIMIT // MIB} MiB", Tone.GOOD, 1),
    ]
    arrived = {}
    for node, heard in stage.listeners.items():
        heard.wait_for(lambda heard=heard: _alone(heard) >= CONTAINERS, WAIT_S)  # type: ignore[misc]
        arrived[node] = _alone(heard)
        scene.heard += [
            Line(node, Tone.HEAD),
            Line(f"{arrived[node]} results of that time", Tone.GOOD, 1),
            Line(f"{len(heard.gaps())} missing", Tone.GOOD if not heard.gaps() else Tone.BAD, 1),
        ]
    scene.claim("every container has its limit", set(limits) == {LIMIT}, limits)
    scene.claim("every result arrives", set(arrived.values()) == {CONTAINERS}, arrived)
    gaps = {node: heard.gaps() for node, heard in stage.listeners.items()}
    scene.claim("none is missing", not any(gaps.values()), gaps)
    view = stage.wait(lambda view: running(view, BETTER) == set(NODES), "the boards to be back")
    scene.claim("all are back", view.online == len(NODES), view.online)
    scene.outcome = Line("nothing was lost", Tone.GOOD)
    return scene


Play = Callable[[FleetStage, Tally], Scene]

SCENES: tuple[Play, ...] = (
    a_fleet_begins,
    a_bad_version_goes_back,
    a_good_version_reaches_all,
    the_broker_goes_and_comes,
)
"""In this order, on one stage. Each may raise StageError."""


# --- what nodes say


def version(node: Node | None) -> tuple[str, str]:
    """(version, status) of the plugin on a node, empty before it has one."""
    for plugin in node.plugins if node is not None else ():
        if plugin.identity == f"{INDEX}-{GUARD}":
            return plugin.version, plugin.status
    return "", ""


def running(view: View, wanted: str) -> set[str]:
    """The nodes that run this version and have kept it."""
    return {name for name, node in view.nodes.items() if version(node) == (wanted, "running")}


def _rejected(view: View) -> set[str]:
    return {name for name, node in view.nodes.items() if node.rejected}


def _reason(view: View, node: str) -> str:
    return next(iter(view.nodes[node].rejected.values()), "")


def _told(view: View) -> list[Line]:
    lines = []
    for node in NODES:
        found, status = version(view.nodes.get(node))
        lines += [Line(node, Tone.HEAD), Line(f"{found} {status}", Tone.GOOD, 1)]
    return lines


def _alone(heard: object) -> int:
    about = heard.about("alone", "CreateContainer")  # type: ignore[attr-defined]
    return sum(record["outcome"] == "adjusted" for record in about)


# --- what boards do


def _container(board: Board, tally: Tally, pod: str) -> int:
    """One container in a pod of its own; its memory limit in bytes, 0 without."""
    return _containers(board, tally, pod, 1)[0]


def _containers(board: Board, tally: Tally, pod_name: str, count: int) -> list[int]:
    pod = board.runtime.run_pod(pod_name)
    tally.outcomes.append(pod)
    limits = []
    for number in range(count):
        outcome = board.runtime.create_container(pod.pod, f"app-{number}")
        tally.outcomes.append(outcome)
        limits.append(outcome.container.linux.resources.memory.limit.value if outcome.ok else -1)
    return limits
