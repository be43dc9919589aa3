"""Whose word counts here and now: from the node's files, and what the fleet made of them since."""

import logging
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.config import UpdatesConfig
from edge_agent.errors import ConfigError, RefusedError
from edge_agent.fleet import trustfiles
from edge_agent.fleet_protocol import trust
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue import Catalogue

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import TrustState

log = logging.getLogger(__name__)


class Standing(NamedTuple):
    """Whose word counts at the moment."""

    trust: TrustSet | None
    trouble: str  # why nobody's does
    now: float  # the latest time that is known to have passed, in seconds since 1970
    clock_stands: bool = False  # `now` is a document's or the agent's own, later than the clock's


class TrustKeeper:
    """Without good files nobody is trusted; what runs already goes on."""

    def __init__(self, config: UpdatesConfig, fleet: str) -> None:
        self._config = config
        self._fleet = fleet
        self._root: TrustSet | None = None  # of the files
        self._current: TrustSet | None = None
        self._told_expired = 0  # the version whose end the log has
        self.trouble = ""  # why nobody is trusted

    def read(self, catalogue: Catalogue) -> None:
        """Look at the files."""
        self._root = self._current = None
        config = self._config
        try:
            root = trustfiles.read_root(
                config.trust_dir, fleet=self._fleet, threshold=config.threshold
            )
            self._current = trust.in_force(root, catalogue.trust, catalogue.trust_root)
            self._root, self.trouble = root, ""
        except (ConfigError, RefusedError) as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                log.error("no deployment can be taken: %s", error)

    def current(self, catalogue: Catalogue) -> TrustSet | None:
        """The set in force; None if there is none, after another look at the files."""
        if self._current is None:
            self.read(catalogue)
        return self._current

    @property
    def last_read(self) -> TrustSet | None:
        """The same without a look."""
        return self._current

    def rotated(self, raw: bytes, catalogue: Catalogue) -> Catalogue | None:
        """The catalogue with the newest set in `raw`; None: nothing new. Then `read` it.

        RefusedError, CryptoError.
        """
        current = self.current(catalogue)
        if current is None or self._root is None:
            return None
        newest = trust.rotated(raw, current)
        if newest is None:
            return None
        log.info("trust becomes version %d, with %d keys", newest.version, len(newest.keys))
        return catalogues.trusted(catalogue, trust.to_payload(newest), trust.name(self._root))

    def status(self, now: float) -> "TrustState":
        """For reports; `now` is the latest time that is known to have passed."""
        if self._current is None:
            return {"trouble": self.trouble}
        current = self._current
        told: TrustState = {
            "version": current.version,
            "threshold": current.threshold,
            "keys": [key.keyid for key in current.keys],
        }
        if current.validity is not None:
            told["issued"], told["expires"] = map(int, current.validity)
            told["expired"] = current.validity.over(now)
            self._tell_expired(current, now)
        return told

    def _tell_expired(self, current: TrustSet, now: float) -> None:
        """In the log, once for each set."""
        try:
            current.vouch(now)
        except RefusedError as error:
            if self._told_expired != current.version:
                self._told_expired = current.version
                log.warning("no new deployment is taken, what runs goes on: %s", error)
