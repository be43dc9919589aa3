"""Cuts of the power of a whole emulated board, at random moments.

A board with the agent's package works while all writes to its one disk are logged: plugins are
deployed, rejected and taken back, containers are created, the broker goes away and comes back, the
agent is killed, its package is upgraded. Of the log the disks are made that cuts would have left
(tests.powercuts.writelog). A second board, which stays on, mounts one after the other, by which its
kernel replays the journal, and runs what is installed there in it (tests.powercuts.lookingboard).
Some are started as a board of their own, with all that a boot does. docs/adr/0053.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.boards.board import MIB, UNIT, Board
from tests.boards.fleet import FleetSide
from tests.boards.hardware import Hardware
from tests.boards.image import BoardFiles
from tests.boards.machine import Machine
from tests.boards.packages import VERSIONS
from tests.boards.transcript import Transcript
from tests.powercuts.cutlog import Told
from tests.powercuts.disk import run
from tests.powercuts.judge import Judge
from tests.powercuts.lookingboard import PATIENCE_S, LookingBoard, use
from tests.powercuts.observer import Observer, said_goodbye
from tests.powercuts.writelog import Fate, cut, cuts
from tests.support.agent import guest
from tests.support.wait import wait_until

SIZES = (48, 96)  # MiB that the deployed releases give a container, in turn
ROUNDS = 3
BOTH_CATALOGUES = "/cut/var/lib/edge-agent/store/catalogue*.json"


class BoardCuts:
    """`count` cuts, chosen by `seed`; `boots` of them boot. All files lie in `folder`.

    Another run with the same seed is not the same again, as moments are the machine's: `keep` is
    where the log and the disk before it stay if a board was broken.
    """

    def __init__(
        self,
        fleet: FleetSide,
        transcript: Transcript,
        folder: Path,
        *,
        hardware: Hardware,
        files: BoardFiles,
        packages: tuple[Path, Path],
        count: int,
        boots: int,
        seed: int,
        keep: Path | None = None,
    ) -> None:
        self._fleet, self._transcript, self._folder = fleet, transcript, folder
        self._hardware, self._files, self._packages = hardware, files, packages
        self._count, self._boots, self._seed = count, boots, seed
        self._log, self._base = folder / "writes", folder / "base"
        self._judge = Judge(fleet, self._log)
        self._keep = keep

    def run(self) -> None:
        """All of it. AssertionError: a board was broken, and how."""
        self.record()
        kept = [self._keep / each.name for each in (self._log, self._base)] if self._keep else []
        for each in kept:
            each.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._folder / each.name, each)
        self.look()
        for each in kept:
            each.unlink()

    # --- the work

    def record(self) -> None:
        """The log of a board that works, and its disk as it was before."""
        folder = self._folder / "works"
        folder.mkdir()
        with Machine(self._hardware, self._files, folder) as machine:
            board = Board(machine, self._fleet)
            with self._transcript.step("a board is set up"):
                self._set_up(board)
                _copy(machine.disk, self._base)
            with self._transcript.step("it works, and its writes are logged"):
                self._work(board)
                self._transcript.saw(self._judge.summary())
        machine.disk.unlink()

    def _set_up(self, board: Board) -> None:
        board.machine.boot()
        board.import_image()
        board.switch_nri_on()
        board.install(self._packages[0])
        board.join_the_fleet()
        self._roll_out(board, "1.0.0", SIZES[0], "--index", "20", "--first")
        board.machine.power_off()

    def _roll_out(self, board: Board, version: str, mib: int, *words: str) -> None:
        self._judge.deploys(mib * MIB, lambda: board.roll_out(version, mib, *words))

    def _work(self, board: Board) -> None:
        """The power is off afterwards."""
        fleet, machine, judge = self._fleet, board.machine, self._judge
        with Observer(fleet, judge.length) as observer:
            machine.boot(log=self._log)
            board.wait_version("1.0.0")
            board.burst_begins()
            machine.run("sync")
            for number in range(1, ROUNDS + 1):
                judge.begins("a release is deployed")
                self._roll_out(board, f"1.{number}.0", SIZES[number % 2])
                # What plugins report waits on the disk meanwhile.
                judge.begins("the broker is away")
                fleet.broker.stop()
                board.burst_goes_on()
                fleet.broker.start()
                judge.begins("the agent is killed")
                machine.run(f"systemctl kill --signal=SIGKILL {UNIT}")
                board.burst_goes_on()
            judge.begins("a release is rejected and taken back")
            good = SIZES[ROUNDS % 2] * MIB
            bad = ("2.0.0", guest("hostile"), "create_container:trap\n")
            release = fleet.release("resource-guard", *bad)
            judge.deploys(good, lambda: fleet.fleet(*release), bad=True)
            generation = fleet.deployed()
            board.wait(
                lambda status: (
                    _updates(status).get("generation") == generation
                    and _updates(status).get("rejected")
                ),
                "the bad release is rejected",
            )
            judge.deploys(good, lambda: fleet.fleet("rollback", "resource-guard", "--yes"))
            back = fleet.deployed()
            board.wait(lambda status: _updates(status).get("generation") == back, "the way back")
            board.burst_goes_on()
            judge.begins("the package is upgraded")
            board.install(self._packages[1])
            board.burst_goes_on()
            machine.cut_power()
            judge.ends(observer.told)

    # --- the checks

    def look(self) -> None:
        """At the disks that cuts left. AssertionError: a board was broken, and how."""
        judge, transcript = self._judge, self._transcript
        begins = judge.begin_of_parts()
        chosen = cuts(judge.log, self._count, self._seed, begins)
        booted = {(at + 1) * len(chosen) // self._boots - 1 for at in range(self._boots)}
        failures: list[str] = []
        # The disk of the board that looks is the one that works, before: containerd is set up.
        files = self._files._replace(disk=self._base)
        folder = self._folder / "looks"
        folder.mkdir()
        with Machine(self._hardware, files, folder) as machine:
            filesystem = files.filesystem
            looking = LookingBoard(machine, self._fleet, filesystem, self._log, self._base, folder)
            with transcript.step("a board that looks at disks"):
                looking.boot()
            with transcript.step("a disk that lost what was flushed"):
                looking.turn(cut(judge.log, begins[0], Fate.ALL_LOST, random.Random()))
                self._must_be_found(looking, "was accepted, now it is")
            with transcript.step(f"{len(chosen)} cuts, {self._boots} of which boot"):
                for number, state in enumerate(chosen):
                    began = time.monotonic()
                    looking.turn(state)
                    new = []
                    if number in booted:
                        new += judge.judge(state, lambda: self._boot(looking.disk), ", booted")
                    new += judge.judge(state, looking.serve)
                    seconds = time.monotonic() - began
                    transcript.saw(
                        f"{number + 1}: request {state.requests}, {judge.part(state)},"
                        f" {state.fate.value}; {seconds:.0f} s"
                    )
                    transcript.saw("\n".join(new))
                    failures += new
            with transcript.step("a disk on which both catalogues are damaged"):
                looking.turn(cut(judge.log, len(judge.log), Fate.NONE_LOST, random.Random()))
                self._must_be_found(
                    looking, "its disk refuses", f"truncate --size=100 {BOTH_CATALOGUES}"
                )
        with transcript.step("what came of them"):
            counts = sorted(judge.outcomes.items())
            transcript.saw("\n".join(f"{count:4} {what}" for what, count in counts), 60)
            whole = f"{len(chosen)} cuts (seed {self._seed}) broke no board"
            transcript.check(not failures, whole, failures)

    def _must_be_found(self, looking: LookingBoard, word: str, damage: str = "") -> None:
        """A board that is broken on purpose: checks that find nothing prove nothing."""
        state = cut(self._judge.log, len(self._judge.log), Fate.NONE_LOST, random.Random())
        found = self._judge.finds(state, lambda: looking.serve(damage))
        self._transcript.saw("\n".join(found))
        self._transcript.check(any(word in each for each in found), "is found", found)

    def _boot(self, disk: Path) -> tuple[dict[str, Any], list[Told]]:
        """Start a board from a copy of the disk."""
        folder = self._folder / "boots"
        folder.mkdir()
        try:
            with (
                Observer(self._fleet, lambda: 0) as observer,
                Machine(self._hardware, self._files._replace(disk=disk), folder) as machine,
            ):
                machine.boot()
                board = Board(machine, self._fleet)
                board.pods.remove_all()  # of another life of the machine
                self._make_whole(board)
                facts = use(machine, observer, board.pods.run_pod("cut"), "cut", UNIT)
                board.pods.remove_all()
                machine.power_off()
                wait_until(lambda: said_goodbye(observer.told), "its goodbye", PATIENCE_S)
                run(*self._files.filesystem.checking(machine.disk))
                return facts, list(observer.told)
        finally:
            shutil.rmtree(folder)

    def _make_whole(self, board: Board) -> None:
        """An upgrade that was cut is taken up again, as dpkg says."""
        if not board.machine.run("dpkg --audit").strip():
            return
        board.machine.run("DEBIAN_FRONTEND=noninteractive dpkg --configure -a")
        said = board.install(self._packages[1])
        version = board.machine.run("dpkg-query --show --showformat='${Version}' edge-agent")
        assert version == VERSIONS[1], f"dpkg has {version}: {said}"
        self._judge.outcomes["an upgrade was taken up again, booted"] += 1


def _updates(status: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status.get("updates", {})
    return found


def _copy(disk: Path, target: Path) -> None:
    run("cp", "--sparse=always", str(disk), str(target))
