"""The demonstration's second act: a fleet of three boards and its operator.

Each function plays one scene and checks what must come out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge_agent.config import MqttConfig
from edge_agent.config.model import Broker as Address
from edge_agent.fleet_protocol.deployment import place
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator import folder as folders
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.keyring import Keyring
from edge_agent.operator.node_state import Node
from edge_agent.operator.view import View
from edge_agent.sim.board import (
    GUARD,
    STUCK,
    WAIT_S,
    Board,
    DemoError,
    Listener,
    another_build,
    module,
    temporary_folder,
)
from edge_agent.sim.broker import Broker
from edge_agent.sim.demo_view import BAD, GOOD, QUIET, Column, Scene

FLEET = "demo"
NODES = ("barn-1", "field-2", "greenhouse-7")
KEY = "grower"
MIB = 1 << 20
LIMIT = 64 * MIB
CONTAINERS = 3  # on each board while the broker is off
ENOUGH = 6  # containers, to end a probation
INDEX = "50"
FIRST, BROKEN, BETTER = "1.0.0", "1.1.0", "1.2.0"
COLUMNS = ("the operator", "the boards", "over MQTT")
# A probation of the field lasts minutes; the demonstration has seconds.
UPDATES = """
[updates]
trust_dir = "trust"
probation = "2s"
probation_events = 5
"""
PLUGIN = f"""
[[plugins]]
name = "{GUARD}"
index = "{INDEX}"
config = '''
[default]
memory.default = 64Mi
memory.maximum = 512Mi
pids.default = 128
'''
failure_policy = "Ignore"
permissions = ["linux.resources"]
limits = {{ deadline = "150ms" }}

[[plugins.releases]]
version = "{FIRST}"
"""


class Stage:
    """Three boards, a broker, and an operator's fleet folder; made by `stage`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """What is opened is closed with `stack`."""
        self._broker = ExitStack()
        stack.callback(lambda: self._broker.close())
        self.broker = self._broker.enter_context(Broker())
        port = self.broker.port
        self.listeners = {
            node: stack.enter_context(Listener(port, node_topics(FLEET, node))) for node in NODES
        }
        self.boards = {
            node: stack.enter_context(Board(folder / f"b{number}", node, FLEET, port))
            for number, node in enumerate(NODES)
        }
        self.modules = folder / "modules"
        self.modules.mkdir()
        self._keyring = Keyring(folder / "keys")
        folders.create(
            folder / "fleet",
            name=FLEET,
            url=f"mqtt://127.0.0.1:{port}",
            keys={KEY: self._keyring.generate(KEY)},
            threshold=1,
        )
        mqtt = MqttConfig((Address("127.0.0.1", port, False),), "operator")
        client = stack.enter_context(BrokerClient(mqtt))
        self.fleet = Fleet(folders.find(folder / "fleet"), client, self._keyring)

    def start(self) -> None:
        """Give each board the operator's public key and start its agent."""
        public = self._keyring.public_file(KEY).read_bytes()
        for board in self.boards.values():
            trust = board.folder / "trust"
            trust.mkdir()
            (trust / f"{KEY}.pem").write_bytes(public)
            board.start_agent(UPDATES)

    def wait(self, condition: Callable[[View], object], goal: str) -> View:
        """What the nodes report once that fulfils `condition`. DemoError."""
        topic = self.fleet.nodes_topic
        with self.fleet.client.subscribed((f"{topic}/+/status", f"{topic}/+/state")) as news:
            view, waited_s = View(), 0.0
            while not condition(view):
                message = news.take(1.0)
                if message is not None:
                    view.feed(message)
                    waited_s = 0.0
                    continue
                waited_s += 1.0
                if waited_s > WAIT_S:
                    logs = "".join(board.log_end() for board in self.boards.values())
                    raise DemoError(f"waited for {goal}{logs}")
            return view

    def publish(self, version: str, content: bytes) -> str:
        """Publish a module as a version of the plugin; how much that took, for people."""
        path = self.modules / f"{version}.wasm"
        path.write_bytes(content)
        published = self.fleet.publish(path, GUARD, version)
        return f"{published.packed_bytes / 1024:.1f} KiB in {published.parts} part"

    def canary(self, version: str) -> tuple[str, int]:
        """The node that a rollout of this version reaches first, and the percentage for it."""
        seed = f"{GUARD} {version}"
        first = min(NODES, key=lambda node: place(seed, node))
        return first, place(seed, first) + 1

    def create(self, node: str, pod: str, count: int = 1) -> list[int]:
        """Create containers on a board; their memory limits, 0 without, -1 where one is refused."""
        runtime = self.boards[node].runtime
        inside = runtime.run_pod(pod).pod
        outcomes = [runtime.create_container(inside, f"app-{number}") for number in range(count)]
        return [
            each.container.linux.resources.memory.limit.value if each.ok else -1
            for each in outcomes
        ]

    def switch_broker_off(self) -> None:
        """As a power cut does; retained messages are kept, as on a disk."""
        self._broker.close()

    def switch_broker_on(self) -> None:
        """At the same address as before."""
        before = self.broker
        self._broker = ExitStack()
        self.broker = self._broker.enter_context(Broker(before.port, before.memory))


@contextmanager
def stage() -> Iterator[Stage]:
    """Everything that is started runs until the end; nothing is left behind."""
    with temporary_folder() as folder, ExitStack() as stack:
        yield Stage(Path(folder), stack)


# --- the scenes


def a_fleet_begins(stage: Stage) -> Scene:
    """Keys, a folder, a first deployment."""
    scene = Scene(
        "A fleet begins",
        "Three boards know one public key. The operator publishes a plugin and deploys it: one "
        "signed document, which each board checks before anything else.",
        COLUMNS,
    )
    stage.start()
    stage.wait(lambda view: view.online == len(NODES), "the boards")
    size = stage.publish(FIRST, module(GUARD))
    folder = stage.fleet.folder
    folder.write(folder.deployment_file, folder.deployment_file.read_text() + PLUGIN)
    generation = stage.fleet.deploy(first=True).deployment.generation
    scene.asked.add("keygen, init")
    scene.asked.add(f"publish {GUARD} {FIRST}", size)
    scene.asked.add("deploy", f"generation {generation}")
    view = stage.wait(lambda view: running(view, FIRST) == set(NODES), f"{FIRST} on each board")
    limits = {node: stage.create(node, "first") for node in NODES}
    for node in NODES:
        scene.answered.add(node, f"limit {limits[node][0] // MIB} MiB", style=GOOD)
    _show_versions(scene.reported, view)
    scene.check("each board runs it", running(view, FIRST) == set(NODES), running(view, FIRST))
    scene.check("each sets its limit", all(each == [LIMIT] for each in limits.values()), limits)
    scene.outcome = "three boards run what was signed", GOOD
    return scene


def a_bad_version_goes_back(stage: Stage) -> Scene:
    """A canary, and its rollback without the operator."""
    canary, percent = stage.canary(BROKEN)
    scene = Scene(
        "A bad version reaches one board, and is rolled back",
        f"{BROKEN} loops for ever. It is for {percent} % of the boards, which is {canary} alone. "
        "New releases are on probation: at the first failure the board goes back to the release "
        "before.",
        COLUMNS,
    )
    stage.publish(BROKEN, module(STUCK))
    prepared = stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BROKEN, percent))
    scene.asked.add(f"publish {GUARD} {BROKEN}")
    scene.asked.add(f"rollout --percent {percent}", f"plan: {len(prepared.changes)} board changes")
    stage.wait(lambda view: version(view, canary) == (BROKEN, "probation"), f"{BROKEN} on {canary}")
    limits = {node: stage.create(node, "canary")[0] for node in NODES}
    view = stage.wait(
        lambda view: (
            running(view, FIRST) == set(NODES)
            and {name for name, node in view.nodes.items() if node.rejected} == {canary}
        ),
        f"{canary} to go back",
    )
    [after] = stage.create(canary, "afterwards")
    for node in NODES:
        scene.answered.add(node)
        if limits[node]:
            scene.answered.item(f"limit {limits[node] // MIB} MiB", GOOD)
        else:
            scene.answered.item(f"{BROKEN} is cut off", BAD)
    scene.answered.item(f"next: limit {after // MIB} MiB", GOOD)
    reason = next(iter(view.nodes[canary].rejected.values()), "")
    _show_versions(scene.reported, view)
    scene.reported.add(f"{canary} rejects {BROKEN}", head_style=BAD)
    scene.reported.item(reason[:60], QUIET)
    untouched = {limits[node] for node in NODES if node != canary}
    scene.check("the other boards never run it", untouched == {LIMIT}, limits)
    scene.check("the canary's container is created", limits[canary] >= 0, limits)
    scene.check(f"{FIRST} is back", after == LIMIT, after)
    scene.check("the canary reports why", reason)
    scene.outcome = (
        f"{canary} went back to {FIRST} and reports why; two boards never ran {BROKEN}",
        GOOD,
    )
    return scene


def a_good_version_reaches_all(stage: Stage) -> Scene:
    """The canary first, then every board."""
    canary, percent = stage.canary(BETTER)
    scene = Scene(
        "A good version reaches all",
        f"{BETTER} first for {canary}; after its probation there, for all boards.",
        COLUMNS,
    )
    stage.publish(BETTER, another_build(module(GUARD), BETTER))
    stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BETTER, percent))
    stage.wait(lambda view: version(view, canary)[0] == BETTER, f"{BETTER} on {canary}")
    stage.create(canary, "proof", ENOUGH)
    stage.wait(lambda view: running(view, BETTER) == {canary}, f"{BETTER} to be kept on {canary}")
    prepared = stage.fleet.deploy(stage.fleet.rolled_out(GUARD, BETTER, 100))
    stage.wait(
        lambda view: all(version(view, node)[0] == BETTER for node in NODES), f"{BETTER} everywhere"
    )
    for node in NODES:
        if node != canary:
            stage.create(node, "proof", ENOUGH)
    view = stage.wait(lambda view: running(view, BETTER) == set(NODES), f"{BETTER} to be kept")
    scene.asked.add(f"publish {GUARD} {BETTER}")
    scene.asked.add(f"rollout --percent {percent}")
    scene.asked.add("rollout --advance", f"generation {prepared.deployment.generation}")
    for node in NODES:
        scene.answered.add(node, "proves it first" if node == canary else "follows", style=GOOD)
    _show_versions(scene.reported, view)
    kept = running(view, BETTER)
    scene.check("each board has kept it", kept == set(NODES), kept)
    scene.outcome = "three boards run it, no agent was restarted", GOOD
    return scene


def the_broker_goes_and_comes(stage: Stage) -> Scene:
    """Boards work without a broker; no result is lost."""
    scene = Scene(
        "The broker is switched off, and on again",
        "Boards work without it; results wait on their disks and all of them arrive afterwards.",
        COLUMNS,
    )
    stage.switch_broker_off()
    limits = [limit for node in NODES for limit in stage.create(node, "alone", CONTAINERS)]
    stage.switch_broker_on()
    scene.asked.add("the broker is off", head_style=BAD)
    scene.asked.add("the broker is on", head_style=GOOD)
    scene.answered.add(
        f"{len(limits)} containers meanwhile",
        f"each with its limit of {LIMIT // MIB} MiB",
        style=GOOD,
    )
    scene.check("every container has its limit", set(limits) == {LIMIT}, limits)
    for node, heard in stage.listeners.items():

        def arrived(heard: Listener = heard) -> int:
            about = heard.about("alone", "CreateContainer")
            return sum(record["outcome"] == "adjusted" for record in about)

        heard.wait_for(lambda arrived=arrived: arrived() >= CONTAINERS)  # type: ignore[misc]
        count, gaps = arrived(), heard.gaps()
        scene.reported.add(node, f"{count} results of that time", style=GOOD)
        scene.reported.item(f"{len(gaps)} missing", BAD if gaps else GOOD)
        scene.check(f"every result of {node} arrives", count == CONTAINERS, count)
        scene.check(f"no result of {node} is missing", not gaps, gaps)
    stage.wait(
        lambda view: view.online == len(NODES) and running(view, BETTER) == set(NODES),
        f"the boards to be back with {BETTER}",
    )
    scene.outcome = "nothing was lost", GOOD
    return scene


SCENES: Sequence[Callable[[Stage], Scene]] = (
    a_fleet_begins,
    a_bad_version_goes_back,
    a_good_version_reaches_all,
    the_broker_goes_and_comes,
)
"""In this order, on one stage. Each may raise DemoError."""


# --- what nodes report


def version(view: View, name: str) -> tuple[str, str]:
    """(version, status) of the plugin on a node; empty before it has one."""
    node: Node | None = view.nodes.get(name)
    for plugin in node.plugins if node is not None else ():
        if plugin.identity == f"{INDEX}-{GUARD}":
            return plugin.version, plugin.status
    return "", ""


def running(view: View, wanted: str) -> set[str]:
    """The nodes that run this version and have kept it after its probation."""
    return {name for name in view.nodes if version(view, name) == (wanted, "running")}


def _show_versions(column: Column, view: View) -> None:
    for node in NODES:
        column.add(node, " ".join(version(view, node)), style=GOOD)
