"""Hostile messages of nodes and of the broker, through all that the operator's commands do to them.

    python -m tests.operator.fuzz 1000000 [SEED]

Valid messages are changed in their values and in their bytes, as one board or the broker could.
Nothing may be raised, and nothing may be printed that drives a terminal.
"""

import io
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import msgpack  # type: ignore[import-untyped]

from edge_agent.cli.fleet_nodes import show_node, show_nodes
from edge_agent.cli.fleet_output import line, show_json
from edge_agent.cli.fleet_results import result_line, show_answer
from edge_agent.fleet_protocol.deployment import Deployment, parse, to_payload
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator import plan, rotation
from edge_agent.operator.blobs import in_order
from edge_agent.operator.deploy import believed
from edge_agent.operator.inbox import read_answer
from edge_agent.operator.keyring import Signed
from edge_agent.operator.overview import NOTHING, news, rows, snapshot, troubles
from edge_agent.operator.results import Merger
from edge_agent.operator.rollout import Course, decide, rollout_status
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View

ROOT = "edge/v1/f"
ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
NAMES = {ONE: "guard 1.0.0"}
BOARDS = tuple(f"board-{number}" for number in range(8))
REPORT_EVERY = 50_000

STATE: dict[str, Any] = {
    "agent": "0.1.0",
    "node": "board-1",
    "session": 3,
    "labels": {"site": "north"},
    "architecture": "aarch64",
    "engine": {"name": "wasmtime", "version": "50", "why": "the fastest"},
    "runtimes": [{"socket": "/run/nri.sock", "state": "ready", "name": "containerd"}],
    "memory": {"rss": 1, "pss": 2},
    "uptime_s": 7,
    "plugins": [
        {
            "name": "guard",
            "index": "20",
            "version": "1.0.0",
            "digest": ONE,
            "running": TWO,
            "status": "failed",
            "since": 1.5,
            "runtime": "/run/nri.sock",
            "events": 3,
            "failures": {"trap": 1},
            "latency_ms": {"p50": 0.1, "p99": 0.2},
            "error": "unreachable",
        }
    ],
    "updates": {
        "generation": 4,
        "accepted": 4,
        "pending": 5,
        "expired": False,
        "fetching": [{"digest": TWO, "progress": 0.5, "source": "mqtt", "trouble": "slow"}],
        "refused": {"reason": "expired", "text": "it expired", "count": 1, "generation": 5},
        "trust": {"version": 1, "threshold": 1, "keys": ["a"], "refused": None},
        "rejected": {TWO: "trap", f"{ONE}+1234567890123456": "trap"},
        "quarantined": {ONE: "crashed twice"},
        "trouble": "the disk is full",
    },
}
STATUS = {"status": "online", "session": 3}
RECORD: dict[str, Any] = {
    "seq": 1,
    "time": 1.5,
    "plugin": "20-guard",
    "event": "CreateContainer",
    "outcome": "adjusted",
    "pod": {"namespace": "default", "name": "web", "uid": "u"},
    "container": {"name": "app", "id": "c"},
    "adjusted": ["env"],
    "error": "no such device",
    "reports": [{"kind": "k", "content_type": "text/plain", "payload": "abc"}],
}
BATCH = {
    "version": 1,
    "node": "board-1",
    "stream": "s",
    "records": [{"gap": {"from": 1, "to": 7, "count": 7}}, RECORD],
}
ANSWER = {
    "id": "abc",
    "verb": "logs",
    "state": "failed",
    "reason": "no such plugin",
    "result": {"lines": [{"time": 1.0, "level": "info", "source": "s", "message": "hello"}]},
}
TEXTS = (
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202eabc",
    "\U000e0041\U000e007f",
    "\ud800",
    "a\nb\r\x08",
    "\u2028",
    "[bold red]x[/]",
    "x" * 70_000,
    "",
    "\u200b\ufeff\u00ad",
    "__proto__",
)
NUMBERS = (0, -1, 1 << 31, 1 << 53, (1 << 53) - 1, -(1 << 63), 1e308, -1e308, 5e-324, 0.5)
# No value of Python's: they are put into the encoded text.
RAW = (
    "7" * 400,
    "7" * 5000,
    "1e999",
    "NaN",
    "-Infinity",
    "-0",
    "[" * 1500,
    "{" * 1500,
    '{"a":' * 30,
)
MARK = "@raw@"


class Hostile:
    """Makes messages; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self) -> Any:
        """Something that does not belong there."""
        kind = self.random.randrange(8)
        if kind == 0:
            return self.random.choice(NUMBERS)
        if kind == 1:
            return self.nested(self.random.choice((3, 14, 17, 40, 300)))
        if kind == 2:
            return [self.random.choice((1, {}, [], "x", None))] * self.random.randrange(50)
        if kind == 3:
            return {self.random.choice(TEXTS): self.random.choice((1, [], {}, None, "x"))}
        if kind == 4:
            return self.random.choice((None, True, False, MARK))
        return self.random.choice(TEXTS)

    def nested(self, depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value] if self.random.random() < 0.7 else {"a": value}
        return value

    def changed(self, value: Any, chance: float) -> Any:
        """The same with some of its parts replaced."""
        if self.random.random() < chance:
            return self.value()
        if isinstance(value, dict):
            found = {key: self.changed(each, chance) for key, each in value.items()}
            if self.random.random() < chance:
                found[self.random.choice(TEXTS)] = self.value()
            return found
        if isinstance(value, list):
            return [self.changed(each, chance) for each in value]
        return value

    def message(self, valid: object, *, batches: bool = False) -> bytes:
        """`valid`, changed and encoded, and perhaps damaged after that."""
        value = self.changed(valid, self.random.choice((0.0, 0.02, 0.05, 0.2)))
        if batches and self.random.random() < 0.5:
            try:
                data: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
            except (ValueError, OverflowError):
                data = b"\x91" * 1500
        else:
            text = json.dumps(value, ensure_ascii=self.random.random() < 0.5)
            while f'"{MARK}"' in text:
                text = text.replace(f'"{MARK}"', self.random.choice(RAW), 1)
            data = text.encode("utf-8", "surrogatepass")
        while self.random.random() < 0.3 and data:
            at = self.random.randrange(len(data))
            byte = bytes((self.random.randrange(256),))
            data = self.random.choice(
                (data[:at], data[:at] + byte + data[at:], data[:at] + byte + data[at + 1 :])
            )
        return data

    def topic(self, leaf: str) -> str:
        """Of a board; at times of what is none."""
        if self.random.random() < 0.95:
            return f"{ROOT}/nodes/{self.random.choice(BOARDS)}/{leaf}"
        return f"{ROOT}/nodes/{self.random.choice((*TEXTS, '+', '#', 'a/b'))}/{leaf}"


class Operator:
    """What the commands do with what comes; raises what they would."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile = hostile
        self.view = View()
        self.merger = Merger()
        self.key = SigningKey.generate()
        self.trust = TrustSet("f", 1, 1, (self.key.public,))
        self.document = a_deployment()
        self.payload = self.document.payload
        self.kinds: tuple[Callable[[], None], ...] = (
            *(self.state, self.state, self.status, self.result, self.result),
            *(self.answer, self.blobs, self.deployment, self.chain),
        )

    def step(self) -> None:
        self.hostile.random.choice(self.kinds)()

    def state(self) -> None:
        self._fed("state", STATE)

    def status(self) -> None:
        self._fed("status", STATUS)

    def _fed(self, leaf: str, valid: object) -> None:
        """`nodes`, `node`, `watch`, `plan`, `rollout`."""
        topic = self.hostile.topic(leaf)
        found = self.view.feed(Received(topic, self.hostile.message(valid), True))
        if found is None:
            return
        for as_json in (False, True):
            show_node(found, NAMES, as_json)
        after = snapshot(found)
        for each in news(found.name, NOTHING, after, NAMES):
            line(f"{each.node}  {each.text}")
        one = View()
        one.nodes[found.name] = found
        for as_json in (False, True):
            show_nodes(one, "f", as_json)
        for trouble in troubles(one, NAMES):
            line(f"{trouble.node}  {trouble.text}")
        for row in rows(one, self.document):
            line(f"{row.identity} {row.version} {row.on_the_way}")
        found_standing = rollout_status(one, self.document, "guard", "1.1.0")
        decide(Course(), found_standing, 10, 100.0, False)
        show_json([*found_standing.failed.items()])
        show_json([each._asdict() for each in plan.changes(one, None, self.document)])

    def result(self) -> None:
        """`results`, `watch`; what is noted between two looks."""
        payload = self.hostile.message(BATCH, batches=True)
        for item in self.merger.feed(self.hostile.topic("results"), payload):
            line(*result_line(item))
            show_json(item.as_json())
        if self.hostile.random.random() < 0.01:
            for item in self.merger.take_missing():
                line(*result_line(item))
            noted = json.dumps(self.merger.as_json()).encode()
            self.merger = Merger.from_json(json.loads(noted))

    def answer(self) -> None:
        """`request`."""
        answer = read_answer(self.hostile.message(ANSWER), "abc")
        if answer is not None:
            show_answer("board-1", "logs", answer)
            show_json(answer)

    def blobs(self) -> None:
        """`gc`."""
        choose = self.hostile.random.choice
        parts = ("0", "1", "11", "zz", "-1", "007", "9" * 30, "+", *TEXTS)
        hexes = ("ab" * 32, "AB" * 32, "#", *TEXTS)
        in_order([f"{ROOT}/blobs/{choice(hexes)}/{choice(parts)}" for choice in (choose,) * 5])

    def deployment(self) -> None:
        """Every command that reads the broker's deployment."""
        signed = Signed.sign(
            "application/vnd.edge-agent.deployment+json",
            self.payload,
            self.trust.keys,
            [self.key],
        )
        found = believed(self.hostile.message(json.loads(signed.raw)), self.trust, None)
        line(found.problem)

    def chain(self) -> None:
        """`trust rotate`."""
        rotation.chained(self.hostile.message([{"payload": "x", "signatures": []}]), b"{}")


def a_deployment() -> Deployment:
    """One plugin, a new release for half of the nodes."""

    def release(version: str, digest: str) -> dict[str, object]:
        blob = {"digest": digest, "size": 5000, "encoding": "zlib"}
        return {"version": version, "blob": {**blob, "parts": 1, "part_size": 65536}}

    new = {**release("1.1.0", TWO), "rollout": {"percent": 50, "seed": "s"}}
    plugin = {"name": "guard", "index": "20", "releases": [new, release("1.0.0", ONE)]}
    document = {"kind": "edge-agent.deployment", "fleet": "f", "generation": 4, "plugins": [plugin]}
    times = {"issued": "2026-11-25T00:00:00Z", "expires": "2026-12-25T00:00:00Z"}
    return parse(to_payload({**document, **times}), fleet="f")


class Checked(io.StringIO):
    """A terminal that only counts; AssertionError for what would drive a real one."""

    printed = 0

    def write(self, text: str) -> int:
        for each in text.split("\n"):
            assert each.isprintable(), ascii(each[:200])
        self.printed += len(text)
        return len(text)


def run(count: int, seed: int, told: Callable[[int], None] = lambda _done: None) -> int:
    """So many messages; how many characters were printed. Raises what a command would."""
    operator = Operator(Hostile(seed))
    terminal = Checked()
    with redirect_stdout(terminal):
        for number in range(count):
            operator.step()
            if number % REPORT_EVERY == REPORT_EVERY - 1:
                told(number + 1)
    return terminal.printed


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFF_FFFF
    print(f"seed {chosen}", file=sys.stderr, flush=True)
    shown = run(wanted, chosen, lambda done: print(done, file=sys.stderr, flush=True))
    print(f"{wanted} messages, {shown} characters printed, nothing raised", file=sys.stderr)
