"""Cuts of the power at random moments: what the agent makes of its disk afterwards.

The agent works for a while on a disk whose writes are logged: plugins are deployed, rejected and
taken back, containers are created, the broker goes away and comes back, the agent is killed. From
the log come as many disks as wanted, each as one cut of the power could have left it
(tests.powercuts.writelog). Each is mounted, by which the kernel replays its journal, and the agent
is started on it.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from edge_agent.sim.runtime import SimRuntime
from tests.boards.fleet import NODE, FleetSide
from tests.boards.transcript import Transcript
from tests.powercuts.cutlog import ALIVE, Told
from tests.powercuts.disk import Boot, LoggedDisk, run
from tests.powercuts.judge import Judge
from tests.powercuts.observer import Observer, said_goodbye
from tests.powercuts.writelog import Cut, Fate, Replay, cut, cuts
from tests.support.agent import PLUGINS, Agent, Status, guest
from tests.support.fleetbroker import FLEET
from tests.support.wait import wait_until

MIB = 1 << 20
SIZES = (48, 96)  # MiB that the deployed releases give a container, in turn
ROUNDS = 8
# Of creating a container, as a kubelet does: a release on probation may be a bad one, and is
# rejected; for a plugin that is late a placeholder refuses (docs/adr/0033).
ATTEMPTS, PAUSE_S = 120, 0.25


class PowerCuts:
    """`count` cuts, chosen by `seed`. All files lie in `folder`."""

    def __init__(
        self, fleet: FleetSide, transcript: Transcript, folder: Path, *, count: int, seed: int
    ) -> None:
        self._fleet, self._transcript, self._folder = fleet, transcript, folder
        self._count, self._seed = count, seed
        self._socket = folder / "nri.sock"
        self._judge = Judge(fleet, folder / "work" / "writes")

    def run(self) -> None:
        """All of it. AssertionError: a board was broken, and how.

        Only in a mount namespace of its own: the kernel's word on its boot is covered.
        """
        with Boot(self._folder) as boot:
            self._run(boot)

    def _run(self, boot: Boot) -> None:
        transcript, judge = self._transcript, self._judge
        with transcript.step("an agent works, and its writes are logged"):
            disk = self._work()
            transcript.saw(judge.summary())
        begins = judge.begin_of_parts()
        chosen = cuts(judge.log, self._count, self._seed, begins)
        replay = Replay(disk.log, disk.before)
        failures: list[str] = []
        with transcript.step("a disk that lost what was flushed"):
            boot.again()
            lost = cut(judge.log, begins[0], Fate.ALL_LOST, random.Random())
            found = judge.finds(lost, lambda: self._look_at(lost, replay))
            forgot = any("was accepted, now it is" in each for each in found)
            transcript.check(forgot, "is found to have forgotten generations", found)
        with transcript.step(f"{len(chosen)} cuts"):
            for state in chosen:
                boot.again()
                new = judge.judge(
                    state,
                    lambda state=state: self._look_at(state, replay),  # type: ignore[misc]
                )
                transcript.saw("\n".join(new))
                failures += new
        with transcript.step("a disk on which both catalogues are damaged"):
            boot.again()
            whole_disk = cut(judge.log, len(judge.log), Fate.NONE_LOST, random.Random())
            found = judge.finds(whole_disk, lambda: self._look_at(whole_disk, replay, damage))
            refuses = any("its disk refuses" in each for each in found)
            transcript.check(refuses, "is found to refuse", found)
        with transcript.step("what came of them"):
            counts = sorted(judge.outcomes.items())
            transcript.saw("\n".join(f"{count:4} {what}" for what, count in counts), 40)
            whole = f"{len(chosen)} cuts (seed {self._seed}) broke no board"
            transcript.check(not failures, whole, failures)

    # --- the work

    def _work(self) -> LoggedDisk:
        folder = self._folder / "work"
        folder.mkdir()
        fleet, judge = self._fleet, self._judge
        with (
            LoggedDisk(folder) as disk,
            Observer(fleet, judge.length) as observer,
            SimRuntime(self._socket) as runtime,
        ):
            agent = self._agent(folder / "agent", disk.mount)
            with agent, Containers(runtime) as containers:
                self._roll_out(agent, "1.0.0", SIZES[0], "--index", "20", "--first")
                run("sync", "--file-system", str(disk.mount))
                judge.begins("containers are created")
                containers.wait_for_more()
                for number in range(1, ROUNDS + 1):
                    judge.begins("a release is deployed")
                    self._roll_out(agent, f"1.{number}.0", SIZES[number % 2])
                    if number % 2:
                        # What plugins report waits on the disk meanwhile.
                        judge.begins("the broker is away")
                        fleet.broker.stop()
                        containers.wait_for_more()
                        fleet.broker.start()
                    if number % 4 == 0:
                        judge.begins("the agent is killed")
                        agent.kill()
                        agent.start()
                    containers.wait_for_more()
                judge.begins("a release is rejected and taken back")
                good = SIZES[ROUNDS % 2] * MIB
                bad = ("2.0.0", guest("hostile"), "create_container:trap\n")
                judge.deploys(good, lambda: fleet.fleet(*fleet.release("resource-guard", *bad)))
                agent.wait_for(
                    lambda status: (
                        _runs(status, fleet.deployed()) and status["updates"]["rejected"]
                    ),
                    "the bad release is rejected",
                )
                judge.deploys(good, lambda: fleet.fleet("rollback", "resource-guard", "--yes"))
                agent.wait_for(lambda status: _runs(status, fleet.deployed()), "the way back")
                containers.wait_for_more()
            judge.ends(observer.told)
        return disk

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
        release = fleet.release("resource-guard", version, module, config)
        self._judge.deploys(mib * MIB, lambda: fleet.fleet(*release, *words))
        agent.wait_for(lambda status: _runs(status, fleet.deployed()), f"{version} runs")

    # --- the checks

    def _look_at(
        self, state: Cut, replay: Replay, change: Callable[[Path], None] | None = None
    ) -> tuple[dict[str, Any], list[Told]]:
        """Run the agent on the disk that the cut left. AssertionError: it cannot be.

        `change` is given the folder where it is mounted.
        """
        folder = self._folder / "check"
        run("rm", "-rf", str(folder))
        folder.mkdir()
        replay.make(state, folder / "disk")
        mount = folder / "mounted"
        mount.mkdir()
        run("mount", "-t", "ext4", "-o", "loop", str(folder / "disk"), str(mount))
        try:
            if change is not None:
                change(mount)
            served = self._serve(self._agent(folder / "agent", mount))
        finally:
            # A compiler dies with the agent, and a moment after it.
            umount = ("umount", str(mount))
            wait_until(
                lambda: subprocess.run(umount, capture_output=True, check=False).returncode == 0,
                "what it had open is closed",
            )
        run("e2fsck", "-f", "-n", str(folder / "disk"))
        return served

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
                time.sleep(PAUSE_S)
                agent.wait_for(_settled, "the plugins run again")
            status = agent.wait_for(_sent, "the results are sent")
            wait_until(
                lambda: any(each.topic == "results" for each in observer.told), "results arrive"
            )
            agent.stop()
            wait_until(lambda: said_goodbye(observer.told), "its goodbye")
            return {"status": status, "limit": limit, "error": error}, list(observer.told)


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
    trouble = status.get("updates", {}).get("trouble")
    assert not trouble, f"its disk refuses: {trouble}"
    return bool(connected and plugins and all(each in ALIVE for each in plugins))


def _sent(status: Status) -> bool:
    mqtt = status["mqtt"]
    return bool(mqtt["queued"] == 0 and mqtt["sent"] > 0)


def damage(state: Path) -> None:
    """Both copies of the catalogue, as two bad blocks would."""
    copies = list((state / "store").glob("catalogue*.json"))
    assert len(copies) == 2, copies
    for copy in copies:
        os.truncate(copy, 100)
