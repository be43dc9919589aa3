"""`scripts/test-power-cuts`: the agent's disk after cuts of the power at random moments.

Writes that were not flushed are lost or torn, as on a disk with a cache. The file system is this
machine's own, and so is the agent; see docs/boards.md for what is checked.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.boards.fleet import FleetSide
from tests.boards.transcript import Transcript
from tests.powercuts.cuts import PowerCuts
from tests.powercuts.disk import why_not
from tests.support.mosquitto import MOSQUITTO, OPENSSL


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-power-cuts", description=__doc__)
    parser.add_argument(
        "count", type=int, nargs="?", default=200, help="of the cuts (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the moments of the cuts (default: %(default)s)"
    )
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # What runs and is mounted is ended in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    reason = why_not()
    if not reason and (MOSQUITTO is None or OPENSSL is None):
        reason = "not installed; apt-get install mosquitto openssl"
    if reason:
        sys.exit(f"test-power-cuts: {reason}")
    transcript = Transcript("power cuts")
    with tempfile.TemporaryDirectory(prefix="edge-cuts-") as name:
        folder = Path(name)
        try:
            with FleetSide(folder) as fleet:
                chosen = {"count": arguments.count, "seed": arguments.seed}
                PowerCuts(fleet, transcript, folder, **chosen).run()
        except AssertionError as error:
            print(f"\ntest-power-cuts: {error}")
            return 1
    print(f"\n{transcript.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
