"""A board with little memory: what fits beside each other there, and what happens when it does not.

A shorter story than tests.boards.story tells: a runtime with a pod, five plugins and the fleet's
connection, and compilations that meet the limit of the agent's cgroup and the end of the memory.
"""

from __future__ import annotations

from tests.boards.board import MIB, UNIT, Status, name
from tests.boards.memory import KERNELS_LOG, SHARES, Killed, fields, killed, shares
from tests.boards.story import GUARD, INJECTOR, LARGE, STATE, Step, Story

PLUGINS = {
    INJECTOR: ("device-injector", "toml wasm"),
    GUARD: ("resource-guard", "conf toml wasm"),
    "50-event-logger": ("event-logger", "conf toml wasm"),
    "60-event-logger": ("event-logger", "conf toml wasm"),
    "70-event-logger": ("event-logger", "conf toml wasm"),
}
SERVICES = (UNIT, "containerd")
PROCESSES = ("containerd", "containerd-shim", "systemd", "systemd-journal")
"""As /proc/PID/comm begins, which has 15 characters."""
COMPILERS_SCORE = 1000  # what wasm/compiler_process.py gives itself


def there_is_no_swap(story: Story) -> None:
    swaps = story.machine.read("/proc/swaps").splitlines()
    story.check(len(swaps) == 1, "no swap", swaps)
    show_memory(story)


def five_plugins(story: Story) -> None:
    for identity, (plugin, suffixes) in PLUGINS.items():
        story.board.copy_plugin(plugin, identity, *suffixes.split())
    story.board.wait_running(*PLUGINS)
    story.saw(story.machine.run("edge-agent status"), 16)
    story.check(True, f"{len(PLUGINS)} plugins are running")
    show_memory(story)


def a_pod_lives(story: Story) -> None:
    pod = story.pods.run_pod("lives")
    container = story.pods.run_container(pod, "lives")
    story.has_limit(container, 128)
    show_memory(story)


def it_reports_to_the_fleet(story: Story) -> None:
    story.board.join_the_fleet()
    story.board.wait_running(*PLUGINS)
    story.check(True, "the operator sees the board online, over TLS")
    nothing_was_ended(story)
    show_memory(story)


def a_compilation_takes_all_memory(story: Story) -> None:
    """With the limit that the package sets, which is more than such a board has."""
    limit = story.board.memory_limit()
    story.check(limit == str(640 * MIB), "the agent's cgroup may have 640 MiB", limit)
    before, pid = _killed(story), story.board.unit("MainPID")
    story.copy_large_plugin()
    found: list[Status] = []

    def decided(status: Status) -> bool:
        found[:] = [each for each in status.get("plugins", []) if name(each) == LARGE]
        return any(each["status"] == "running" or each.get("error") for each in found)

    story.board.wait(decided, f"{LARGE} is running, or has failed")
    ended = _killed(story)[len(before) :]
    story.saw("\n".join(map(str, ended)))
    if found[0]["status"] == "running":
        story.check(not ended, f"{LARGE} is running beside the others")
    else:
        story.saw(found[0]["error"])
        story.check("memory" in found[0]["error"], "it failed for want of memory, and says so")
        others = [each for each in ended if each.score != COMPILERS_SCORE]
        story.check(not others, "if the kernel ended anything, then the compiler", others)
    story.check(story.board.unit("MainPID") == pid, "the agent lives")
    show_memory(story)
    story.new_containers_have_limits("full", 128)
    story.remove_large_plugin()


def all_lives_on(story: Story) -> None:
    running = story.machine.run("crictl ps --quiet --name lives").split()
    story.check(len(running) == 1, "the pod's container runs", running)
    story.board.wait_running(*PLUGINS)
    restarts = {each: story.machine.unit(each, "NRestarts") for each in SERVICES}
    story.check(set(restarts.values()) == {"0"}, "no service was started again", restarts)
    story.board.wait_online()
    story.check(True, "the operator sees the board online")
    show_memory(story)


def with_less(mib: int) -> Step:
    """The same board with this much memory: it must do all that it does, anew.

    Its compiled code is gone, so that all plugins are compiled while everything starts.
    """

    def lives(story: Story) -> None:
        story.pods.remove_all()
        story.machine.run(f"systemctl stop {UNIT} && rm -r {STATE}/artifacts")
        story.machine.power_off()
        story.machine.memory_mib = mib
        story.check(True, f"systemd is running {story.machine.boot():.0f} s after the switch")
        there_is_no_swap(story)
        story.board.wait_running(*PLUGINS)
        story.check(True, f"{len(PLUGINS)} plugins are compiled again, and running")
        a_pod_lives(story)
        all_lives_on(story)
        nothing_was_ended(story)

    return f"{mib} MiB", lives


def show_memory(story: Story) -> None:
    """What the board has, the cgroups of the two services, and the shares of processes."""
    run = story.machine.run
    board = fields(story.machine.read("/proc/meminfo"))
    has, free = (board[key] / 1024 for key in ("MemTotal", "MemAvailable"))
    story.saw(f"MiB: {has:.0f} in all, {free:.0f} available")
    for unit in SERVICES:
        cgroup = story.machine.unit(unit, "ControlGroup")
        if not cgroup:
            continue  # it is not installed yet
        folder = f"/sys/fs/cgroup{cgroup}"
        stat = fields(run(f"cat {folder}/memory.stat"))
        counted = run(f"cd {folder} && cat memory.current memory.peak").split()
        whole, most = (int(each) / MIB for each in counted)
        own = (stat["anon"] + stat["shmem"] + stat["kernel"]) / MIB
        files = (stat["file"] - stat["shmem"]) / MIB
        story.saw(
            f"MiB of {unit}'s cgroup: {whole:.1f}, at most {most:.1f};"
            f" its own {own:.1f}, files {files:.1f}"
        )
    found = shares(run(SHARES), story.board.unit("MainPID"), PROCESSES)
    story.saw("MiB by process: " + ", ".join(f"{each} {mib:.1f}" for each, mib in found.items()))


def nothing_was_ended(story: Story) -> None:
    ended = _killed(story)
    story.check(not ended, "the kernel ended nothing so far", list(map(str, ended)))


def _killed(story: Story) -> list[Killed]:
    return killed(story.machine.run(KERNELS_LOG))


STEPS: tuple[Step, ...] = (
    ("it boots", Story.boots),
    ("there is no swap", there_is_no_swap),
    ("NRI is switched on", Story.nri_is_switched_on),
    ("the package is installed", Story.is_installed),
    ("five plugins", five_plugins),
    ("a pod lives", a_pod_lives),
    ("the fleet", it_reports_to_the_fleet),
    (
        "a compilation takes more memory than its cgroup may have",
        Story.a_compilation_takes_more_memory_than_there_is,
    ),
    ("a compilation takes all the board's memory", a_compilation_takes_all_memory),
    ("all lives on", all_lives_on),
)
