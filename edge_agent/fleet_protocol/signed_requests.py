"""Requests that an operator's key signed: a DSSE envelope like every other word of the fleet. Pure.

    {"kind": "edge-agent.request", "fleet": "greenhouse", "node": "board-7", "verb": "restart",
     "id": "8f1c", "issued": "...", "expires": "...", "arguments": {}}

One trusted key is enough, whatever the threshold is: a request changes nothing about what may
run, and one person asks it. So one key that was stolen must not shut the others out either:
what was seen is remembered for each key by itself.

The id is the nonce. A node remembers, for each key, the ids that expire last; whatever expires
no later than one that it has forgotten is refused. So nothing is carried out twice, on boards
whose clock starts in 1970 too, and the memory is bounded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from edge_agent import strictjson
from edge_agent.config.document import Document
from edge_agent.config.table import Table
from edge_agent.config.units import written
from edge_agent.errors import ConfigError, RefusedError, RepeatedError, RequestError
from edge_agent.fleet_protocol import envelope, form, requests
from edge_agent.fleet_protocol.keys import PublicKey, Signer
from edge_agent.fleet_protocol.requests import Request, Sealed
from edge_agent.fleet_protocol.trust import MAX_KEYS

KIND = "edge-agent.request"
PAYLOAD_TYPE = "application/vnd.edge-agent.request+json"

# Longer than a person waits for an answer; a board that is away that long is asked again.
MAX_VALID_S = 86_400
# Ids of one key: more than are asked within the usual validity (one in 5 s is taken).
MAX_SEEN = 128
# Keys that count, and some that did until they were rotated out.
MAX_SEEN_KEYS = 2 * MAX_KEYS


class Addressed(NamedTuple):
    """Whom a request must be for."""

    fleet: str
    node: str
    verb: str


class Seen(NamedTuple):
    """What one key has asked for: ids with when they expire; all that expires up to `floor`."""

    floor: float = 0.0
    ids: Mapping[str, float] = {}  # never changed in place

    def has(self, identity: str, expires: float) -> bool:
        """Whether the request was carried out, or cannot be distinguished from one that was."""
        return expires <= self.floor or identity in self.ids

    def added(self, identity: str, expires: float) -> "Seen":
        """With one more; the first to expire is forgotten when there are too many."""
        ids = {**self.ids, identity: expires}
        if len(ids) <= MAX_SEEN:
            return Seen(self.floor, ids)
        first = min(ids, key=lambda each: ids[each])
        return Seen(max(self.floor, ids.pop(first)), ids)


Memory = Mapping[str, Seen]
"""By key id; at `FORGOTTEN`, up to when requests were issued that nothing is known of any more."""

# No key has this id, and agents before this entry read past it.
FORGOTTEN = ""
_CLOCK_STOOD = "clock stood"  # beside it: the time of then was no clock's


def forgotten(now: float, *, clock_stands: bool) -> Memory:
    """What remains of a memory that was lost: requests of until then are refused.

    `now` is the latest time known to have passed. Where that is no running clock's
    (`clock_stands`), requests may have come that were issued later: none is taken before a later
    time is known, and none of before that (`recalled`).
    """
    return {FORGOTTEN: Seen(now, {_CLOCK_STOOD: now} if clock_stands else {})}


def recalled(memory: Memory, now: float) -> Memory:
    """The same memory once time is known to go on after a loss."""
    lost = memory.get(FORGOTTEN)
    if lost is None or not lost.ids or now <= lost.floor:
        return memory
    return {**memory, FORGOTTEN: Seen(now)}


def seal(
    to: Addressed,
    identity: str,
    arguments: Mapping[str, object],
    *,
    issued: float,
    valid_s: float,
    signers: Sequence[Signer],
) -> bytes:
    """A request as a message; `requests.checked` tells whether a node takes it. CryptoError.

    What a node before signed requests reads stands beside the envelope: it takes that, and one
    that checks signatures nothing but what is signed.
    """
    payload = {
        "kind": KIND,
        "fleet": to.fleet,
        "node": to.node,
        "verb": to.verb,
        "id": identity,
        "issued": written(issued),
        "expires": written(issued + valid_s),
        "arguments": dict(arguments),
    }
    raw = envelope.seal(PAYLOAD_TYPE, strictjson.dumps(payload), signers)
    plain = {"id": identity, "arguments": dict(arguments)}
    return strictjson.dumps({**plain, **cast(dict[str, object], strictjson.loads(raw))})


def accept(
    sealed: Sealed, to: Addressed, keys: Sequence[PublicKey], now: float, memory: Memory
) -> tuple[Request, Memory]:
    """The request, and what has to be remembered before it is carried out.

    `now` is the latest time that is known to have passed. RequestError begins with the
    protocol's word for the first check that failed. CryptoError: cannot be checked here.
    """
    try:
        found = envelope.read(sealed.raw)
        envelope.check_signed(found, PAYLOAD_TYPE, keys, 1)
        values = strictjson.loads(found.payload, null=False)
    except RefusedError as error:
        raise RequestError(sealed.id, f"{error.reason}: {error}") from None
    except ValueError as error:
        raise RequestError(sealed.id, f"malformed: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(sealed.id, "malformed: not a JSON object")
    identity = requests.identity(values)
    for name, wanted in (("kind", KIND), *to._asdict().items()):
        if values.get(name) != wanted:
            raise RequestError(
                identity, f"{name}: it is for {ascii(values.get(name))[:80]}, not for {wanted}"
            )
    issued, expires = _times(identity, values)
    if now >= expires:
        raise RequestError(
            identity, f"expired: it was good until {written(expires)}, here it is {written(now)}"
        )
    given = values.get("arguments", {})
    request = requests.checked(to.verb, identity, given)
    _check_remembered(identity, issued, memory.get(FORGOTTEN))
    signers = sorted(key.keyid for key in envelope.signers(found, keys))
    if any(memory.get(keyid, Seen()).has(identity, expires) for keyid in signers):
        raise RepeatedError(identity, "replayed: it was asked before; ask anew")
    new = {keyid: memory.get(keyid, Seen()).added(identity, expires) for keyid in signers}
    return request._replace(signers=tuple(signers)), _bounded({**memory, **new}, keys)


def dump(memory: Memory) -> bytes:
    """For a file."""
    return strictjson.dumps(
        {keyid: {"floor": seen.floor, "ids": dict(seen.ids)} for keyid, seen in memory.items()}
    )


def load(data: bytes) -> Memory:
    """What `dump` wrote. ValueError."""
    values = strictjson.loads(data)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return {keyid: _seen(value) for keyid, value in values.items()}


def _seen(value: object) -> Seen:
    ids = value.get("ids") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(ids, dict):
        raise ValueError("not what a key has asked for")
    return Seen(_time(value.get("floor")), {name: _time(each) for name, each in ids.items()})


def _time(value: object) -> float:
    if not isinstance(value, int | float):
        raise ValueError("a time is no number")
    return float(value)


def _bounded(memory: Memory, keys: Sequence[PublicKey]) -> Memory:
    """Without keys that count no more, if there are too many."""
    if len(memory) <= MAX_SEEN_KEYS:
        return memory
    trusted = {FORGOTTEN, *(key.keyid for key in keys)}
    return {keyid: seen for keyid, seen in memory.items() if keyid in trusted}


def _check_remembered(identity: str, issued: float, lost: Seen | None) -> None:
    """RequestError for a request that may have been carried out before the memory was lost."""
    if lost is None:
        return
    if lost.ids:
        raise RequestError(
            identity,
            "replayed: what was asked before is lost, and the clock here stands: set it, or deploy",
        )
    if issued <= lost.floor:
        raise RequestError(
            identity,
            f"replayed: what was asked until {written(lost.floor)} is not known here any more; ask"
            " anew",
        )


def _times(identity: str, values: dict[str, object]) -> tuple[float, float]:
    document = Document(Path("request"), "", values)
    issued, expires = form.read_times(Table(document))
    try:
        document.check()
    except ConfigError as error:
        raise RequestError(identity, f"malformed: {error}") from None
    if expires - issued > MAX_VALID_S:
        raise RequestError(identity, f"malformed: it is good for more than {MAX_VALID_S} s")
    return issued, expires
