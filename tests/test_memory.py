"""What keeps the process small."""

import subprocess
import sys


def test_trimming_gives_free_memory_back_that_lies_below_what_is_used() -> None:
    said = output("""
from pathlib import Path
from edge_agent import process

def anonymous():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

process.keep_heap_small()
held = [bytes(600) for _ in range(50_000)]  # too large for Python's own allocator
last = bytes(600)
full = anonymous()
del held
kept = anonymous()
process.trim()
print(full - kept < 10_000, full - anonymous() > 20_000)
""")
    assert said == "True True\n"


def output(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
