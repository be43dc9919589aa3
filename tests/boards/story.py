"""What happens to a board: installed as docs/install.md says, used, hurt, upgraded, cleared.

Each step is a method, in the order of `STEPS`; it tells what a person would see there, and checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.boards.board import (
    CONFIG,
    MIB,
    NRI_SOCKET,
    PATIENCE_S,
    UNIT,
    Board,
    Status,
    name,
)
from tests.boards.fleet import NODE
from tests.boards.memory import fields
from tests.boards.transcript import Transcript
from tests.support.agent import guest
from tests.support.gobuild import go_annotator_module
from tests.support.wait import wait_until

STATE = "/var/lib/edge-agent"
# /dev/full under another name: opened and written to, it says what it is.
DEVICE = "- {path: /dev/relay0, type: c, major: 1, minor: 7, file_mode: 0640, gid: 20}\n"
GUARD = "20-resource-guard"
INJECTOR = "10-device-injector"
LARGE = "40-go-annotator"  # 10 MB of Wasm
COMPILERS_SHARE = 48 << 20  # bytes; wasmi's takes 72 MiB, Wasmer's some 230


class Story:
    """`packages` are the agent's, the second a later version."""

    def __init__(self, board: Board, packages: tuple[Path, Path], transcript: Transcript) -> None:
        self.board = board
        self.machine, self.fleet, self.pods = board.machine, board.fleet, board.pods
        self.packages = packages
        self.transcript = transcript
        self.saw, self.check = transcript.saw, transcript.check

    def tell(self, steps: Sequence[Step]) -> None:
        """All of it. AssertionError: the first thing that was not so."""
        try:
            for title, step in steps:
                with self.transcript.step(title):
                    step(self)
        except BaseException:
            self._show_what_is_there()
            raise

    # --- the board, and the agent on it

    def boots(self) -> None:
        seconds = self.machine.boot()
        run = self.machine.run
        self.saw(run("uname -srm; . /etc/os-release; echo $PRETTY_NAME; containerd --version"))
        self.check(True, f"systemd is running {seconds:.0f} s after the switch")
        machine = run("uname -m").strip()
        self.check(machine == self.machine.hardware.machine, f"it is {machine}")
        self.check(run("stat -f -c %T /sys/fs/cgroup").strip() == "cgroup2fs", "cgroup v2 alone")
        self.board.import_image()
        self.check(True, "crictl sees the image")

    def nri_is_switched_on(self) -> None:
        self.board.switch_nri_on()
        self.check(True, f"{NRI_SOCKET} is there")

    def is_installed(self) -> None:
        self._install(self.packages[0])
        self.saw(self.machine.run(f"systemctl status {UNIT} --no-pager --lines=0"))
        for key, value in (
            *(("Type", "notify"), ("ActiveState", "active"), ("SubState", "running")),
            *(("UnitFileState", "enabled"), ("NRestarts", "0")),
        ):
            self.check(self.board.unit(key) == value, f"{key} is {value}")
        memory = int(self.board.unit("MemoryCurrent"))
        self.check(memory < 640 * MIB, f"its cgroup has {memory / MIB:.1f} MiB")
        limit = self.board.memory_limit()
        self.check(limit == str(640 * MIB), "the kernel limits its memory to 640 MiB", limit)

    def doctor_has_nothing_to_set_right(self) -> None:
        said = self.machine.run("edge-agent doctor", fails=True)
        self.saw(said, 20)
        self.check("\n0 to set right" in said, "0 to set right")

    def a_first_plugin(self) -> None:
        self.board.copy_plugin("resource-guard", GUARD, "conf", "toml", "wasm")
        self.board.wait_running(GUARD)
        self.saw(self.machine.run("edge-agent status"))
        self.check(True, f"{GUARD} is running")

    # --- what containers get

    def a_pod_meets_its_limits(self) -> None:
        pod = self.pods.run_pod("limits")
        without = self.pods.run_container(pod, "without")
        greedy = self.pods.run_container(pod, "greedy", 900 * MIB)
        modest = self.pods.run_container(pod, "modest", 32 * MIB)
        for container, size in ((without, 128), (greedy, 512), (modest, 32)):
            self.has_limit(container, size)
        found = self._cgroup_file(without, "cpu.max")
        self.check(found == "50000 100000", "cpu.max inside is half a processor", found)
        # tail keeps all of it, since there is no end of a line.
        self.pods.inside(without, "/bin/busybox tail /dev/zero", fails=True)
        events = self._cgroup_file(without, "memory.events").split()
        killed = int(events[events.index("oom_kill") + 1])
        self.check(killed > 0, "the kernel ends a process that wants more", events)
        said = self.machine.run("edge-agent status").splitlines()
        lost = [line for line in said if "pids" in line]
        self.saw("\n".join(lost))
        self.check(lost, "status says what this runtime drops: the limit of processes")

    def a_device_is_injected(self) -> None:
        self.board.copy_plugin("device-injector", INJECTOR, "toml", "wasm")
        self.board.wait_running(INJECTOR)
        wish = {"devices.noderesource.dev/container.motor": DEVICE}
        pod = self.pods.run_pod("devices", wish)
        motor, other = (self.pods.run_container(pod, name) for name in ("motor", "other"))
        found = self.pods.inside(motor, "stat -c '%F %t:%T %a %g' /dev/relay0")
        self.saw(found)
        self.check(found == "character special file 1:7 640 20\n", "the device is as asked for")
        said = self.pods.inside(motor, "echo on >/dev/relay0", fails=True)
        self.check("No space left on device" in said, "the kernel lets it be written to", said)
        said = self.pods.inside(other, "ls /dev/relay0", fails=True)
        self.check("No such file" in said, "its neighbour has none", said)

    def a_compilation_takes_more_memory_than_there_is(self) -> None:
        engine = self.board.status()["engine"]["name"]
        pid, taken = self.board.unit("MainPID"), int(self.board.unit("MemoryCurrent"))
        limit = "systemctl set-property --runtime edge-agent MemoryMax="
        self.machine.run(f"{limit}{taken + COMPILERS_SHARE}")
        self.copy_large_plugin()
        said: list[str] = []

        def told(status: Status) -> bool:
            plugins = status.get("plugins", [])
            said[:] = [str(each.get("error", "")) for each in plugins if name(each) == LARGE]
            return any("what this node has to spare" in each for each in said)

        self.board.wait(told, "the compiler ran out of memory")
        self.saw("\n".join(said))
        self.check(True, f"{engine}'s compiler fails within its share, and status says so")
        folder = f"/sys/fs/cgroup{self.board.unit('ControlGroup')}"
        events = fields(self.machine.read(f"{folder}/memory.events"))
        self.check(events["oom_kill"] == 0, "the kernel had to end nothing", events)
        self.check(self.board.unit("MainPID") == pid, "the agent lives")
        self.new_containers_have_limits("meanwhile", 128)
        self.machine.run(f"{limit}640M")
        self.remove_large_plugin()

    # --- the fleet

    def results_over_tls(self) -> None:
        self.board.join_the_fleet()
        self.board.wait_running(GUARD, INJECTOR)
        self.saw(self.fleet.fleet("nodes"))
        self.check(True, "the operator sees the board online")
        self.fleet.results()  # from now on the broker keeps them
        self.pods.run_container(self.pods.run_pod("reported"), "seen")
        found: list[dict[str, Any]] = []

        def reported() -> bool:
            found.extend(self.fleet.results())
            return any(
                each.get("event") == "CreateContainer" and each.get("plugin") == GUARD
                for each in found
            )

        wait_until(reported, "the result of a container's creation", PATIENCE_S)
        (one,) = [each for each in found if each.get("event") == "CreateContainer"][:1]
        self.saw(str(one))
        self.check(True, f"the creation's result came over TLS, one of {len(found)}")

    def a_deployment_while_containers_are_created(self) -> None:
        self.machine.run(f"rm /etc/edge-agent/plugins/{GUARD}.*")
        self.board.wait_gone(GUARD)
        self.saw(self.board.roll_out("1.0.0", 48, "--index", "20", "--first"))
        self.board.burst_begins()
        self.saw(self.board.roll_out("1.1.0", 96))
        limits = self.board.burst_ends()
        self.saw(" ".join(limits), 3)
        for size in (48, 96):
            self.check(str(size * MIB) in limits, f"containers have {size} MiB")
        self.check(set(limits) == {str(48 * MIB), str(96 * MIB)}, "and nothing else", limits)
        order = [int(each) for each in limits]
        self.check(order == sorted(order), f"none of {len(order)} met the old version later")

    def a_bad_release_is_rejected(self) -> None:
        words = self.fleet.release(
            "resource-guard", "2.0.0", guest("hostile"), "create_container:trap\n"
        )
        self.saw(self.fleet.fleet(*words))
        self.board.wait_rejected()
        self.board.wait_version("1.1.0")
        self.saw(self.machine.run("edge-agent status"), 16)
        self.has_limit(self.pods.run_container(self.pods.run_pod("good"), "after"), 96)

    def the_operator_rolls_back(self) -> None:
        for version in ("1.1.0", "1.0.0"):
            self.saw(self.fleet.fleet("rollback", "resource-guard", "--yes"), 2)
            generation = self.fleet.deployed()
            self.board.wait(
                lambda status, generation=generation: (  # type: ignore[misc]
                    status.get("updates", {}).get("generation") == generation
                ),
                f"generation {generation} runs",
            )
            self.board.wait_version(version)
            self.check(True, f"{version} is running")
        self.has_limit(self.pods.run_container(self.pods.run_pod("back"), "after"), 48)

    # --- what goes wrong

    def the_runtime_is_restarted(self) -> None:
        self.pods.remove_all()  # or containerd looks after all of them first
        pod = self.pods.run_pod("survives")
        lives = self.pods.run_container(pod, "lives")
        self.pods.inside(lives, "echo still here >/run.txt")
        self.machine.run("systemctl restart containerd")
        self.board.wait_running(GUARD, INJECTOR)
        found = self.pods.inside(lives, "cat /run.txt")
        self.check(found == "still here\n", "a container went on meanwhile")
        self.check(self.board.unit("NRestarts") == "0", "and so did the agent")
        self.new_containers_have_limits("restarted")

    def the_agent_is_killed(self) -> None:
        pid = self.board.unit("MainPID")
        self.machine.run(f"systemctl kill --signal=SIGKILL {UNIT}")
        self.board.wait_restarts(1)
        self.board.wait_running(GUARD, INJECTOR)
        self.check(self.board.unit("MainPID") not in ("0", pid), "systemd started it again")
        self.new_containers_have_limits("killed")

    def the_agent_hangs(self) -> None:
        begin = time.monotonic()
        self.machine.run(f"kill -STOP $(systemctl show {UNIT} --property MainPID --value)")
        self.board.wait_restarts(2)
        seconds = time.monotonic() - begin
        journal = self.machine.run(f"journalctl -u {UNIT} --no-pager --output=cat")
        told = [line for line in journal.splitlines() if "atchdog" in line]
        self.saw("\n".join(told))
        self.check(any("timeout" in line for line in told), "the watchdog ended it")
        self.board.wait_running(GUARD, INJECTOR)
        self.check(True, f"and it serves again; it was ended within {seconds:.0f} s")
        self.new_containers_have_limits("hung")

    def the_power_is_cut(self) -> None:
        before = self.board.status()["updates"]
        self.machine.cut_power()
        seconds = self.machine.boot()
        self.check(True, f"it is up again {seconds:.0f} s after the switch")
        self.board.wait_running(GUARD, INJECTOR)
        after = self.board.status()["updates"]
        for key in ("generation", "accepted"):
            self.check(after[key] == before[key], f"{key} is still {after[key]}", before[key])
        # What containerd knows of pods is from another life of the machine.
        self.pods.remove_all()
        self.new_containers_have_limits("again")
        self.board.wait_online()
        self.check(True, "the operator sees it online")

    # --- versions

    def the_package_is_upgraded(self) -> None:
        before = self.board.status()["updates"]
        self._install(self.packages[1])
        version = self.machine.run("dpkg-query --show --showformat='${Version}' edge-agent")
        self.check(version == "99.0", f"dpkg says {version}")
        self.check(self.board.unit("ActiveState") == "active", "the service runs")
        self.board.wait_running(GUARD, INJECTOR)
        now = self.board.status()
        self.check(now["node"] == NODE, "the configuration is as it was changed")
        self.check(
            now["updates"]["generation"] == before["generation"],
            f"generation {before['generation']} runs on",
        )
        self.new_containers_have_limits("upgraded")

    def it_is_switched_off_and_on(self) -> None:
        self.pods.remove_all()
        self.machine.power_off()
        seconds = self.machine.boot()
        self.check(True, f"it is up again {seconds:.0f} s after the switch")
        self.board.wait_running(GUARD, INJECTOR)
        self.saw(self.machine.run(f"systemctl status {UNIT} --no-pager --lines=0"), 4)
        moments = self.machine.run(
            f"for each in {UNIT} containerd; do"
            " systemctl show $each --property ActiveEnterTimestampMonotonic --value; done"
        ).split()
        self.check(int(moments[0]) > int(moments[1]), "the agent was ready after containerd")
        self.new_containers_have_limits("morning")

    def it_is_removed_and_purged(self) -> None:
        run = self.machine.run
        self.saw(run("apt-get --yes remove edge-agent 2>&1"), 4)
        self.check(self.board.unit("ActiveState") == "inactive", "the service ended")
        self.check(not self.board.there("/usr/bin/edge-agent"), "the program is gone")
        self.check(self.board.there(f"{STATE}/store"), "its state stays")
        container = self.pods.run_container(self.pods.run_pod("alone"), "alone")
        found = self._cgroup_file(container, "memory.max")
        self.check(found == "max", "containers are created without it, and without limits", found)
        run("apt-get --yes purge edge-agent 2>&1")
        for gone in (STATE, CONFIG, "/usr/lib/edge-agent"):
            self.check(not self.board.there(gone), f"{gone} is gone")
        left = run("ls /etc/edge-agent/plugins").split()
        self.check(f"{INJECTOR}.wasm" in left, "what a person put there stays")
        found = run("find /usr /var/lib/systemd /etc/systemd -name '*edge-agent*'")
        self.check(found == "", "nothing else is left", found)
        self.pods.remove_all()

    # --- helpers

    def copy_large_plugin(self) -> None:
        plugin = f"/etc/edge-agent/plugins/{LARGE}"
        self.machine.put(b'permissions = []\nfailure_policy = "Ignore"\n', f"{plugin}.toml")
        self.machine.put(go_annotator_module().read_bytes(), f"{plugin}.wasm")

    def remove_large_plugin(self) -> None:
        self.machine.run(f"rm /etc/edge-agent/plugins/{LARGE}.*")
        self.board.wait_gone(LARGE)

    def _install(self, package: Path) -> None:
        begin = time.monotonic()
        said = self.board.install(package)
        self.saw("\n".join(said.splitlines()[-4:]))
        self.check("does not start" not in said, f"apt ends after {time.monotonic() - begin:.0f} s")

    def _cgroup_file(self, container: str, file: str) -> str:
        """What the kernel has, as seen from inside."""
        return self.pods.inside(container, f"cat /sys/fs/cgroup/{file}").strip()

    def has_limit(self, container: str, mib: int) -> None:
        found = self._cgroup_file(container, "memory.max")
        self.check(found == str(mib * MIB), f"memory.max inside is {mib} MiB", found)

    def new_containers_have_limits(self, pod: str, mib: int = 48) -> None:
        found = self.board.new_limit(self.pods.run_pod(pod), "after")
        self.check(found == mib * MIB, "a new container has its limit", found)

    def _show_what_is_there(self) -> None:
        """For who looks into a failure."""
        for script in (
            "edge-agent status",
            f"journalctl -u {UNIT} --no-pager --lines=60 --output=short-monotonic",
            "journalctl -u containerd --no-pager --lines=20 --output=cat",
        ):
            if self.machine.on:
                try:
                    self.saw(self.machine.run(script, fails=True, timeout_s=60), 80)
                except AssertionError as error:
                    self.saw(str(error))


Step = tuple[str, Callable[[Story], None]]

STEPS: tuple[Step, ...] = (
    ("it boots", Story.boots),
    ("NRI is switched on", Story.nri_is_switched_on),
    ("the package is installed", Story.is_installed),
    ("doctor", Story.doctor_has_nothing_to_set_right),
    ("a first plugin", Story.a_first_plugin),
    ("a pod meets its limits", Story.a_pod_meets_its_limits),
    ("a device is injected", Story.a_device_is_injected),
    (
        "a compilation takes more memory than there is",
        Story.a_compilation_takes_more_memory_than_there_is,
    ),
    ("results over TLS", Story.results_over_tls),
    ("a deployment while containers are created", Story.a_deployment_while_containers_are_created),
    ("a bad release is rejected", Story.a_bad_release_is_rejected),
    ("the operator rolls back", Story.the_operator_rolls_back),
    ("the runtime is restarted", Story.the_runtime_is_restarted),
    ("the agent is killed", Story.the_agent_is_killed),
    ("the agent hangs", Story.the_agent_hangs),
    ("the power is cut", Story.the_power_is_cut),
    ("the package is upgraded", Story.the_package_is_upgraded),
    ("it is switched off and on", Story.it_is_switched_off_and_on),
    ("it is removed and purged", Story.it_is_removed_and_purged),
)
