"""What a person does on a board with the agent, and waits for there."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.boards.fleet import NODE, FleetSide
from tests.boards.image import IMAGE_ARCHIVE
from tests.boards.machine import HOST, BoardError, Machine
from tests.boards.pods import Pods, container_config
from tests.boards.settings import changed
from tests.support.agent import PLUGINS
from tests.support.wait import wait_until

UNIT = "edge-agent"
CONFIG = "/etc/edge-agent/agent.toml"
NRI_SOCKET = "/var/run/nri/nri.sock"
MIB = 1 << 20
# How long something may take on an emulated board beside other work; a passing run waits less.
PATIENCE_S = 600.0
PAUSE_S = 1.0  # between two questions, which take the board's processor
# docs/runtimes.md, for containerd 1.7.
NRI_ON = """
[plugins.'io.containerd.nri.v1.nri']
  disable = false
  disable_connections = false
  socket_path = "/var/run/nri/nri.sock"
"""
# Creates containers without pause, and writes down the memory limit of each.
BURST = """
pod=$1 number=0
while [ ! -e /run/burst.end ]; do
  number=$((number + 1))
  sed "s/NAME/c$number/" /run/burst.json >/run/burst-one.json
  if container=$(crictl create "$pod" /run/burst-one.json "/run/pods/$pod" 2>/run/burst.error); then
    crictl inspect -o go-template --template '{{.info.runtimeSpec.linux.resources.memory.limit}}' \
      "$container" >>/run/burst.log
    crictl rm "$container" >/dev/null
  else
    echo "refused: $(tr '\\n' ' ' </run/burst.error)" >>/run/burst.log
  fi
done
"""

Status = dict[str, Any]


class Board:
    """A machine that is on, with containerd; the fleet that it may join."""

    def __init__(self, machine: Machine, fleet: FleetSide) -> None:
        self.machine = machine
        self.fleet = fleet
        self.pods = Pods(machine)

    # --- what a person does

    def import_image(self) -> None:
        self.machine.run(f"ctr --namespace=k8s.io images import --local {IMAGE_ARCHIVE}")
        assert "busybox" in self.machine.run("crictl images")

    def switch_nri_on(self) -> None:
        """As docs/runtimes.md says."""
        self.machine.run(
            f"head -c {len(NRI_ON)} >>/etc/containerd/config.toml", input=NRI_ON.encode()
        )
        self.machine.run("systemctl restart containerd")
        wait_until(lambda: self.there(NRI_SOCKET), "the socket of NRI", PATIENCE_S)

    def install(self, package: Path) -> str:
        """As docs/install.md says; what apt said."""
        self.machine.put(package.read_bytes(), f"/root/{package.name}")
        return self.machine.run(
            f"DEBIAN_FRONTEND=noninteractive apt-get install --yes ./{package.name} 2>&1"
        )

    def copy_plugin(self, name: str, identity: str, *suffixes: str) -> None:
        """From those that the package brings, as docs/install.md says."""
        target = f"/etc/edge-agent/plugins/{identity}"
        self.machine.run(
            f"cd /usr/share/edge-agent/plugins; for each in {' '.join(suffixes)};"
            f" do cp {name}.$each {target}.$each; done"
        )

    def join_the_fleet(self) -> None:
        """As configs/mosquitto/README.md says, "Each node"; waits until the operator sees it."""
        authority, cert, key = self.fleet.broker.credentials(NODE)
        for file in (authority, cert, key):
            self.machine.put(file.read_bytes(), f"/etc/edge-agent/{file.name}", 0o600)
        for name, content in self.fleet.trust().items():
            self.machine.put(content, f"/etc/edge-agent/trust/{name}")
        text = changed(
            self.machine.read(CONFIG),
            {
                "": {"node": NODE, "fleet": "default"},
                "mqtt": {
                    "url": f"mqtts://{HOST}:{self.fleet.broker.port}",
                    "ca_file": authority.name,
                    "cert_file": cert.name,
                    "key_file": key.name,
                    # The certificate of this broker is for the host's own name for itself.
                    "tls_server_name": "localhost",
                },
                "updates": {"trust_dir": "trust", "probation": "20s"},
            },
        )
        self.machine.put(text.encode(), CONFIG)
        self.machine.run(f"edge-agent config check -c {CONFIG}")
        self.machine.run(f"systemctl restart {UNIT}")
        self.wait_online()

    def roll_out(self, version: str, mib: int, *words: str) -> str:
        """A release of resource-guard that gives containers `mib`; waits until it runs here."""
        module = PLUGINS / "resource-guard" / "resource-guard.wasm"
        config = f"[default]\nmemory.default = {mib}Mi\n"
        rollout = self.fleet.release("resource-guard", version, module, config)
        said = self.fleet.fleet(*rollout, *words)
        self.wait_version(version)
        generation = self.fleet.deployed()
        self.wait(
            lambda status: status.get("updates", {}).get("generation") == generation,
            f"the board runs generation {generation}",
        )
        return said

    def new_limit(self, pod: str, name: str) -> int:
        """The memory limit that a new container is given, in bytes."""
        container = self.pods.create(pod, name)
        template = "{{.info.runtimeSpec.linux.resources.memory.limit}}"
        said = self.machine.run(
            f"crictl inspect -o go-template --template {shlex.quote(template)} {container}"
        )
        return int(said)

    # --- containers without pause

    def burst_begins(self) -> None:
        pod = self.pods.run_pod("burst")
        self.machine.put(json.dumps(container_config("NAME")).encode(), "/run/burst.json")
        self.machine.put(BURST.encode(), "/run/burst")
        self.machine.run(
            "rm -f /run/burst.end /run/burst.log; touch /run/burst.log;"
            f" systemd-run --quiet --unit=burst --setenv=HOME=/root bash /run/burst {pod}"
        )
        self.burst_goes_on()

    def burst_goes_on(self, count: int = 3) -> None:
        """Wait for so many containers more."""

        def lines() -> int:
            return int(self.machine.run("wc -l </run/burst.log"))

        wanted = lines() + count
        wait_until(lambda: lines() >= wanted, f"{count} more containers", PATIENCE_S)

    def burst_ends(self) -> list[str]:
        """For each container its limit, or why it was refused."""
        self.burst_goes_on()
        self.machine.run(
            "touch /run/burst.end; while systemctl --quiet is-active burst; do sleep 1; done"
        )
        return self.machine.read("/run/burst.log").splitlines()

    # --- what is there

    def there(self, path: str) -> bool:
        return self.machine.run(f"test -e {shlex.quote(path)}; echo $?").strip() == "0"

    def unit(self, key: str) -> str:
        """A property of the agent's unit."""
        return self.machine.unit(UNIT, key)

    def memory_limit(self) -> str:
        """Of the agent's cgroup, as the kernel has it."""
        return self.machine.read(f"/sys/fs/cgroup{self.unit('ControlGroup')}/memory.max").strip()

    def status(self) -> Status:
        """What the agent says of itself; empty while it does not answer."""
        said = self.machine.run("edge-agent status --json 2>/dev/null", fails=True)
        try:
            found: Status = json.loads(said)
        except ValueError:
            return {}
        return found

    # --- what is waited for

    def wait(self, condition: Callable[[Status], object], what: str) -> None:
        def asked() -> object:
            time.sleep(PAUSE_S)
            return condition(self.status())

        wait_until(asked, what, PATIENCE_S)

    def wait_running(self, *identities: str) -> None:
        def running(status: Status) -> bool:
            found = {
                name(each): each["status"]
                for each in status.get("plugins", [])
                if each.get("runtime") == NRI_SOCKET
            }
            return all(found.get(each) in ("running", "probation") for each in identities)

        self.wait(running, f"{' and '.join(identities)} are running")

    def wait_gone(self, identity: str) -> None:
        self.wait(
            lambda status: "plugins" in status and identity not in map(name, status["plugins"]),
            f"{identity} is gone",
        )

    def wait_version(self, version: str) -> None:
        self.wait(
            lambda status: any(
                each.get("version") == version and each["status"] in ("running", "probation")
                for each in status.get("plugins", [])
            ),
            f"version {version} is running",
        )

    def wait_rejected(self) -> None:
        """Until what was deployed last is rejected; containers are created for it meanwhile."""
        generation = self.fleet.deployed()
        pod = self.pods.run_pod("bad")

        def rejected() -> bool:
            try:
                self.pods.create(pod, f"c{time.monotonic_ns()}")
            except BoardError:
                pass  # by the release that is bad
            updates = self.status().get("updates", {})
            return updates.get("generation") == generation and bool(updates.get("rejected"))

        wait_until(rejected, f"generation {generation} is rejected", PATIENCE_S)

    def wait_restarts(self, count: int) -> None:
        wait_until(
            lambda: int(self.unit("NRestarts")) >= count,
            f"systemd started it {count} times again",
            PATIENCE_S,
        )

    def wait_online(self) -> None:
        """Until the operator sees this session of the board."""

        def online() -> bool:
            return bool(self.fleet.node().get("status") == "online")

        wait_until(online, "the board is online", PATIENCE_S)


def name(entry: Status) -> str:
    """`NN-name` of an entry of the status."""
    return f"{entry.get('index', '')}-{entry['name']}"
