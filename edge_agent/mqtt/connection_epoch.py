"""Numbers for connections that grow over reboots, also where no clock does."""

import logging
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.store import files

log = logging.getLogger(__name__)

# More connections than one boot makes: one each second for twelve days.
CONNECTIONS = 1 << 20
# What JSON's numbers hold exactly everywhere.
MOST = 1 << 53


def next_epoch(path: Path, clock_ms: int) -> int:
    """A number above all that this node used; `path` remembers it.

    The clock's milliseconds where they are higher, so that a card that was written anew does
    not begin below what the fleet has seen; where nothing can be remembered the clock alone.
    """
    try:
        known = _known(path)
        number = max(known + CONNECTIONS, clock_ms) if known < MOST - CONNECTIONS else clock_ms
        files.make_folder(path.parent)
        files.write(path, b"%d\n" % number)
    except StoreError as error:
        log.warning("the number of this start is the clock's: %s", error)
        return clock_ms
    return number


def _known(path: Path) -> int:
    data = files.read(path, max_bytes=64) or b"0"
    try:
        return max(0, int(data))
    except ValueError:
        log.warning("%s: is damaged; numbers begin anew with the clock", path)
        return 0
