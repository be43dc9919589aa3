"""A board that stays on, and runs what is installed on one disk after the other."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

from tests.boards.board import NRI_SOCKET, UNIT, Board
from tests.boards.filesystems import Filesystem
from tests.boards.fleet import FleetSide
from tests.boards.machine import BoardError, Machine, drive
from tests.boards.pods import container_config
from tests.powercuts.cutlog import ALIVE, Told, numbered
from tests.powercuts.disk import run
from tests.powercuts.observer import Observer, said_goodbye
from tests.powercuts.writelog import Cut, Replay, requests
from tests.support.wait import wait_until

ATTEMPTS = 20  # to create a container: a release on probation may be a bad one, and is rejected
DISK = "cut"
INSIDE = "cut-agent"  # the unit in which what is on the disk runs
LOOK_EVERY_S = 20.0
# A cut that breaks nothing takes some ten seconds of an emulated processor. Beside other work an
# emulator got a twentieth of a real one.
PATIENCE_S = 1800.0
# The first sector is no file system's here; the mark put there shows that nothing of the cut
# before is in the kernel's memory.
MOUNT = f"""
set -e
disk=/dev/$(basename "$(dirname "$(grep -lx {DISK} /sys/block/vd*/serial)")")
blockdev --flushbufs "$disk"
found=$(head -c MARK_BYTES "$disk")
[ "$found" = "MARK" ] || {{ echo "an old disk: $found"; exit 1; }}
mkdir -p /cut
mount -t FILESYSTEM "$disk" /cut
"""
# Another boot, as far as the kernel says.
SERVE = f"""
cat /proc/sys/kernel/random/uuid >/run/boot
mount -t proc proc /cut/proc
mount --bind /run/boot /cut/proc/sys/kernel/random/boot_id
mount --bind /dev /cut/dev
mount -t tmpfs -o mode=755 run /cut/run
mkdir /cut/run/edge-agent /cut/run/nri
mount --bind /run/nri /cut/run/nri
systemctl reset-failed {INSIDE} 2>/dev/null || true
systemd-run --quiet --unit={INSIDE} chroot /cut \\
  /usr/bin/edge-agent run -c /etc/edge-agent/agent.toml
"""
STOP = f"systemctl stop {INSIDE}; umount --recursive /cut"
# What a new container is given, and its end.
CREATE = """
set -e
head -c BYTES >/run/pods/container.json
container=$(crictl create POD /run/pods/container.json /run/pods/POD)
crictl inspect -o go-template --template '{{.info.runtimeSpec.linux.resources.memory.limit}}' \\
  "$container"
crictl rm "$container" >/dev/null
"""


class LookingBoard:
    """Around a machine that is off, and ends it not.

    `base` is the disk as it was when `log` began; it is changed (tests.powercuts.writelog.Replay).
    `disk`, in `folder`, is turned into what one cut after the other left.
    """

    def __init__(
        self,
        machine: Machine,
        fleet: FleetSide,
        filesystem: Filesystem,
        log: Path,
        base: Path,
        folder: Path,
    ) -> None:
        self.disk = folder / "cut"
        self._machine, self._fleet, self._filesystem = machine, fleet, filesystem
        self._written = folder / "written"  # to `disk`, by the board
        self._seen = 0  # bytes of that log
        self._turns = 0
        self._pod = ""
        run("cp", "--sparse=always", str(base), str(self.disk))
        self._replay = Replay(log, base)

    def boot(self) -> None:
        self._machine.boot(
            arguments={"systemd.mask": f"{UNIT}.service"},
            devices=drive(self.disk, DISK, self._written),
        )
        self._pod = Board(self._machine, self._fleet).pods.run_pod("cuts")

    def turn(self, state: Cut) -> None:
        """Make the disk what this cut left."""
        written = requests(self._written, self._seen) if self._written.stat().st_size else []
        self._seen = written[-1].end if written else self._seen
        self._replay.turn(state, self.disk, written)
        self._turns += 1

    def serve(self, damage: str = "") -> tuple[dict[str, Any], list[Told]]:
        """Run what is installed on the disk; what it says of itself, and to the broker.

        `damage` is a script that is run once it is mounted. AssertionError: it cannot be run.
        """
        machine = self._machine
        mark = f"turn {self._turns}"
        with self.disk.open("r+b") as file:
            file.write(mark.encode())
        mount = MOUNT.replace("MARK_BYTES", str(len(mark))).replace("MARK", mark)
        mount = mount.replace("FILESYSTEM", self._filesystem.name)
        with Observer(self._fleet, lambda: 0) as observer:
            try:
                machine.run(f"{mount}{damage}\n{SERVE}")
                facts = use(machine, observer, self._pod, f"cut-{self._turns}", INSIDE)
                machine.run(STOP)
                wait_until(lambda: said_goodbye(observer.told), "its goodbye", PATIENCE_S)
                after = list(observer.told)
            except AssertionError as error:
                said = machine.run(f"journalctl --unit={INSIDE} --lines=30 --no-pager", fails=True)
                machine.run(STOP, fails=True)
                raise BoardError(f"{error}\n{said}") from None
        run(*self._filesystem.checking(self.disk))
        return facts, after


def use(machine: Machine, observer: Observer, pod: str, name: str, unit: str) -> dict[str, Any]:
    """Create a container once the agent has settled, and hear of it; what is then so."""
    settled = _Settled(machine, observer, unit)
    settled.wait()
    error, limit = "", 0
    for attempt in range(ATTEMPTS):
        raw = json.dumps(container_config(f"{name}-{attempt}")).encode()
        script = CREATE.replace("BYTES", str(len(raw))).replace("POD", shlex.quote(pod))
        try:
            limit, error = int(machine.run(script, input=raw)), ""
            break
        except (BoardError, ValueError) as refused:
            error = str(refused)
        settled.wait()
    wait_until(
        lambda: any(
            record.get("container", {}).get("name", "").startswith(f"{name}-")
            for each in list(observer.told)
            if each.topic == "results"
            for record in numbered(each.payload).values()
        ),
        "the result of the creation arrives",
        PATIENCE_S,
    )
    return {"status": settled.wait(), "limit": limit, "error": error}


class _Settled:
    """Waits until each plugin of the agent's at this board's runtime answers."""

    def __init__(self, machine: Machine, observer: Observer, unit: str) -> None:
        self._machine, self._observer, self._unit = machine, observer, unit
        self._asked = time.monotonic()

    def wait(self) -> dict[str, Any]:
        """Its latest state. AssertionError, at once if it has ended or its disk refuses."""
        wait_until(self._settled, "the agent says that its plugins run", PATIENCE_S)
        return self._state()

    def _settled(self) -> bool:
        if time.monotonic() - self._asked > LOOK_EVERY_S:
            self._asked = time.monotonic()
            active = self._machine.unit(self._unit, "ActiveState")
            assert active in ("active", "activating"), f"{self._unit} is {active}"
        state = self._state()
        trouble = state.get("updates", {}).get("trouble")
        assert not trouble, f"its disk refuses: {trouble}"
        plugins = [str(each["status"]) for each in state.get("plugins", [])]
        return bool(plugins) and all(each in ALIVE for each in plugins)

    def _state(self) -> dict[str, Any]:
        states = [each for each in list(self._observer.told) if each.topic == "state"]
        found: dict[str, Any] = json.loads(states[-1].payload) if states else {}
        here = [
            each for each in found.get("plugins", []) if each.get("runtime") in ("", NRI_SOCKET)
        ]
        return {**found, "plugins": here}
