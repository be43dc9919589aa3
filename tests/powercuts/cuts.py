"""Cuts of the power at random moments: what the agent makes of its disk afterwards.

The agent works for a while on a disk whose writes are logged: plugins are deployed, rejected and
taken back, containers are created, the broker goes away and comes back, the agent is killed. From
the log come as many disks as wanted, each as one cut of the power could have left it
(tests.powercuts.writelog). Each is mounted, by which the kernel replays its journal, and the agent
is started on it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edge_agent.sim.runtime import SimRuntime
from tests.boards.fleet import NODE, FleetSide
from tests.boards.transcript import Transcript
from tests.powercuts.cutlog import ALIVE, Told, broken, known, went_on
from tests.powercuts.disk import Boot, LoggedDisk, run
from tests.powercuts.writelog import Cut, Replay, Write, cuts, requests
from tests.support.agent import PLUGINS, Agent, Status, guest
from tests.support.fleetbroker import FLEET, Peer
from tests.support.wait import wait_until

ABOUT_ALL = f"edge/v1/{FLEET}"
ABOUT_NODE = f"{ABOUT_ALL}/nodes/{NODE}"
MIB = 1 << 20
SIZES = (48, 96)  # MiB that the deployed releases give a container, in turn
ROUNDS = 8
ATTEMPTS = 20  # to create a container: a release on probation may be a bad one, and is rejected


class Observer:
    """Hears all that the node tells; a context manager. Its session outlives the broker."""

    def __init__(self, fleet: FleetSide, length: Callable[[], int]) -> None:
        """`length` is that of the log of writes, in bytes."""
        self.told: list[Told] = []
        self._length = length
        self._peer = Peer(fleet.broker, "operator", "observer", keep_s=3600, heard=self._hear)
        self._peer.subscribe(f"{ABOUT_NODE}/#")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.told.append(Told(self._length(), topic.removeprefix(f"{ABOUT_NODE}/"), payload))


class PowerCuts:
    """`count` cuts, chosen by `seed`. All files lie in `folder`."""

    def __init__(
        self, fleet: FleetSide, transcript: Transcript, folder: Path, *, count: int, seed: int
    ) -> None:
        self._fleet, self._transcript, self._folder = fleet, transcript, folder
        self._count, self._seed = count, seed
        self._socket = folder / "nri.sock"
        self._told: list[Told] = []
        self._first: dict[str, bytes] = {}  # what was retained with generation 1
        self._outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """All of it. AssertionError: a board was broken, and how.

        Only in a mount namespace of its own: the kernel's word on its boot is covered.
        """
        with Boot(self._folder) as boot:
            self._run(boot)

    def _run(self, boot: Boot) -> None:
        transcript = self._transcript
        with transcript.step("an agent works, and its writes are logged"):
            disk, begin = self._work()
            log = requests(disk.log)
            first = sum(request.end <= begin for request in log)
            flushes = sum(each.flush for each in log[first:])
            transcript.saw(
                f"{len(log) - first} requests, {flushes} of them flushes;"
                f" {len(self._told)} messages; generation {self._fleet.deployed()}"
            )
        chosen = cuts(log, self._count, self._seed, first)
        replay = Replay(disk.log, disk.before)
        failures: list[str] = []
        with transcript.step(f"{len(chosen)} cuts"):
            for state in chosen:
                boot.again()
                new = self._check(state, log, replay)
                transcript.saw("\n".join(new))
                failures += new
        with transcript.step("what came of them"):
            counts = sorted(self._outcomes.items())
            transcript.saw("\n".join(f"{count:4} {what}" for what, count in counts), 40)
            whole = f"{len(chosen)} cuts (seed {self._seed}) broke no board"
            transcript.check(not failures, whole, failures)

    # --- the work

    def _work(self) -> tuple[LoggedDisk, int]:
        """The disk, and how long its log was when the first deployment ran."""
        folder = self._folder / "work"
        folder.mkdir()
        fleet = self._fleet
        with (
            LoggedDisk(folder) as disk,
            Observer(fleet, lambda: disk.log.stat().st_size) as observer,
            SimRuntime(self._socket) as runtime,
        ):
            agent = self._agent(folder / "agent", disk.mount)
            with agent, Containers(runtime) as containers:
                self._roll_out(agent, "1.0.0", SIZES[0], "--index", "20", "--first")
                self._first = _retained(fleet)
                run("sync", "--file-system", str(disk.mount))
                begin = disk.log.stat().st_size
                containers.wait_for_more()
                for number in range(1, ROUNDS + 1):
                    self._roll_out(agent, f"1.{number}.0", SIZES[number % 2])
                    if number % 2:
                        # What plugins report waits on the disk meanwhile.
                        fleet.broker.stop()
                        containers.wait_for_more()
                        fleet.broker.start()
                    if number % 4 == 0:
                        agent.kill()
                        agent.start()
                    containers.wait_for_more()
                bad = ("2.0.0", guest("hostile"), "create_container:trap\n")
                fleet.fleet(*fleet.release("resource-guard", *bad))
                agent.wait_for(
                    lambda status: (
                        _runs(status, fleet.deployed()) and status["updates"]["rejected"]
                    ),
                    "the bad release is rejected",
                )
                fleet.fleet("rollback", "resource-guard", "--yes")
                agent.wait_for(lambda status: _runs(status, fleet.deployed()), "the way back")
                containers.wait_for_more()
            self._told = list(observer.told)
        return disk, begin

    def _agent(self, folder: Path, state: Path) -> Agent:
        authority, cert, key = map(str, self._fleet.broker.credentials(NODE))
        trust = self._folder / "trust"
        trust.mkdir(exist_ok=True)
        for name, content in self._fleet.trust().items():
            (trust / name).write_bytes(content)
        return Agent(
            folder,
            sockets=[self._socket],
            node=NODE,
            fleet=FLEET,
            state_dir=str(state),
            mqtt={
                "url": f"mqtts://localhost:{self._fleet.broker.port}",
                "ca_file": authority,
                "cert_file": cert,
                "key_file": key,
                "reconnect_min": "50ms",
                "reconnect_max": "500ms",
            },
            updates={"trust_dir": str(trust), "probation": "2s", "probation_events": 10},
        )

    def _roll_out(self, agent: Agent, version: str, mib: int, *words: str) -> None:
        module = PLUGINS / "resource-guard" / "resource-guard.wasm"
        config = f"[default]\nmemory.default = {mib}Mi\n"
        fleet = self._fleet
        fleet.fleet(*fleet.release("resource-guard", version, module, config), *words)
        agent.wait_for(lambda status: _runs(status, fleet.deployed()), f"{version} runs")

    # --- the checks

    def _check(self, state: Cut, log: Sequence[Write], replay: Replay) -> list[str]:
        """What is wrong after this cut."""
        folder = self._folder / "check"
        run("rm", "-rf", str(folder))
        folder.mkdir()
        replay.make(state, folder / "disk")
        mount = folder / "mounted"
        mount.mkdir()
        # A broker that knows the first deployment alone: a board that forgot later ones takes it.
        self._fleet.broker.stop()
        self._fleet.broker.forget()
        self._fleet.broker.start()
        _retain(self._fleet, self._first)
        facts: dict[str, Any]
        after: list[Told] = []
        try:
            run("mount", "-t", "ext4", "-o", "loop", str(folder / "disk"), str(mount))
            try:
                facts, after = self._serve(self._agent(folder / "agent", mount))
            finally:
                run("umount", str(mount))
            run("e2fsck", "-f", "-n", str(folder / "disk"))
        except AssertionError as error:
            facts = {"trouble": str(error)}
        before = known(self._told, log[state.requests - 1].end if state.requests else 0)
        limits = [size * MIB for size in SIZES]
        wrong = broken(before, facts, after, newest=self._fleet.deployed(), limits=limits)
        self._count_outcome(state, facts, went_on(before, after))
        return [f"request {state.requests}, {state.fate.value}: {each}" for each in wrong]

    def _serve(self, agent: Agent) -> tuple[dict[str, Any], list[Told]]:
        """Start the agent, and create a container; what it says of itself, and to the broker."""
        with (
            Observer(self._fleet, lambda: 0) as observer,
            SimRuntime(self._socket) as runtime,
            agent,
        ):
            agent.wait_for(_settled, "plugins run, and the broker is there")
            error, limit = "", 0
            for number in range(ATTEMPTS):
                pod = runtime.run_pod(f"pod-{number}").pod
                made = runtime.create_container(pod, "app")
                error, limit = made.error, made.container.linux.resources.memory.limit.value
                if made.ok:
                    break
                agent.wait_for(_settled, "the plugins run again")
            status = agent.wait_for(_sent, "the results are sent")
            wait_until(
                lambda: any(each.topic == "results" for each in observer.told), "results arrive"
            )
            agent.stop()
            wait_until(lambda: _said_goodbye(observer.told), "its goodbye")
            return {"status": status, "limit": limit, "error": error}, list(observer.told)

    def _count_outcome(self, state: Cut, facts: Mapping[str, Any], same_stream: bool) -> None:
        self._outcomes[f"writes since the flush: {state.fate.value}"] += 1
        if "trouble" not in facts:
            generation = facts["status"]["updates"]["generation"]
            self._outcomes[f"generation {generation:2} runs"] += 1
            numbers = "go on" if same_stream else "begin in a new stream"
            self._outcomes[f"numbers of results {numbers}"] += 1


class Containers:
    """Created without pause, in a thread; a context manager."""

    PAUSE_S = 0.02

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self._made = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._make, name="containers")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def wait_for_more(self, count: int = 30) -> None:
        wanted = self._made + count
        wait_until(lambda: self._made >= wanted, f"{count} more containers")

    def _make(self) -> None:
        while not self._ending.wait(self.PAUSE_S):
            pod = self._runtime.run_pod(f"pod-{self._made}").pod
            self._runtime.create_container(pod, "app")
            self._runtime.stop_pod(pod)
            self._made += 1


def _runs(status: Status, generation: int) -> bool:
    plugins = [each["status"] for each in status["plugins"]]
    told = status.get("updates", {})
    return told.get("generation") == generation and all(each == "running" for each in plugins)


def _settled(status: Status) -> bool:
    """Whether the broker is there, and each plugin answers. A bad release is replaced soon."""
    plugins = [each["status"] for each in status["plugins"]]
    connected = status.get("mqtt", {}).get("state") == "connected"
    return bool(connected and plugins and all(each in ALIVE for each in plugins))


def _sent(status: Status) -> bool:
    mqtt = status["mqtt"]
    return bool(mqtt["queued"] == 0 and mqtt["sent"] > 0)


def _said_goodbye(told: Sequence[Told]) -> bool:
    return any(each.topic == "status" and b"offline" in each.payload for each in told)


def _retained(fleet: FleetSide) -> dict[str, bytes]:
    """The fleet's deployment as the broker has it now, by its topic."""
    found: dict[str, bytes] = {}
    peer = Peer(fleet.broker, "operator", heard=found.__setitem__)
    peer.subscribe(f"{ABOUT_ALL}/deployment")
    wait_until(lambda: found, "the deployment")
    peer.close()
    return found


def _retain(fleet: FleetSide, documents: Mapping[str, bytes]) -> None:
    peer = Peer(fleet.broker, "operator")
    for topic, payload in documents.items():
        assert peer.publish(topic, payload, retain=True) in ("Success", "No matching subscribers")
    peer.close()
