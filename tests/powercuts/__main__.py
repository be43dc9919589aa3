"""`scripts/test-power-cuts`: a disk with the agent after cuts of the power at random moments.

Writes that were not flushed are lost or torn, as on a disk with a cache. Without `--board` the disk
holds what the agent keeps, and file system, kernel and agent are this machine's own. With it the
disk is a whole emulated board's. docs/boards.md says what is checked.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.boards import image
from tests.boards.filesystems import FILESYSTEMS
from tests.boards.fleet import FleetSide
from tests.boards.hardware import BOARDS
from tests.boards.packages import VERSIONS, agent_package
from tests.boards.transcript import Transcript
from tests.powercuts import disk
from tests.powercuts.boardcuts import BoardCuts
from tests.powercuts.cuts import PowerCuts
from tests.support.debian import DebianUnreachable
from tests.support.gobuild import PeerError
from tests.support.mosquitto import MOSQUITTO, OPENSSL


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-power-cuts", description=__doc__)
    parser.add_argument(
        "count", type=int, nargs="?", default=200, help="of the cuts (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the moments of the cuts (default: %(default)s)"
    )
    parser.add_argument("--board", choices=BOARDS, help="of a whole board, as Debian names it")
    parser.add_argument(
        "--filesystem",
        choices=FILESYSTEMS,
        default="ext4",
        help="of the board (default: %(default)s)",
    )
    parser.add_argument(
        "--boots",
        type=int,
        default=4,
        help="after so many of the cuts a board boots (default: %(default)s)",
    )
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="the engines' for the board (else built here)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="of a board that was broken: the log of its writes, and its disk as it was before",
    )
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.setdefault("PROFILE", "ci")  # of the engines: the same code, sooner
    # What runs and is mounted is ended in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    board = arguments.board
    filesystem = FILESYSTEMS[arguments.filesystem]
    if filesystem.name != "ext4" and not board:
        parser.error("--filesystem goes with --board: this machine's own kernel need not have it")
    reason = image.why_not(BOARDS[board], filesystem) if board else disk.why_not()
    if not reason and (MOSQUITTO is None or OPENSSL is None):
        reason = "not installed; apt-get install mosquitto openssl"
    if reason:
        sys.exit(f"test-power-cuts: {reason}")
    transcript = Transcript(f"power cuts, {board}, {filesystem.name}" if board else "power cuts")
    with tempfile.TemporaryDirectory(prefix="edge-cuts-") as name:
        folder = Path(name)
        try:
            with FleetSide(folder) as fleet:
                tested(arguments, fleet, transcript, folder).run()
        except (DebianUnreachable, PeerError, subprocess.CalledProcessError) as error:
            sys.exit(f"test-power-cuts: {error}")
        except AssertionError as error:
            print(f"\ntest-power-cuts: {error}")
            return 1
    print(f"\n{transcript.summary()}")
    return 0


def tested(
    arguments: argparse.Namespace, fleet: FleetSide, transcript: Transcript, folder: Path
) -> PowerCuts | BoardCuts:
    """DebianUnreachable, PeerError, CalledProcessError: no such board could be made."""
    count, seed = arguments.count, arguments.seed
    if not arguments.board:
        return PowerCuts(fleet, transcript, folder, count=count, seed=seed)
    hardware = BOARDS[arguments.board]
    first, second = (
        agent_package(hardware.arch, version, folder, arguments.wheels) for version in VERSIONS
    )
    return BoardCuts(
        fleet,
        transcript,
        folder,
        hardware=hardware,
        files=image.board_files(hardware, FILESYSTEMS[arguments.filesystem]),
        packages=(first, second),
        count=count,
        boots=arguments.boots,
        seed=seed,
        keep=arguments.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
