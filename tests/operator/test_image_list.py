"""docs/fleet.md, "Only images of a list": its five commands, over a real broker with real agents.

The boards' runtimes are simulated; the commands are those of the page but for times, which options
shorten, and `-y`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.operator.conftest import ROOT, Home
from tests.support.agent import Agent, guest
from tests.support.mosquitto import needs_mosquitto
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]

_, _, SECTION = (ROOT / "docs" / "fleet.md").read_text().partition("\n## Only images of a list\n")
SECTION, _, _ = SECTION.partition("\n## ")
COMMANDS = re.findall(r"^    edge-agent fleet (.*)$", SECTION, re.M)
(LIST,) = re.findall(r"^```\n(.*?)^```$", SECTION, re.M | re.S)
POLICY = "30-image-policy"
INSIDE, OUTSIDE = "registry.example/app:1", "evil.example/miner:1"


class Board:
    """An agent of the fleet at a simulated runtime."""

    def __init__(self, agent: Agent, runtime: SimRuntime) -> None:
        self.agent = agent
        self._runtime = runtime
        self._made = 0

    def create(self, image: str, namespace: str = "default") -> str:
        """Make a container; why it was refused, empty if it was not."""
        self._made += 1
        pod = self._runtime.run_pod(f"pod-{self._made}", namespace).pod
        outcome = self._runtime.create_container(pod, "main", image=image)
        return outcome.error

    def wait_mode(self, mode: str) -> None:
        def there(status: dict[str, object]) -> bool:
            found = self.agent.entries(POLICY, status)
            return bool(found) and all(
                (each.get("mode", "enforce"), each["status"]) == (mode, "running")
                and "running" not in each
                for each in found
            )

        self.agent.wait_for(there, f"{POLICY} is in {mode} mode")


@contextmanager
def boards(home: Home, folder: Path, *names: str) -> Iterator[list[Board]]:
    """Running, trusting the folder's keys, and enrolled in it."""
    with ExitStack() as stack:
        made = []
        for name in names:
            (folder / name).mkdir()
            runtime = stack.enter_context(
                SimRuntime(folder / name / "nri.sock", request_timeout_s=TIMEOUT_S)
            )
            agent = Agent(
                folder / name,
                sockets=[Path(runtime.path)],
                node=name,
                fleet="greenhouse",
                mqtt={"url": f"mqtt://127.0.0.1:{home.port}"},
                updates={"trust_dir": str(home.path / "trust"), "probation": "1s"},
            )
            stack.enter_context(agent)
            agent.wait_for(lambda status: status["mqtt"]["state"] == "connected", "it is connected")
            home.fleet("enrol", name, "--key", str(folder / name / "state" / "node.pem"), "-y")
            made.append(Board(agent, runtime))
        yield made


def typed(number: int, *more: str) -> tuple[str, ...]:
    """One of the page's commands, with options behind it."""
    return (*shlex.split(COMMANDS[number - 1]), *more)


def test_the_page_has_five_commands() -> None:
    assert [shlex.split(each)[0] for each in COMMANDS] == [
        *("publish", "rollout", "results", "rollout", "rollout")
    ]


def test_a_list_is_monitored_then_enforced_on_a_canary_and_then_everywhere(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    home.first = ()  # the page says it
    with boards(home, tmp_path, "board-1", "board-2", "board-3") as fleet:
        canary, *others = fleet
        monkeypatch.chdir(home.path)
        shutil.copy(guest("image-policy"), home.path / "image-policy.wasm")
        (home.path / "images.conf").write_text(LIST)

        home.fleet(*typed(1))
        told = home.fleet(*typed(2, "-y"))
        assert "only monitored" in told
        assert "may change everything" not in told
        for each in fleet:
            each.wait_mode("monitor")

        # Nothing is refused; what would be is told. The broker keeps it between two calls.
        told = home.fleet(*typed(3, "--seconds", "1", "--json"))
        for each in fleet:
            assert each.create(INSIDE) == ""
            assert each.create(OUTSIDE) == ""
            assert each.create(OUTSIDE, "kube-system") == ""

        def all_boards() -> bool:
            nonlocal told
            told += home.fleet(*typed(3, "--seconds", "1", "--json"))
            return len(told.splitlines()) >= len(fleet)

        wait_until(all_boards, "what each board would refuse arrives")
        records = [json.loads(line) for line in told.splitlines()]
        assert sorted(each["node"] for each in records) == ["board-1", "board-2", "board-3"]
        for each in records:
            assert each["outcome"] == "would_reject"
            assert f"{OUTSIDE} is not on the list of images" in json.dumps(each)

        # The canary refuses, with the list that was monitored; the others do not.
        told = home.fleet(*typed(4, "-y"))
        assert "1 named node: 1 of 3 nodes: board-1" in told
        changed = [each.strip() for each in told.splitlines() if each.strip()[:1] in ("-", "+")]
        assert [each for each in changed if each[:3] not in ("---", "+++")] == [
            *("-mode = monitor", "+mode = enforce")
        ]
        canary.wait_mode("enforce")
        refused = f"plugin {POLICY}: {OUTSIDE} is not on the list of images"
        assert refused in canary.create(OUTSIDE)
        assert canary.create(INSIDE) == canary.create(OUTSIDE, "kube-system") == ""
        wait_until(
            lambda: '"outcome": "rejected"' in home.fleet("results", "--json"),
            "the refusal is among the results",
        )
        for each in others:
            assert each.create(OUTSIDE) == ""

        told = home.fleet(*typed(5, "--soak", "1s", "-y"))
        for each in fleet:
            each.wait_mode("enforce")
            assert refused in each.create(OUTSIDE)
            assert each.create(INSIDE) == ""

        told = home.fleet("rollback", "image-policy", "-y")
        for each in fleet:
            each.wait_mode("monitor")
            assert each.create(OUTSIDE) == ""
