"""Documents from the broker, checked against the trusted keys and what was accepted before.

Documents come in any order, again and again, and from anybody. Of each kind the latest is kept
(`Mailbox`) and one in a second is checked. A refused document is reported with its reason
(`Refusals`) and changes nothing; a document that cannot be acted upon yet (the disk) or not be
believed yet (a deployment before the trust set whose keys signed it) is checked again.

Trusted are the keys in the operator's files on this node, and what the fleet made of them since
(`TrustKeeper`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from edge_agent.config import UpdatesConfig
from edge_agent.errors import ConfigError, CryptoError, RefusedError
from edge_agent.fleet.plan import Node
from edge_agent.fleet.trustfiles import read_root
from edge_agent.fleet_protocol import deployment as deployments
from edge_agent.fleet_protocol import trust
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.topics import DEPLOYMENT, MAX_MESSAGE_BYTES, TRUST, Kind
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue import Catalogue
from edge_agent.text import printable

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import Refusal, TrustState

log = logging.getLogger(__name__)

# Why a deployment is refused that may be good with a trust set that is still on its way; `gap`:
# its epoch begins with one; `expired`: by the time that the present one says, which may be wrong.
_BY_LATER_TRUST = ("signature", "algorithm", "gap", "trust-expired", "expired")


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


class Documents:
    """The documents of one node. Times are monotonic seconds."""

    def __init__(self, node: Node, config: UpdatesConfig, clock: Callable[[], float]) -> None:
        """`clock` counts seconds from 1970, as well as this node knows."""
        self._node = node
        self._clock = clock
        self._mailbox = Mailbox((TRUST, DEPLOYMENT), MAX_MESSAGE_BYTES)
        self._refusals = Refusals(clock)
        self._trust = TrustKeeper(config, node.fleet)
        self._taken = {DEPLOYMENT: b"", TRUST: b""}  # looked at last
        self._unsigned = b""  # the latest deployment that keys of a later trust set may have signed

    def put(self, kind: Kind, raw: bytes) -> None:
        """A document came."""
        self._mailbox.put(kind, raw)

    @property
    def due(self) -> float:
        """When a document is to be checked (monotonic)."""
        return self._mailbox.due

    def read_trust(self, catalogue: Catalogue) -> None:
        """Look at the trusted files, and what the fleet made of them."""
        self._trust.read(catalogue)

    def trust(self, now: float, catalogue: Catalogue) -> Catalogue | None:
        """The catalogue with a newer trust set, if a good one came; then call `trusted`."""
        raw = self._taken[TRUST] = self._mailbox.take(TRUST, now)
        if not raw:
            return None
        try:
            new = self._trust.rotated(raw, catalogue)
        except (RefusedError, CryptoError) as error:
            self._refusals.add(TRUST, raw, error)
            return None
        self._refusals.clear(TRUST, new=new is not None)
        return new

    def trusted(self, now: float, catalogue: Catalogue) -> None:
        """The catalogue with the newer set is on the disk."""
        self._trust.read(catalogue)
        if self._unsigned:
            self._mailbox.put_back(DEPLOYMENT, self._unsigned, now)
            self._unsigned = b""

    def deployment(self, now: float, catalogue: Catalogue) -> Deployment | Literal["known"] | None:
        """A good deployment that is new; "known" if it is the one accepted last."""
        raw = self._taken[DEPLOYMENT] = self._mailbox.take(DEPLOYMENT, now)
        if not raw:
            return None
        try:
            found = self._checked(raw, catalogue)
        except (RefusedError, CryptoError) as error:
            said = deployments.said_generation(raw, error)
            self._refusals.add(DEPLOYMENT, raw, error, said)
            if isinstance(error, CryptoError) or error.reason in _BY_LATER_TRUST:
                self._unsigned = raw
            return None
        self._refusals.clear(DEPLOYMENT, new=found is not None)
        self._unsigned = b""
        return found or "known"

    def postpone(self, kind: Kind, until: float) -> None:
        """The one taken last could not be acted upon: it comes again, unless a later one does."""
        self._mailbox.put_back(kind, self._taken[kind], until)

    def accepted_before(self, payload: str) -> Deployment | None:
        """What the disk remembers, perhaps from another version of this agent; "": nothing."""
        if not payload:
            return None
        node = self._node
        try:
            return deployments.parse(
                payload.encode(), fleet=node.fleet, defaults=node.limits, report=node.report
            )
        except RefusedError as error:
            log.error("the deployment on the disk is passed over: %s", error)
            return None

    def expired(self, deployment: Deployment, catalogue: Catalogue) -> bool:
        """By the best time that is known."""
        return self._now(catalogue) >= deployment.expires

    def until_expiry(self, catalogue: Catalogue, deployment: Deployment | None) -> float:
        """Seconds until something expires, by the best time that is known; inf: nothing will."""
        trusted, now = self._trust.last_read, self._now(catalogue)
        times = [deployment.expires] if deployment is not None else []
        if trusted is not None and trusted.validity is not None:
            times.append(trusted.validity.expires)
        return min((each - now for each in times if each > now), default=math.inf)

    def trust_in_force(self, catalogue: Catalogue) -> TrustInForce:
        """The trusted keys, and the earliest time that it can be."""
        now, trusted = self._now(catalogue), self._trust.current(catalogue)
        return TrustInForce(trusted, self._trust.last_error, now, self._clock() < now)

    @property
    def refused(self) -> "Refusal | None":
        """The deployment refused last, unless one was taken since."""
        return self._refusals.latest(DEPLOYMENT)

    def trust_status(self, catalogue: Catalogue) -> "TrustState":
        """For reports."""
        told = self._trust.status(self._now(catalogue))
        return {**told, "refused": self._refusals.latest(TRUST)}

    def _now(self, catalogue: Catalogue) -> float:
        return deployments.best_time(self._clock(), catalogue.known, self._trust.last_read)

    def _checked(self, raw: bytes, catalogue: Catalogue) -> Deployment | None:
        trusted = self._trust.current(catalogue)
        if trusted is None:
            raise RefusedError("signature", f"nobody is trusted here: {self._trust.last_error}")
        return deployments.accept(
            raw,
            fleet=self._node.fleet,
            trust=trusted,
            known=catalogue.known,
            clock=self._clock(),
            defaults=self._node.limits,
            report=self._node.report,
        )


# Between two documents of one kind that are looked at.
LOOK_PAUSE_S = 1.0


class Mailbox:
    """Times are monotonic seconds."""

    def __init__(self, kinds: Iterable[str], max_bytes: int) -> None:
        """A longer message is cut to `max_bytes` and one byte more, and refused as too large."""
        self._keep = max_bytes + 1
        self._mail: dict[str, bytes] = {}
        self._not_before = dict.fromkeys(kinds, -math.inf)

    def put(self, kind: str, raw: bytes) -> None:
        """The latest takes the place of one before it. Nothing retained any more is no news."""
        if raw:
            self._mail[kind] = raw[: self._keep]

    def take(self, kind: str, now: float) -> bytes:
        """The document of this kind, if it is time to look at one; else nothing."""
        if kind not in self._mail or now < self._not_before[kind]:
            return b""
        self._not_before[kind] = now + LOOK_PAUSE_S
        return self._mail.pop(kind)

    def put_back(self, kind: str, raw: bytes, until: float) -> None:
        """Look at it again then, unless a later one comes."""
        self._mail.setdefault(kind, raw)
        self._not_before[kind] = until

    @property
    def due(self) -> float:
        """When a message is to be taken (monotonic)."""
        return min((self._not_before[kind] for kind in self._mail), default=math.inf)


# What an attacker writes is in it.
MAX_TEXT = 300


class Refusals:
    """By kind of message: `deployment` or `trust`. Memory is bounded by kinds times reasons."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` counts seconds from 1970, as well as this node knows."""
        self._clock = clock
        self._latest: dict[str, Refusal] = {}
        self._told: set[tuple[str, str]] = set()

    def add(
        self,
        kind: str,
        raw: bytes,
        error: RefusedError | CryptoError,
        generation: int | None = None,
    ) -> None:
        """The message `raw` of this kind was refused, or could not be checked."""
        reason = error.reason if isinstance(error, RefusedError) else "signature"
        text = printable(str(error))[:MAX_TEXT]
        before = self._latest.get(kind)
        count = before["count"] + 1 if before else 1
        since = before["since"] if before and before["reason"] == reason else int(self._clock())
        self._latest[kind] = {
            "reason": reason,
            "text": text,
            "count": count,
            "since": since,
            "generation": generation,
            "message": deployments.message_name(raw),
        }
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            log.warning("the %s from the broker is refused (%s): %s", kind, reason, text)

    def clear(self, kind: str, *, new: bool) -> None:
        """A good document came; after a `new` one, which only the fleet can make, refusals are
        logged again."""
        self._latest.pop(kind, None)
        if new:
            self._told = {told for told in self._told if told[0] != kind}

    def latest(self, kind: str) -> "Refusal | None":
        """None when the latest of this kind was taken."""
        return self._latest.get(kind)
