"""The set of trusted keys in force: the operator's files on this node, and the fleet's rotations
since.

TRUST_DIR/*.pem        public keys, one in each file
TRUST_DIR/version      which version of the fleet's set they are; absent: the first
TRUST_DIR/validity     when it was issued and when it expires; absent: it does not expire
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.config import UpdatesConfig
from edge_agent.config.document import Document, read_text
from edge_agent.config.table import Table
from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError, KeyFormatError, RefusedError
from edge_agent.fleet_protocol import form, keys, trust
from edge_agent.fleet_protocol.trust import MAX_KEYS, TrustSet
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue import Catalogue

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import TrustState

log = logging.getLogger(__name__)


class TrustInForce(NamedTuple):
    """The trusted keys at the moment."""

    trust: TrustSet | None
    reason: str  # why none is trusted
    now: float  # the latest time that is known to have passed, in seconds since 1970
    clock_stands: bool = False  # `now` is a document's or the agent's own, later than the clock's


class TrustKeeper:
    """Without good files no key is trusted; what runs already goes on."""

    def __init__(self, config: UpdatesConfig, fleet: str) -> None:
        self._config = config
        self._fleet = fleet
        self._root: TrustSet | None = None  # of the files
        self._current: TrustSet | None = None
        self._told_expired = 0  # the version whose end the log has
        self.last_error = ""  # why no key is trusted

    def read(self, catalogue: Catalogue) -> None:
        """Look at the files."""
        self._root = self._current = None
        config = self._config
        try:
            root = read_root(config.trust_dir, fleet=self._fleet, threshold=config.threshold)
            self._current = trust.in_force(root, catalogue.trust, catalogue.trust_root)
            self._root, self.last_error = root, ""
        except (ConfigError, RefusedError) as error:
            if str(error) != self.last_error:
                self.last_error = str(error)
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
            return {"trouble": self.last_error}
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
            current.check_in_force(now)
        except RefusedError as error:
            if self._told_expired != current.version:
                self._told_expired = current.version
                log.warning("no new deployment is taken, what runs goes on: %s", error)


MAX_VERSION_DIGITS = 15  # all of them are whole numbers in any JSON


def read_root(folder: Path, *, fleet: str, threshold: int) -> TrustSet:
    """The set in `folder`. ConfigError names the file and what is wrong with it."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; put the fleet's public keys there, *.pem, as "
            "`edge-agent fleet init` writes them"
        ) from error
    if len(paths) > MAX_KEYS:
        raise ConfigError(f"{folder}: {len(paths)} keys; at most {MAX_KEYS} can be trusted")
    found = tuple(_key(path) for path in paths)
    try:
        version, validity = _version(folder / "version"), _validity(folder / "validity")
        return TrustSet(fleet, version, threshold, found, validity)
    except KeyFormatError as error:
        raise ConfigError(f"{folder}: {error}") from error


def _key(path: Path) -> keys.PublicKey:
    try:
        return keys.parse_public(read_text(path))
    except KeyFormatError as error:
        raise KeyFormatError(f"{path}: {error}") from error


def _version(path: Path) -> int:
    if not path.exists():
        return 1
    text = read_text(path).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_VERSION_DIGITS):
        raise ConfigError(f"{path}: must be a whole number alone, the version of the trusted keys")
    return int(text)


def written_validity(validity: Validity) -> str:
    """What the file `validity` holds."""
    return " ".join(validity.as_document().values()) + "\n"


def _validity(path: Path) -> Validity | None:
    if not path.exists():
        return None
    words = read_text(path).split()
    document = Document(path, "", dict(zip(("issued", "expires"), words, strict=False)))
    found = form.read_validity(Table(document))
    if len(words) > 2:
        raise ConfigError(f"{path}: must be two times, issued and expires, and nothing else")
    document.check()
    return found
