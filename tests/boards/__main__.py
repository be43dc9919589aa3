"""`scripts/test-board`: the agent on a whole emulated board, with a kernel, systemd and containerd.

Debian 13 for the architecture is installed into a disk image (once, kept in the user's cache) and
booted under QEMU; the agent's package is installed there as docs/install.md says, and what the
board then goes through is told step by step. A broker and an operator are on this machine, reached
over the emulator's network. Of time and memory an emulator tells little.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.boards import small, story
from tests.boards.board import Board
from tests.boards.fleet import FleetSide
from tests.boards.hardware import BOARDS
from tests.boards.image import board_files, why_not
from tests.boards.machine import Machine
from tests.boards.packages import VERSIONS, agent_package
from tests.boards.transcript import Transcript
from tests.support.debian import DebianUnreachable
from tests.support.gobuild import PeerError
from tests.support.mosquitto import MOSQUITTO, OPENSSL

STORIES = {"whole": story.STEPS, "small": small.STEPS}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-board", description=__doc__)
    parser.add_argument("arch", choices=BOARDS, help="as Debian names it")
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="DIR",
        help="take the wheels for this architecture that lie here, the engines' (else built here)",
    )
    parser.add_argument(
        "--memory", type=int, default=512, metavar="MIB", help="of the board (default: %(default)s)"
    )
    parser.add_argument(
        "--story",
        choices=STORIES,
        default="whole",
        help="small: what takes memory, five plugins, a pod, a compilation (default: %(default)s)",
    )
    parser.add_argument(
        "--less",
        type=int,
        nargs="+",
        default=[],
        metavar="MIB",
        help="in the small story: boot the same board with less memory afterwards, each in turn",
    )
    arguments = parser.parse_args()
    if arguments.less and arguments.story != "small":
        parser.error("--less is for --story small")
    os.environ.setdefault("PROFILE", "ci")  # of the engines: the same code, sooner
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # The machine is switched off, and files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    hardware = BOARDS[arguments.arch]
    reason = why_not(hardware)
    if not reason and (MOSQUITTO is None or OPENSSL is None):
        reason = "not installed; apt-get install mosquitto openssl"
    if reason:
        sys.exit(f"test-board: {reason}")
    with tempfile.TemporaryDirectory(prefix="edge-agent-board-") as name:
        folder = Path(name)
        try:
            files = board_files(hardware)
            packages = [
                agent_package(hardware.arch, version, folder, arguments.wheels)
                for version in VERSIONS
            ]
        except (DebianUnreachable, PeerError, subprocess.CalledProcessError) as error:
            sys.exit(f"test-board: {error}")
        transcript = Transcript(hardware.arch)
        try:
            with (
                FleetSide(folder) as fleet,
                Machine(hardware, files, folder, memory_mib=arguments.memory) as machine,
            ):
                board = Board(machine, fleet)
                told = story.Story(board, (packages[0], packages[1]), transcript)
                told.tell([*STORIES[arguments.story], *map(small.with_less, arguments.less)])
        except AssertionError as error:
            print(f"\ntest-board: {error}")
            return 1
    print(f"\n{transcript.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
