"""The state machine of a plugin's slot at one runtime. Pure: no clock, no socket, no thread.

Three regions, each a closed set of states, and four facts. An event changes several at once:

    admission   may the plugin run at this runtime?
    incumbent   the guest that answers the runtime's events
    successor   how far the next guest is:

        NONE ─load─► LOADING, COMPILING ─► READY ─connect─► STARTING ─► HANDOVER
         ▲                                                      │          │
         └───────── took over, failed, closed, dropped ◄────────┴──────────┘

`step` answers an event with the next state and the effects, which edge_agent.host.slot executes
in their order. An event that has no place in a state changes nothing there.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, unique
from typing import NamedTuple, TypeVar


class Admission(Enum):
    """Whether the plugin may run at this runtime."""

    VACANT = "vacant"  # no plugin is assigned
    SKIPPED = "skipped"  # it is not meant for this runtime
    QUARANTINED = "quarantined"
    UNUSABLE = "unusable"  # there is no module to load
    ADMITTED = "admitted"


class Incumbent(Enum):
    """The guest that answers."""

    NONE = "none"
    CURRENT = "current"  # it serves, and is what is wanted
    OUTDATED = "outdated"  # it serves; another release is wanted
    RENEWED = "renewed"  # it serves; the same is to be made anew
    FAILED = "failed"  # its session answers by policy


class Successor(Enum):
    """The next guest."""

    NONE = "none"
    LOADING = "loading"  # the loader is at work, perhaps for what is not wanted any more
    COMPILING = "compiling"  # the same, for the first time on this board
    READY = "ready"  # loaded; it waits for the runtime or for its time
    STARTING = "starting"  # connected
    HANDOVER = "handover"  # synchronised beside an incumbent


@unique
class Event(Enum):
    """An event that the state machine of a slot reacts to."""

    ASSIGNED = "another release is assigned, or the same is admitted anew or no longer"
    RENEWED = "the guest is to be made anew"
    REMOVED = "no plugin is assigned any more"
    LEFT_OUT = "the runtime has said its name, and the plugin is not meant for it"
    RUNTIME_PRESENT = "the runtime listens, anew or for the first time"
    RUNTIME_ABSENT = "the runtime cannot be reached"
    RETRY = "the wait after a failure is over"
    COMPILING = "the module must be compiled first"
    LOADED = "the guest is made"
    LOADED_IN_VAIN = "the loader is done with what is not wanted any more"
    LOAD_FAILED = "the guest cannot be made"
    SUPERSEDED = "the file was replaced while it was read"
    CONNECT_FAILED = "nothing listens at the socket"
    SYNCHRONISED = "the runtime has told the successor its state"
    SWITCH_DUE = "the border between two events at which the successor takes over"
    SUCCESSOR_FAILED = "the successor's guest has failed"
    SUCCESSOR_SLOW = "the runtime does not synchronise the successor"
    SUCCESSOR_REFUSED = "the runtime closed the successor's session"
    SUCCESSOR_LOST = "the runtime ended during the successor's start"
    INCUMBENT_FAILED = "the incumbent's guest has failed"
    INCUMBENT_CLOSED = "the incumbent's session has ended"
    INCUMBENT_CLOSED_EARLY = "the same, soon after it took over"


@unique
class Effect(Enum):
    """An action that the state machine asks the slot for."""

    FORGET_FAILURES = "the next wait is the shortest"
    CANCEL_RETRY = "do not wait any more"
    RETRY_LATER = "wait, longer than the last time"
    FORGET_SUCCESSOR = "the successor's session is closed already"
    CLOSE_SUCCESSOR = "close the successor's session, which is not synchronised"
    DRAIN_SUCCESSOR = "end the successor's session so that no container notices"
    DROP_READY = "close the guest that waits for the runtime"
    DRAIN_INCUMBENT = "end the incumbent's session so that no container notices"
    BEGIN_HANDOVER = "look for the border between two events"
    TAKE_OVER = "the successor is the incumbent from now on"
    LOAD = "have a guest made"
    CONNECT = "register the guest at the runtime"


class SlotState(NamedTuple):
    """The state of a slot."""

    admission: Admission = Admission.VACANT
    incumbent: Incumbent = Incumbent.NONE
    successor: Successor = Successor.NONE
    waiting: bool = False  # after a failure, before the next attempt
    failing: bool = False  # the guest does not work, and the reason is known
    present: bool = False  # the runtime listens
    served: bool = False  # this runtime was served before

    @property
    def serving(self) -> bool:
        """A guest answers, and is well."""
        return self.incumbent not in (Incumbent.NONE, Incumbent.FAILED)

    @property
    def ready(self) -> bool:
        """A guest waits to be registered."""
        return self.successor is Successor.READY

    @property
    def wants_guest(self) -> bool:
        """Another guest is to be made and to take over, or is on its way."""
        return self.admission is Admission.ADMITTED and self.incumbent is not Incumbent.CURRENT


class Step(NamedTuple):
    """The answer to an event."""

    state: SlotState
    effects: tuple[Effect, ...]


_I, _S, _E = Incumbent, Successor, Event


_State = TypeVar("_State", bound=Enum)
_Table = Mapping[tuple[_State, Event], _State]


def _table(*rows: tuple[Iterable[_State], Iterable[Event], _State]) -> _Table[_State]:
    return {(at, event): to for states, events, to in rows for event in events for at in states}


_SERVING = (_I.CURRENT, _I.OUTDATED, _I.RENEWED)
_LOADING = (_S.LOADING, _S.COMPILING)
_CONNECTED = (_S.STARTING, _S.HANDOVER)
_CLOSED = (_E.INCUMBENT_CLOSED, _E.INCUMBENT_CLOSED_EARLY)

INCUMBENT = _table(
    (_SERVING, (_E.RENEWED,), _I.RENEWED),
    (_SERVING, (_E.INCUMBENT_FAILED,), _I.FAILED),
    ((*_SERVING, _I.FAILED), (*_CLOSED, _E.REMOVED, _E.LEFT_OUT), _I.NONE),
)
"""Beside these: ASSIGNED compares the releases, and a successor that takes over is CURRENT."""

SUCCESSOR = _table(
    ((_S.LOADING,), (_E.COMPILING,), _S.COMPILING),
    (_LOADING, (_E.LOADED,), _S.READY),
    (_LOADING, (_E.LOADED_IN_VAIN, _E.LOAD_FAILED, _E.SUPERSEDED), _S.NONE),
    ((_S.READY,), (_E.ASSIGNED, _E.REMOVED, _E.LEFT_OUT), _S.NONE),
    ((_S.STARTING,), (_E.CONNECT_FAILED,), _S.READY),
    ((_S.STARTING,), (_E.SYNCHRONISED,), _S.HANDOVER),
    ((_S.STARTING,), (_E.SUCCESSOR_SLOW,), _S.NONE),
    (_CONNECTED, (_E.ASSIGNED, _E.REMOVED, _E.SUCCESSOR_FAILED), _S.NONE),
    (_CONNECTED, (_E.SUCCESSOR_REFUSED, _E.SUCCESSOR_LOST), _S.NONE),
    ((_S.HANDOVER,), (_E.SWITCH_DUE, _E.LEFT_OUT, *_CLOSED), _S.NONE),
)
"""Beside these: LOAD and CONNECT (`_advance`), and without an incumbent SYNCHRONISED takes over
at once. While the plugin is left out, the runtime itself closes a session that is STARTING."""

_AFRESH = {_E.ASSIGNED, _E.RENEWED, _E.REMOVED, _E.LEFT_OUT}
_OF_THE_RUNTIME = {_E.RUNTIME_PRESENT, _E.RUNTIME_ABSENT, _E.CONNECT_FAILED}
_OF_THE_GUEST = {_E.LOAD_FAILED, _E.SUCCESSOR_FAILED, _E.INCUMBENT_FAILED}
_NOT_ACCEPTED = {_E.SUCCESSOR_SLOW, _E.SUCCESSOR_REFUSED}


def step(
    state: SlotState, event: Event, admission: Admission | None = None, *, matches: bool = False
) -> Step:
    """The state after this event, and what is to be done.

    `admission` is the one from now on, unless it stays. `matches`, of ASSIGNED: the incumbent is
    of the release that is assigned.
    """
    if event is _E.INCUMBENT_CLOSED_EARLY and state.incumbent not in _SERVING:
        event = _E.INCUMBENT_CLOSED  # the guest failed before, which is known
    implied = {_E.REMOVED: Admission.VACANT, _E.LEFT_OUT: Admission.SKIPPED}.get(event)
    after = state._replace(
        admission=implied or admission or state.admission,
        successor=_successor(state, event),
        present=event is _E.RUNTIME_PRESENT or (state.present and event not in _OF_THE_RUNTIME),
    )
    after = after._replace(incumbent=_incumbent(state, event, after.admission, matches))
    if _takes_over(state, event):
        after = after._replace(incumbent=_I.CURRENT, successor=_S.NONE, failing=False, served=True)
        return _advance(after, event, [Effect.TAKE_OVER])
    after = after._replace(failing=_failing(state, event, after.admission))
    after, effects = _wait(state, event, after)
    effects += _leave(state, event, after)
    if (state.successor, after.successor) == (_S.STARTING, _S.HANDOVER):
        effects.append(Effect.BEGIN_HANDOVER)
    return _advance(after, event, effects)


def _incumbent(state: SlotState, event: Event, admission: Admission, matches: bool) -> Incumbent:
    if event is not _E.ASSIGNED:
        return INCUMBENT.get((state.incumbent, event), state.incumbent)
    if admission is Admission.SKIPPED:
        return _I.NONE
    if state.incumbent in (_I.CURRENT, _I.OUTDATED):
        return _I.CURRENT if matches else _I.OUTDATED
    return state.incumbent


def _successor(state: SlotState, event: Event) -> Successor:
    after = SUCCESSOR.get((state.successor, event), state.successor)
    if after is _S.HANDOVER and state.admission is not Admission.ADMITTED:
        return _S.NONE  # the runtime took a plugin that had refused to be configured
    return after


def _takes_over(state: SlotState, event: Event) -> bool:
    if state.successor is _S.STARTING:
        synchronised = event is _E.SYNCHRONISED and state.admission is Admission.ADMITTED
        return synchronised and state.incumbent is _I.NONE
    return state.successor is _S.HANDOVER and event in (_E.SWITCH_DUE, *_CLOSED)


def _happens(state: SlotState, event: Event) -> bool:
    return (state.incumbent, event) in INCUMBENT or (state.successor, event) in SUCCESSOR


def _failing(state: SlotState, event: Event, admission: Admission) -> bool:
    if event in (_E.ASSIGNED, _E.REMOVED):
        return admission is Admission.UNUSABLE
    if not _happens(state, event):
        return state.failing
    if event in (_E.LOADED, _E.SUPERSEDED):
        return False
    return state.failing or event in _OF_THE_GUEST


def _wait(state: SlotState, event: Event, after: SlotState) -> tuple[SlotState, list[Effect]]:
    """Failures and the wait before the next attempt."""
    if event in _AFRESH or (event in _OF_THE_RUNTIME and not state.failing):
        # What the runtime's end has cost is no fault of the plugin's.
        return after._replace(waiting=False), [Effect.FORGET_FAILURES, Effect.CANCEL_RETRY]
    if event is _E.RETRY:
        return after._replace(waiting=False), []
    if not _happens(state, event):
        return after, []
    lost = event in _CLOSED and state.incumbent in _SERVING
    skipped = state.admission is Admission.SKIPPED
    if (
        event in (*_OF_THE_GUEST, _E.SUPERSEDED)
        or (event in _NOT_ACCEPTED and not skipped)
        or (lost and event is _E.INCUMBENT_CLOSED_EARLY)
    ):
        return after._replace(waiting=True), [Effect.RETRY_LATER]
    if lost or event is _E.SUCCESSOR_LOST:
        return after, [Effect.FORGET_FAILURES]
    return after, []


def _leave(state: SlotState, event: Event, after: SlotState) -> list[Effect]:
    """The effects that remove guests that are no longer wanted."""
    effects = []
    if after.successor is _S.NONE:
        if state.successor is _S.READY:
            effects.append(Effect.DROP_READY)
        elif state.successor not in _CONNECTED:
            pass
        elif event in (_E.SUCCESSOR_REFUSED, _E.SUCCESSOR_LOST):
            effects.append(Effect.FORGET_SUCCESSOR)
        elif state.successor is _S.HANDOVER or event is _E.SYNCHRONISED:
            effects.append(Effect.DRAIN_SUCCESSOR)  # the runtime counts on it by now
        else:
            effects.append(Effect.CLOSE_SUCCESSOR)
    if state.incumbent is not _I.NONE and after.incumbent is _I.NONE and event not in _CLOSED:
        effects.append(Effect.DRAIN_INCUMBENT)
    return effects


def _advance(state: SlotState, event: Event, effects: list[Effect]) -> Step:
    """One step closer to a guest that is wanted.

    For a runtime that was served before, a guest is made also while the runtime is away or closes
    one session after the other, so that connecting is all that is left to do; for one that never
    was there it would be a waste.
    """
    if state.wants_guest:
        loads = not state.waiting or event is _E.INCUMBENT_CLOSED_EARLY
        if state.successor is _S.NONE and loads and (state.present or state.served):
            return Step(state._replace(successor=_S.LOADING), (*effects, Effect.LOAD))
        if state.successor is _S.READY and not state.waiting and state.present:
            return Step(state._replace(successor=_S.STARTING), (*effects, Effect.CONNECT))
    return Step(state, tuple(effects))


# --- for people and for the runtime


def status(state: SlotState, *, on_trial: bool) -> str:
    """skipped (not meant for this runtime), failed (nothing to load), starting, probation,
    running, backoff, quarantined or waiting (for the runtime)."""
    told = {
        Admission.SKIPPED: "skipped",
        Admission.QUARANTINED: "quarantined",
        Admission.UNUSABLE: "failed",
    }.get(state.admission)
    if told is not None:
        return told
    if state.incumbent is _I.FAILED:
        return "backoff"
    if state.incumbent is not _I.NONE:
        return "probation" if on_trial else "running"
    if not state.present:
        return "waiting"
    return "backoff" if state.waiting else "starting"


def settled(state: SlotState, *, refusing: bool, optional: bool) -> bool:
    """Whether what is to come of the plugin has come: it is registered, its absence is refused
    (`refusing`), or told and of no consequence (`optional`: creations do without it). Nothing is
    to be waited for where no runtime is."""
    if state.admission in (Admission.VACANT, Admission.SKIPPED) or not state.present:
        return True
    if state.incumbent is not _I.NONE or refusing:
        return True
    barred = state.admission in (Admission.QUARANTINED, Admission.UNUSABLE)
    return optional and (barred or state.waiting)


class Grace(Enum):
    """The time in which a plugin should be registered."""

    NOT_BEGUN = "not begun"
    RUNNING = "running"
    OVER = "over"


class Absence(Enum):
    """How creations are handled while a plugin with `failure_policy = "Fail"` is missing."""

    NONE = "none"  # it is not missing, or creations do without it
    BEGIN_GRACE = "begin grace"
    GRACE = "grace"
    REFUSED = "refused"


def absence(state: SlotState, grace: Grace, *, refusing: bool, refused: bool) -> Absence:
    """What to do about a plugin with `failure_policy = "Fail"`.

    `refusing`: each creation is refused now; `refused`: it will be, as soon as the runtime
    registers the placeholder.
    """
    missed = state.admission not in (Admission.VACANT, Admission.SKIPPED)
    if not missed or state.incumbent is not _I.NONE or not (state.present or refusing):
        return Absence.NONE
    if state.admission is Admission.QUARANTINED or state.failing or refused:
        return Absence.REFUSED
    if grace is Grace.NOT_BEGUN:
        return Absence.BEGIN_GRACE
    if grace is Grace.RUNNING or state.successor in _CONNECTED:
        return Absence.GRACE  # the runtime is about to take it
    return Absence.REFUSED
