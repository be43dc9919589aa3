"""Run random and hostile modules through every engine, for a while: scripts/fuzz.

Each seed makes a valid module (native/fuzz), which every engine must take, and a few mutations
of it. What a module does on one engine, metered or not, it must do on the others.
"""

import argparse
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from tests.fuzz.mutations import mutated
from tests.support import fuzzmodules

ENGINES = ("wasmtime", "wasmer", "wasmi")
MUTATIONS = 4  # of each module
# Of the processor's time, for one input on all engines. A compiler that takes longer for some KB,
# or a guest that is not stopped, is a finding.
PATIENCE_S = 120.0
LOOK_S = 5.0  # between two looks at that
# Inputs of one process: what an engine never gives back must not add up.
LIFE = 1000


class Worker:
    """The child that runs inputs, replaced when it dies or is old."""

    def __init__(self, engines: list[str]) -> None:
        self._command = [sys.executable, "-m", "tests.fuzz.worker", *engines]
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    def run(self, wasm: bytes, seed: int, valid: bool) -> tuple[list[str], Counter[str]]:
        """Findings and counts of an input."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._served = 0
        process = self._process
        task = {"size": len(wasm), "seed": seed, "valid": valid}
        stdin, stdout = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        try:
            stdin.write(json.dumps(task).encode() + b"\n" + wasm)
            stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: the answer says so
        until = _seconds_of(process.pid) + PATIENCE_S
        while not select.select([stdout], [], [], LOOK_S)[0]:
            if _seconds_of(process.pid) > until:
                process.send_signal(signal.SIGKILL)
                self.close()
                return [f"no end after {PATIENCE_S:.0f} s"], Counter()
        line = stdout.readline()
        if not line:
            code = self.close()
            return [f"the process died: {signal.strsignal(-code) if code < 0 else code}"], Counter()
        answer = json.loads(line)
        self._served += 1
        if self._served >= LIFE:
            self.close()
        return answer["findings"], Counter(answer["counts"])

    def close(self) -> int:
        """End it; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        cast(IO[bytes], process.stdin).close()
        code = process.wait()
        cast(IO[bytes], process.stdout).close()
        return code


def _seconds_of(pid: int) -> float:
    """Of the processor, that the process has taken so far: proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def modules(program: Path, seed: int) -> Iterator[tuple[int, bytes]]:
    """The modules of `seed` and those that follow, without end."""
    while True:
        command = [str(program), "modules", str(seed), "100"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            stdout = cast(IO[bytes], process.stdout)
            for _ in range(100):
                head = stdout.read(8)
                if len(head) < 8:
                    raise SystemExit(f"{program} made no module of seed {seed}")
                yield seed, stdout.read(struct.unpack("<Q", head)[0])
                seed += 1


def save(folder: Path, name: str, wasm: bytes, findings: list[str]) -> None:
    """A finding for people: the module, and what was seen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.wasm").write_bytes(wasm)
    (folder / f"{name}.txt").write_text("\n".join(findings) + "\n")
    print(f"{folder / name}.wasm: {findings[0][:600]}", flush=True)


def main() -> int:
    """Fuzz; 1 after a finding."""
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="only this; repeatable")
    parser.add_argument("--seed", type=int, help="where to begin (default: anywhere)")
    parser.add_argument("--count", type=int, help="so many seeds at most")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    chosen = parser.parse_args()
    seed = int.from_bytes(os.urandom(5)) if chosen.seed is None else chosen.seed
    engines = chosen.engine or list(ENGINES)
    try:
        program = fuzzmodules.program()
    except FileNotFoundError as error:
        raise SystemExit(f"scripts/fuzz: {error}") from None
    print(f"from seed {seed} on {', '.join(engines)}", flush=True)
    counts: Counter[str] = Counter()
    found = 0
    began = time.monotonic()
    worker = Worker(engines)
    first = seed
    for seed, wasm in modules(program, first):
        if time.monotonic() - began >= chosen.seconds or seed - first == chosen.count:
            break
        chance = random.Random(seed)
        inputs = [wasm, *(mutated(wasm, chance) for _ in range(MUTATIONS))]
        for number, one in enumerate(inputs):
            findings, counted = worker.run(one, seed, valid=number == 0)
            counts += counted
            counts["inputs"] += 1
            if findings:
                found += 1
                save(chosen.findings, f"{seed}-{number}", one, findings)
    worker.close()
    took = time.monotonic() - began
    details = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{seed - first} seeds: {details}")
    print(f"{counts['inputs']} inputs in {took:.0f} s, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
