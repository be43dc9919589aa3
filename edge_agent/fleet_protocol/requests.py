"""What the fleet may ask of a node, as values. Pure.

    .../request/<verb>    {"id": "8f1c", "arguments": {"plugin": "10-guard"}, ...} to the node
    .../response/<verb>   {"id": "8f1c", "verb": "restart", "state": "running"}    from it

    accepted ─► running ─► succeeded, with a `result` where there is one
        └──────────┴─────► failed, with its `reason`

A request is signed (signed_requests, which a node without a fleet's keys does not load), or it is
not, which the node's configuration allows for some verbs.
A request that cannot be read is answered `failed` and changes nothing. One that arrives
again (QoS 1) is not carried out again.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from edge_agent import VERBS, strictjson
from edge_agent.config.model import (
    HIDDEN_BY_DEFAULT,
    MAX_HIDDEN,
    REDACTION_FORM,
    REDACTION_PATTERN,
)
from edge_agent.errors import RequestError
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from edge_agent.nri import events
from edge_agent.store.release import PluginId
from edge_agent.text import printable

State = Literal["accepted", "running", "succeeded", "failed"]

MAX_REASON_CHARS = 500
MAX_OPEN = 4  # requests being carried out: each may cost a thread or a child
MAX_REMEMBERED = 64  # ids, the latest, that are not carried out again
MAX_LINES = 500  # of the log; the answer's own bound comes first
# Of a recording; the size of what is sent comes first (recorded_parts.MAX_BYTES).
MAX_RECORDED, MAX_RECORD_S = 1000, 600

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_LEVELS = ("debug", "info", "warning", "error")


class Request(NamedTuple):
    """One request, its arguments checked and completed."""

    id: str
    verb: str
    arguments: Mapping[str, Any]
    signers: tuple[str, ...] = ()  # ids of the keys whose signatures are good; none: unsigned


class Sealed(NamedTuple):
    """A request in an envelope that was not opened yet. `id` is what it says outside."""

    id: str
    raw: bytes
    plain: Request | None  # what it says to a node that knows no envelopes


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _plugin(value: object) -> bool:
    return isinstance(value, str) and PluginId.parse(value) is not None


def _up_to(most: int) -> "_Argument":
    """A whole number from 1."""
    return _Argument(
        lambda value: type(value) is int and 1 <= value <= most, f"a whole number from 1 to {most}"
    )


def _events(value: object) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= len(events.EVENTS)
        and all(isinstance(each, str) and each in events.BY_METHOD for each in value)
    )


def _rules(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_HIDDEN
        and all(isinstance(each, str) and re.fullmatch(REDACTION_PATTERN, each) for each in value)
    )


class _Argument(NamedTuple):
    fits: Callable[[object], bool]
    form: str
    default: object = None  # None stays out of the arguments
    required: bool = False


_A_PLUGIN = "a plugin as NN-name"
# What each verb takes by name, where it takes anything.
ARGUMENTS: Mapping[str, Mapping[str, _Argument]] = {
    "restart": {
        "plugin": _Argument(_plugin, _A_PLUGIN),
        "force": _Argument(_flag, "true or false"),
    },
    "logs": {
        "lines": _up_to(MAX_LINES)._replace(default=100),
        "level": _Argument(lambda value: value in _LEVELS, f"one of {', '.join(_LEVELS)}", "debug"),
        "plugin": _Argument(_plugin, _A_PLUGIN),
    },
    "release": {"plugin": _Argument(_plugin, _A_PLUGIN, required=True)},
    "record": {
        "plugin": _Argument(_plugin, _A_PLUGIN),
        "events": _Argument(_events, f"a list of {', '.join(events.BY_METHOD)}"),
        "count": _up_to(MAX_RECORDED)._replace(default=200),
        "seconds": _up_to(MAX_RECORD_S)._replace(default=60),
        "redact": _Argument(
            _rules, f"a list of at most {MAX_HIDDEN} of {REDACTION_FORM}", list(HIDDEN_BY_DEFAULT)
        ),
    },
}


def read(verb: str, payload: bytes) -> Request | Sealed:
    """The request in `payload`. RequestError, with its id where that can be read."""
    if verb not in VERBS:
        raise RequestError("", f"no such request; there are {', '.join(VERBS)}")
    if len(payload) > MAX_REQUEST_BYTES:
        raise RequestError("", f"{len(payload)} bytes; at most {MAX_REQUEST_BYTES} are read")
    try:
        document = strictjson.loads(payload)  # which goes only as deep as a small stack allows
    except ValueError as error:
        raise RequestError("", f"not JSON in UTF-8: {error}") from None
    if not isinstance(document, dict):
        raise RequestError("", "not a JSON object")
    if "payloadType" not in document:
        return checked(verb, identity(document), document.get("arguments", {}))
    try:
        plain = checked(verb, identity(document), document.get("arguments", {}))
    except RequestError as error:  # only what is signed has to be right
        return Sealed(error.id, payload, None)
    return Sealed(plain.id, payload, plain)


def identity(document: Mapping[str, object]) -> str:
    """The id of a request. RequestError."""
    found = document.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise RequestError("", "id must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    return found


def checked(verb: str, identity: str, given: object) -> Request:
    """A request whose arguments are good. RequestError."""
    if verb not in VERBS:
        raise RequestError(identity, f"no such request; there are {', '.join(VERBS)}")
    if not isinstance(given, Mapping):
        raise RequestError(identity, "arguments must be an object")
    return Request(identity, verb, _arguments(identity, ARGUMENTS.get(verb, {}), given))


def _arguments(
    identity: str, known: Mapping[str, _Argument], given: Mapping[str, object]
) -> dict[str, object]:
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise RequestError(identity, f"unknown argument {printable(name[:64])}; {takes}")
    arguments = {}
    for name, argument in known.items():
        value = given.get(name, argument.default)
        if value is None and not argument.required:
            continue
        if not argument.fits(value):
            raise RequestError(identity, f"{name} must be {argument.form}")
        arguments[name] = value
    return arguments


def answer(
    identity: str,
    verb: str,
    state: State,
    *,
    reason: str = "",
    result: Mapping[str, object] | None = None,
) -> bytes:
    """An answer as JSON. A result too large for a message makes it `failed` with that reason."""
    document: dict[str, object] = {"id": identity, "verb": verb, "state": state}
    if reason:
        document["reason"] = reason[:MAX_REASON_CHARS]
    if result is not None:
        document["result"] = result
    payload = json.dumps(document, separators=(",", ":")).encode()
    if len(payload) > MAX_MESSAGE_BYTES:
        return answer(identity, verb, "failed", reason=f"the answer has {len(payload)} bytes")
    return payload


class Ledger:
    """Which requests are open and which were seen: neither grows, whatever is sent."""

    def __init__(self) -> None:
        self._open: set[tuple[str, str]] = set()
        self._seen: deque[tuple[str, str]] = deque(maxlen=MAX_REMEMBERED)

    def enter(self, request: Request) -> bool:
        """False: it was seen before. RequestError: too many are open."""
        key = request.verb, request.id
        if key in self._seen:
            return False
        if len(self._open) >= MAX_OPEN:
            raise RequestError(request.id, f"busy with {MAX_OPEN} other requests; try again")
        self._seen.append(key)
        self._open.add(key)
        return True

    def knows(self, verb: str, identity: str) -> bool:
        """Whether this request was seen lately."""
        return (verb, identity) in self._seen

    def remember(self, verb: str, identity: str) -> None:
        """An earlier process carried the request out; a broker may send it to this one again."""
        self._seen.append((verb, identity))

    def leave(self, request: Request) -> None:
        """The request is finished."""
        self._open.discard((request.verb, request.id))
