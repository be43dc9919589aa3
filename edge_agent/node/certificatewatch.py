"""Warns before this node's certificate for the broker ends: afterwards the node is unreachable."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_agent.errors import ConfigError
from edge_agent.loop import Loop, Timer
from edge_agent.mqtt import certificate
from edge_agent.validity import Validity

log = logging.getLogger(__name__)

LOOK_S = 6 * 3600.0  # between two looks at the file, which is renewed in its place


class CertificateWatch:
    """Looks at the start, at each reload and now and then. All methods belong to the loop's
    thread."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`run` has something done on a thread that may wait for the disk."""
        self._loop = loop
        self._run = run
        self._changed = changed
        self._clock = clock
        self._found: Validity | None = None
        self._logged = ""  # so that it is in the log once for each certificate
        self._timer: Timer | None = None

    def watch(self, path: Path) -> None:
        """Look at this file from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LOOK_S, partial(self.watch, path))
        self._run(partial(self._look, path))

    def reported(self) -> dict[str, int] | None:
        """For the fleet; None: there is none that can be read."""
        if self._found is None:
            return None
        return {"issued": int(self._found.issued), "expires": int(self._found.expires)}

    def _look(self, path: Path) -> None:
        """On the other thread."""
        try:
            found = certificate.read(path)
        except ConfigError:
            found = None  # the link reports why it cannot connect with it
        self._loop.call_soon(partial(self._looked, path, found))

    def _looked(self, path: Path, found: Validity | None) -> None:
        before, self._found = self._found, found
        if found != before:
            self._logged = ""
            self._changed()
        told = found.ending(self._clock()) if found is not None else ""
        word = told[:8]  # "expires " or "expired ": each once, not each number of days
        if told and word != self._logged:
            self._logged = word
            log.warning(
                "%s %s; whoever has the fleet's authority renews it:"
                " configs/mosquitto/certificate renew %s",
                path,
                told,
                path.stem,
            )
