"""What each import of a running agent adds to its memory, in the order in which they come."""

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.figures import Aim
from tests.support.gobuild import ROOT

# The agent's, from what is below to what is above: what several need counts for the first.
IMPORTS = (
    ("the standard library's common part", "logging, pathlib, re, selectors, typing"),
    ("dataclasses", "dataclasses"),
    ("configuration", "edge_agent.config"),
    ("protobuf", "google.protobuf.message, google.protobuf.descriptor_pool"),
    ("messages of NRI", "edge_agent.pb.nri_pb2, edge_agent.pb.ttrpc_pb2, edge_agent.pb.edge_pb2"),
    ("the rest of the agent", "edge_agent.agent"),
    ("Wasmer's and wasmi's library", "edge_agent_engines"),
    ("SSL", "ssl"),
    ("MessagePack", "msgpack"),
    ("paho", "paho.mqtt.client"),
    ("the link to the broker", "edge_agent.node.remote, edge_agent.mqtt.connection"),
)
_PROGRAM = """
import gc, json, sys
from edge_agent import process
process.keep_heap_small()
def look():
    gc.collect()
    process.trim()
    found = {}
    for line in open("/proc/self/smaps_rollup"):
        name, *rest = line.split()
        if name in ("Rss:", "Private_Dirty:"):
            found[name] = int(rest[0]) * 1024
    return [found["Rss:"], found["Private_Dirty:"]]
seen = [look()]
for names in json.loads(sys.argv[1]):
    exec(f"import {names}")
    seen.append(look())
print(json.dumps(seen))
"""


def measure(_folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Import them one after the other, in processes of their own."""
    rounds = 2 if quick else 5
    found = []
    for number in range(rounds):
        say(f"importing, round {number + 1} of {rounds}")
        found.append(_grown())
    each = {}
    for at, name in enumerate(["the interpreter and ctypes", *(name for name, _ in IMPORTS)]):
        rss, dirty = (statistics.median(run[at][which] for run in found) for which in (0, 1))
        each[name] = {"rss": rss, "private_dirty": dirty}
    return {"imports": each}


def _grown() -> list[list[int]]:
    """Bytes of RSS and private dirty memory: of the bare interpreter, then of each import."""
    command = [sys.executable, "-c", _PROGRAM, json.dumps([names for _, names in IMPORTS])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    seen: list[list[int]] = json.loads(done.stdout)
    grown = [
        [after - before for before, after in zip(one, two, strict=True)]
        for one, two in itertools.pairwise(seen)
    ]
    return [seen[0], *grown]


def aims(_result: dict[str, Any]) -> list[Aim]:
    """None of its own: they are the board's."""
    return []
