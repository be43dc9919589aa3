"""Whether containers got the adjustments that plugins asked for, at one runtime (docs/adr/0035).

    replies to one CreateContainer ──► two set the same field?      conflict
    PostCreateContainer ─────────────► a field did not arrive?      dropped
    a validator's answer ────────────► whose adjustment was it?     validation

Called on the loop, after the runtime has its answer, with bytes as they came; only the container's
id is looked for there. Decoding and comparing is done on a worker, what was found comes back.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from edge_agent.fleet_protocol.event_result import CONFLICT, DROPPED, UNSUPPORTED, VALIDATION
from edge_agent.loop import Loop
from edge_agent.nri.capabilities import Carrier, carrier, fails_creations
from edge_agent.nri.events import DECODE_ERRORS
from edge_agent.nri.session import Call, RuntimeInfo
from edge_agent.pb import nri_pb2
from edge_agent.store.release import PluginId
from edge_agent.wire import Path, nested_bytes

log = logging.getLogger(__name__)

MAX_OPEN = 32  # creations that are remembered; a runtime makes one at a time, some fail
MAX_BYTES = 256 << 10  # of their requests and replies, usually 4 KB each
MAX_AGE_S = 60.0  # of a creation: what is not shown by then has failed
MAX_WAITING_BYTES = 512 << 10  # handed to the worker, which may be busy with a guest's start

_REQUEST_ID: Path = (2, 1)  # CreateContainerRequest and its family: container, id
_CHANGE_ID: Path = (3, 1)  # StateChangeEvent


class Finding(NamedTuple):
    """A part of a plugin's reply that did not take effect."""

    kind: str
    text: str  # without the container, so that equal ones are reported once
    request: bytes = b""  # the CreateContainerRequest that it is about
    fields: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # plugins on the other side
    containers: tuple[str, ...] = ()  # ids, of an update


Tell = Callable[[PluginId, Finding], None]
"""(identity of the plugin whose reply it was, what became of the reply)"""


class _Reply(NamedTuple):
    tell: Tell
    identity: PluginId
    request: bytes
    reply: bytes

    @property
    def size(self) -> int:
        return len(self.request) + len(self.reply)


class _Open(NamedTuple):
    """A container that is being created, and what was asked for it so far."""

    since: float
    replies: list[_Reply]

    @property
    def size(self) -> int:
        return sum(each.size for each in self.replies)


_Found = list[tuple[_Reply, Finding]]


class Creations:
    """`run` hands work to another thread, which does it in order."""

    def __init__(self, loop: Loop, run: Callable[[Callable[[], None]], None]) -> None:
        self._loop = loop
        self._run = run
        self._open: OrderedDict[bytes, _Open] = OrderedDict()
        self._bytes = 0
        self._waiting = 0
        self._skipped = 0

    def replied(
        self, tell: Tell, identity: PluginId, runtime: RuntimeInfo, call: Call, reply: bytes
    ) -> None:
        """A plugin's answer counts for the container that this call is about."""
        container = _container_id(call)
        if not container:
            return
        mine = _Reply(tell, identity, call.payload, reply)
        known = self._forget(container)
        if known is None or any(each.identity == identity for each in known.replies):
            known = _Open(time.monotonic(), [])  # the first, or another attempt
        known.replies.append(mine)
        self._remember(container, known)
        if len(known.replies) > 1:
            self._start(partial(_conflicts, tuple(known.replies), runtime), known.size)
        if fails_creations(runtime.name):  # and shows no container afterwards
            self._start(partial(_dropped, (mine,), None, runtime), mine.size)

    def created(self, runtime: RuntimeInfo, call: Call) -> None:
        """The runtime shows the container; the first plugin that is shown it reports for all."""
        known = self._forget(_container_id(call))
        if known is not None:
            size = known.size + len(call.payload)
            self._start(partial(_dropped, tuple(known.replies), call, runtime), size)

    def rejected(self, validator: str, call: Call, reason: str) -> list[str]:
        """A hosted validator rejected the creation: report that to the plugins whose adjustments
        it had (if the reason names some of them, to those), and return their names."""
        known = self._forget(_container_id(call))
        replies = known.replies if known is not None else []
        named = [each for each in replies if each.identity in reason.split()]
        for each in named or replies:
            text = f"its adjustment was rejected by {validator}: {reason}"
            finding = Finding(VALIDATION, text, each.request, others=(validator,))
            each.tell(each.identity, finding)
        return [each.identity for each in named or replies]

    # --- what is remembered

    def _remember(self, container: bytes, creation: _Open) -> None:
        self._open[container] = creation
        self._bytes += creation.size
        oldest = time.monotonic() - MAX_AGE_S
        while self._open and (
            len(self._open) > MAX_OPEN
            or self._bytes > MAX_BYTES
            or next(iter(self._open.values())).since < oldest
        ):
            self._forget(next(iter(self._open)))

    def _forget(self, container: bytes) -> _Open | None:
        creation = self._open.pop(container, None)
        if creation is not None:
            self._bytes -= creation.size
        return creation

    # --- on the worker, and back

    def _start(self, look: Callable[[], _Found], size: int) -> None:
        if self._waiting + size > MAX_WAITING_BYTES:
            self._skipped += 1
            if self._skipped & (self._skipped - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                log.warning("%d creations were not looked at: too many at once", self._skipped)
            return
        self._waiting += size

        def work() -> None:
            found: _Found = []
            try:
                found = look()
            except DECODE_ERRORS:
                pass  # no message: the runtime has failed the creation
            finally:
                self._loop.call_soon(partial(self._looked, size, found))

        self._run(work)

    def _looked(self, size: int, found: _Found) -> None:
        self._waiting -= size
        for reply, finding in found:
            reply.tell(reply.identity, finding)


def rejection(reply: bytes) -> str:
    """Why a validator rejects; empty if it does not, or the runtime cannot read it either."""
    try:
        answer = nri_pb2.ValidateContainerAdjustmentResponse.FromString(reply)
    except DECODE_ERRORS:
        return ""
    return (answer.reason or "no reason given") if answer.reject else ""


def load_comparison() -> None:
    """Import on the worker, before there is anything to compare: not while a container is made."""
    from edge_agent.nri import applied

    del applied


def _container_id(call: Call) -> bytes:
    try:
        return nested_bytes(call.payload, _CHANGE_ID if call.state_change else _REQUEST_ID) or b""
    except ValueError:
        return b""


def _conflicts(replies: Sequence[_Reply], runtime: RuntimeInfo) -> _Found:
    """The fields that the last reply sets and an earlier one had set; reported to both."""
    from edge_agent.nri.applied import MAX_FIELDS, clashes

    asked = [(each.identity, _response(each.reply)) for each in replies]
    last = replies[-1]
    by_other: dict[str, list[str]] = {}
    for clash in clashes(asked, carrier_of(runtime)):
        by_other.setdefault(clash.other, []).append(str(clash.claim))
    found: _Found = []
    for other in (each for each in replies if each.identity in by_other):
        names = by_other[other.identity][:MAX_FIELDS]
        for one, two in ((last, other), (other, last)):
            text = (
                f"{', '.join(names)}: set by {two.identity} too, so {runtime.name} "
                "fails the creation"
            )
            finding = Finding(CONFLICT, text, one.request, tuple(names), (two.identity,))
            found.append((one, finding))
    return found


def _dropped(replies: Sequence[_Reply], shown: Call | None, runtime: RuntimeInfo) -> _Found:
    """The fields that did not reach the container, by reply."""
    from edge_agent.nri.applied import asked_fields, dropped, may_be_removed, removals

    known = carrier_of(runtime)
    after = _shown(shown) if shown is not None else None
    asked = [_response(each.reply).adjust for each in replies]
    taken = [removals(each) if len(asked) > 1 else set() for each in asked]
    name = f"{runtime.name} {runtime.version}"
    found: _Found = []
    for at, reply in enumerate(replies):
        before = nri_pb2.CreateContainerRequest.FromString(reply.request).container
        removed = set().union(*taken[:at], *taken[at + 1 :])
        fields = dropped(asked[at], before, after, known, removed)
        failing: list[str] = []
        if fails_creations(runtime.name):
            failing = [field for field in asked_fields(asked[at]) if known.fails(field)]
        if failing:
            text = f"{name} takes no {', '.join(failing)} from a plugin and fails the creation"
            found.append((reply, Finding(UNSUPPORTED, text, reply.request, tuple(failing))))
        elif fields:
            text = f"{name} makes containers without {', '.join(fields)}"
            if after is not None and all(map(may_be_removed, fields)):
                text += ", or another plugin takes it away again"
            found.append((reply, Finding(DROPPED, text, reply.request, tuple(fields))))
    return found


def carrier_of(runtime: RuntimeInfo) -> Carrier:
    """The capabilities of a runtime, by its Configure."""
    return carrier(
        runtime.name,
        runtime.version,
        runtime.nri_version,
        tells_timeouts=runtime.tells_timeouts,
    )


def _response(reply: bytes) -> nri_pb2.CreateContainerResponse:
    return nri_pb2.CreateContainerResponse.FromString(reply)


def _shown(call: Call) -> nri_pb2.Container:
    if call.state_change:
        return nri_pb2.StateChangeEvent.FromString(call.payload).container
    return nri_pb2.PostCreateContainerRequest.FromString(call.payload).container
