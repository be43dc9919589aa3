"""The slot's state machine: its tables, and every state that can be reached with every event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edge_agent.host.slot_state import (
    Absence,
    Admission,
    Effect,
    Event,
    Grace,
    Incumbent,
    SlotState,
    Step,
    Successor,
    absence,
    settled,
    status,
    step,
)

SERVING = (Incumbent.CURRENT, Incumbent.OUTDATED, Incumbent.RENEWED)
LOADING = (Successor.LOADING, Successor.COMPILING)
CONNECTED = (Successor.STARTING, Successor.HANDOVER)
BARRED = (Admission.SKIPPED, Admission.QUARANTINED, Admission.UNUSABLE)


# --- the regions by table

SUCCESSORS = """
                         none      loading   compiling ready     starting  handover
ASSIGNED                 .         .         .         none      none      none
RENEWED                  .         .         .         .         .         .
REMOVED                  .         .         .         none      none      none
LEFT_OUT                 .         .         .         none      .         none
RUNTIME_PRESENT          loading   .         .         starting  .         .
RUNTIME_ABSENT           .         .         .         .         .         .
RETRY                    .         .         .         .         .         .
COMPILING                .         compiling .         .         .         .
LOADED                   .         ready     ready     .         .         .
LOADED_IN_VAIN           .         none      none      .         .         .
LOAD_FAILED              .         none      none      .         .         .
SUPERSEDED               .         none      none      .         .         .
CONNECT_FAILED           .         .         .         .         ready     .
SYNCHRONISED             .         .         .         .         handover  .
SWITCH_DUE               .         .         .         .         .         none
SUCCESSOR_FAILED         .         .         .         .         none      none
SUCCESSOR_SLOW           .         .         .         .         none      .
SUCCESSOR_REFUSED        .         .         .         .         none      none
SUCCESSOR_LOST           .         .         .         .         none      none
INCUMBENT_FAILED         .         .         .         .         .         .
INCUMBENT_CLOSED         .         .         .         .         .         none
INCUMBENT_CLOSED_EARLY   .         .         .         .         .         none
"""
"""Beside an outdated incumbent, while the runtime is away: nothing goes on by itself."""

INCUMBENTS = """
                         none      current   outdated  renewed   failed
ASSIGNED                 .         outdated  .         .         .
RENEWED                  .         renewed   renewed   .         .
REMOVED                  .         none      none      none      none
LEFT_OUT                 .         none      none      none      none
RUNTIME_PRESENT          .         .         .         .         .
RUNTIME_ABSENT           .         .         .         .         .
RETRY                    .         .         .         .         .
COMPILING                .         .         .         .         .
LOADED                   .         .         .         .         .
LOADED_IN_VAIN           .         .         .         .         .
LOAD_FAILED              .         .         .         .         .
SUPERSEDED               .         .         .         .         .
CONNECT_FAILED           .         .         .         .         .
SYNCHRONISED             .         .         .         .         .
SWITCH_DUE               .         .         .         .         .
SUCCESSOR_FAILED         .         .         .         .         .
SUCCESSOR_SLOW           .         .         .         .         .
SUCCESSOR_REFUSED        .         .         .         .         .
SUCCESSOR_LOST           .         .         .         .         .
INCUMBENT_FAILED         .         failed    failed    failed    .
INCUMBENT_CLOSED         .         none      none      none      none
INCUMBENT_CLOSED_EARLY   .         none      none      none      none
"""
"""Without a successor."""


def cells(table: str) -> Iterator[tuple[Event, str, str]]:
    """(event, state before, state after)"""
    heads, *rows = table.strip().splitlines()
    assert [row.split()[0] for row in rows] == [event.name for event in Event]
    for row in rows:
        name, *after = row.split()
        for before, to in zip(heads.split(), after, strict=True):
            yield Event[name], before, before if to == "." else to


@pytest.mark.parametrize(("event", "before", "after"), [*cells(SUCCESSORS)])
def test_a_successor_by_table(event: Event, before: str, after: str) -> None:
    state = SlotState(Admission.ADMITTED, Incumbent.OUTDATED, Successor(before))
    assert step(state, event).state.successor is Successor(after)


@pytest.mark.parametrize(("event", "before", "after"), [*cells(INCUMBENTS)])
def test_an_incumbent_by_table(event: Event, before: str, after: str) -> None:
    state = SlotState(Admission.ADMITTED, Incumbent(before))
    assert step(state, event).state.incumbent is Incumbent(after)


# --- all states that can be reached


class Choice(NamedTuple):
    """An event with what the slot says beside it."""

    event: Event
    admission: Admission | None = None
    matches: bool = False

    def after(self, state: SlotState) -> Step:
        return step(state, self.event, self.admission, matches=self.matches)


def possible(state: SlotState) -> Iterator[Choice]:
    """What can happen to a slot's sessions, guests, timer and loader where they stand."""
    for admission in (*BARRED, Admission.ADMITTED):
        yield Choice(Event.ASSIGNED, admission)
        if state.incumbent is not Incumbent.NONE:
            yield Choice(Event.ASSIGNED, admission, matches=True)
        if state.admission is Admission.SKIPPED:  # another runtime may have come
            yield Choice(Event.RUNTIME_PRESENT, admission)
            yield Choice(Event.RUNTIME_ABSENT, admission)
    yield from map(Choice, (Event.REMOVED, Event.RUNTIME_PRESENT, Event.RUNTIME_ABSENT))
    if state.admission is not Admission.VACANT:
        yield Choice(Event.RENEWED)
        if state.admission is not Admission.SKIPPED:
            yield Choice(Event.LEFT_OUT)
    if state.waiting:
        yield Choice(Event.RETRY)
    if state.successor is Successor.LOADING:
        yield Choice(Event.COMPILING)
    if state.successor in LOADING:
        yield Choice(Event.LOADED_IN_VAIN)
        if state.wants_guest:
            yield from map(Choice, (Event.LOADED, Event.LOAD_FAILED, Event.SUPERSEDED))
    if state.successor is Successor.STARTING:
        yield from map(Choice, (Event.SYNCHRONISED, Event.SUCCESSOR_SLOW))
        if state.present and state.wants_guest:  # it is told while it connects
            yield Choice(Event.CONNECT_FAILED)
    if state.successor is Successor.HANDOVER:
        yield Choice(Event.SWITCH_DUE)
    if state.successor in CONNECTED:
        ends = (Event.SUCCESSOR_FAILED, Event.SUCCESSOR_REFUSED, Event.SUCCESSOR_LOST)
        yield from map(Choice, ends)
    if state.incumbent in SERVING:
        yield Choice(Event.INCUMBENT_FAILED)
    if state.incumbent is not Incumbent.NONE:
        yield from map(Choice, (Event.INCUMBENT_CLOSED, Event.INCUMBENT_CLOSED_EARLY))


def reachable() -> set[SlotState]:
    found, new = {SlotState()}, [SlotState()]
    while new:
        state = new.pop()
        for after in {choice.after(state).state for choice in possible(state)} - found:
            found.add(after)
            new.append(after)
    return found


STATES = reachable()
STEPS = [(state, choice, choice.after(state)) for state in STATES for choice in possible(state)]


class Held(NamedTuple):
    """What a slot holds where it stands."""

    loader_busy: bool
    ready: bool
    session: str
    incumbent: bool
    timer: bool

    @classmethod
    def of(cls, state: SlotState) -> Held:
        return cls(
            state.successor in LOADING,
            state.successor is Successor.READY,
            state.successor.value if state.successor in CONNECTED else "",
            state.incumbent is not Incumbent.NONE,
            state.waiting,
        )

    def happened(self, event: Event) -> Held:
        """What an event has changed before the slot does anything."""
        if event is Event.LOADED:
            return self._replace(loader_busy=False, ready=True)
        if event in (Event.LOADED_IN_VAIN, Event.LOAD_FAILED, Event.SUPERSEDED):
            return self._replace(loader_busy=False)
        if event is Event.CONNECT_FAILED:
            return self._replace(session="", ready=True)
        if event in (Event.INCUMBENT_CLOSED, Event.INCUMBENT_CLOSED_EARLY):
            return self._replace(incumbent=False)
        return self._replace(timer=False) if event is Event.RETRY else self

    def done(self, effect: Effect) -> Held:
        """What the effect leaves; it must have something to work on."""
        if effect is Effect.LOAD:
            assert not self.loader_busy
            return self._replace(loader_busy=True)
        if effect is Effect.CONNECT:
            assert self.ready
            assert not self.session
            return self._replace(ready=False, session="starting")
        if effect is Effect.DROP_READY:
            assert self.ready
            return self._replace(ready=False)
        if effect is Effect.BEGIN_HANDOVER:
            assert self.session == "starting"
            assert self.incumbent
            return self._replace(session="handover")
        if effect is Effect.TAKE_OVER:
            assert self.session
            return self._replace(session="", incumbent=True)
        if effect is Effect.FORGET_SUCCESSOR:
            assert self.session
            return self._replace(session="")
        if effect in (Effect.CLOSE_SUCCESSOR, Effect.DRAIN_SUCCESSOR):
            assert self.session
            return self._replace(session="")
        if effect is Effect.DRAIN_INCUMBENT:
            assert self.incumbent
            return self._replace(incumbent=False)
        timer = {Effect.CANCEL_RETRY: False, Effect.RETRY_LATER: True}.get(effect, self.timer)
        return self._replace(timer=timer)


def test_effects_leave_what_the_next_state_says() -> None:
    """No guest, session or timer is lost or counted that is not there."""
    for state, choice, (after, effects) in STEPS:
        held = Held.of(state).happened(choice.event)
        for effect in effects:
            held = held.done(effect)
        assert held == Held.of(after), (state, choice)


def test_no_slot_stands_still_while_a_guest_is_wanted() -> None:
    for state in STATES:
        if state.wants_guest and state.present and not state.waiting:
            assert state.successor not in (Successor.NONE, Successor.READY), state
        if state.wants_guest and state.present:
            assert state.waiting or state.successor is not Successor.NONE, state


def test_a_guest_that_may_not_run_gets_no_further() -> None:
    for state in STATES:
        if state.successor in (Successor.READY, Successor.HANDOVER):
            assert state.admission is Admission.ADMITTED, state
        if state.admission is Admission.VACANT:
            assert state.incumbent is Incumbent.NONE, state
            assert state.successor in (Successor.NONE, *LOADING), state
        if state.admission is Admission.SKIPPED:
            assert state.incumbent is Incumbent.NONE, state


def test_a_session_that_the_runtime_counts_on_is_drained_and_not_closed() -> None:
    for state, choice, (_, effects) in STEPS:
        if Effect.CLOSE_SUCCESSOR in effects:
            assert state.successor is Successor.STARTING, (state, choice)
            assert choice.event is not Event.SYNCHRONISED


def test_two_sessions_only_for_a_handover() -> None:
    for state in STATES:
        assert (state.successor is not Successor.HANDOVER) or state.incumbent is not Incumbent.NONE


def test_an_incumbent_is_drained_only_where_it_must_not_stay() -> None:
    """A failure, a quarantine or another release never takes it away before its successor."""
    for state, choice, (after, effects) in STEPS:
        if Effect.DRAIN_INCUMBENT in effects:
            assert after.admission in (Admission.VACANT, Admission.SKIPPED), (state, choice)


def test_an_event_that_has_no_place_changes_nothing() -> None:
    told = {Event.ASSIGNED, Event.RENEWED, Event.REMOVED, Event.LEFT_OUT, Event.CONNECT_FAILED}
    theirs = {Event.LOADED, Event.LOAD_FAILED, Event.SUPERSEDED}  # where the slot says: in vain
    for state in STATES:
        events = {choice.event for choice in possible(state)}
        for event in set(Event) - events - told - theirs:
            assert step(state, event) == Step(state, ()), (state, event)


def test_what_the_runtime_costs_is_forgiven_and_what_the_guest_costs_is_not() -> None:
    for state, choice, (after, effects) in STEPS:
        if choice.event in (Event.RUNTIME_PRESENT, Event.RUNTIME_ABSENT):
            assert after.waiting == (state.waiting and state.failing), (state, choice)
            assert (Effect.FORGET_FAILURES in effects) is not state.failing


def test_a_guest_that_failed_is_not_made_anew_before_its_time() -> None:
    for state, choice, (after, effects) in STEPS:
        if Effect.RETRY_LATER in effects:
            early = choice.event is Event.INCUMBENT_CLOSED_EARLY
            assert (Effect.LOAD in effects) <= early, (state, choice)
            assert Effect.CONNECT not in effects
            assert after.waiting


def test_whoever_takes_over_is_what_is_wanted() -> None:
    for state, choice, (after, effects) in STEPS:
        if Effect.TAKE_OVER in effects:
            assert after.incumbent is Incumbent.CURRENT, (state, choice)
            assert not after.failing
            assert after.served


def test_a_renewal_outlives_whatever_is_assigned_meanwhile() -> None:
    state = step(SlotState(Admission.ADMITTED, Incumbent.CURRENT), Event.RENEWED).state
    for admission in (Admission.QUARANTINED, Admission.ADMITTED):
        state = step(state, Event.ASSIGNED, admission, matches=True).state
        assert state.incumbent is Incumbent.RENEWED
    assert state.wants_guest


def test_it_is_loaded_while_the_runtime_is_away_only_where_it_was_served() -> None:
    for served in (False, True):
        state = SlotState(served=served)
        after, effects = step(state, Event.ASSIGNED, Admission.ADMITTED)
        assert (Effect.LOAD in effects) is served
        assert after.successor is (Successor.LOADING if served else Successor.NONE)


# --- what people and the runtime are told


def test_a_status_is_one_of_those_documented() -> None:
    words = {status(state, on_trial=trial) for state in STATES for trial in (False, True)}
    assert words == {
        *("skipped", "quarantined", "failed", "backoff", "probation", "running", "waiting"),
        "starting",
    }


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (SlotState(Admission.ADMITTED), "waiting"),
        (SlotState(Admission.ADMITTED, present=True), "starting"),
        (SlotState(Admission.ADMITTED, present=True, waiting=True), "backoff"),
        (SlotState(Admission.ADMITTED, waiting=True), "waiting"),
        (SlotState(Admission.ADMITTED, Incumbent.CURRENT), "running"),
        (SlotState(Admission.ADMITTED, Incumbent.OUTDATED, Successor.HANDOVER), "running"),
        (SlotState(Admission.ADMITTED, Incumbent.RENEWED, waiting=True), "running"),
        (SlotState(Admission.ADMITTED, Incumbent.FAILED, present=True), "backoff"),
        (SlotState(Admission.QUARANTINED, Incumbent.CURRENT), "quarantined"),
        (SlotState(Admission.UNUSABLE, Incumbent.OUTDATED), "failed"),
        (SlotState(Admission.SKIPPED, present=True), "skipped"),
    ],
)
def test_a_status_by_state(state: SlotState, told: str) -> None:
    assert status(state, on_trial=False) == told
    assert status(state, on_trial=True) == ("probation" if told == "running" else told)


@pytest.mark.parametrize(
    ("state", "refusing", "optional", "expected"),
    [
        (SlotState(Admission.VACANT, present=True), False, False, True),
        (SlotState(Admission.SKIPPED, present=True), False, False, True),
        (SlotState(Admission.ADMITTED), False, False, True),  # no runtime to wait for
        (SlotState(Admission.ADMITTED, present=True), False, True, False),
        (SlotState(Admission.ADMITTED, present=True), True, False, True),
        (SlotState(Admission.ADMITTED, Incumbent.FAILED, present=True), False, False, True),
        (SlotState(Admission.ADMITTED, present=True, waiting=True), False, True, True),
        (SlotState(Admission.ADMITTED, present=True, waiting=True), False, False, False),
        (SlotState(Admission.QUARANTINED, present=True), False, True, True),
        (SlotState(Admission.UNUSABLE, present=True), False, False, False),
    ],
)
def test_what_is_settled(state: SlotState, refusing: bool, optional: bool, expected: bool) -> None:
    assert settled(state, refusing=refusing, optional=optional) is expected


HERE = SlotState(Admission.ADMITTED, present=True)
HELD = SlotState(Admission.QUARANTINED, present=True)


@pytest.mark.parametrize(
    ("state", "grace", "refusing", "refused", "expected"),
    [
        (HERE, Grace.NOT_BEGUN, False, False, Absence.BEGIN_GRACE),
        (HERE, Grace.RUNNING, False, False, Absence.GRACE),
        (HERE, Grace.OVER, False, False, Absence.REFUSED),
        (HERE._replace(successor=Successor.STARTING), Grace.OVER, False, False, Absence.GRACE),
        (HERE._replace(successor=Successor.LOADING), Grace.OVER, False, False, Absence.REFUSED),
        (HERE._replace(failing=True), Grace.NOT_BEGUN, False, False, Absence.REFUSED),
        (
            HERE._replace(admission=Admission.QUARANTINED),
            Grace.RUNNING,
            False,
            False,
            Absence.REFUSED,
        ),
        (HERE, Grace.RUNNING, False, True, Absence.REFUSED),  # until the plugin is registered
        (HERE._replace(present=False), Grace.OVER, False, True, Absence.NONE),
        (HERE._replace(present=False), Grace.OVER, True, True, Absence.REFUSED),
        (HERE._replace(incumbent=Incumbent.FAILED), Grace.OVER, True, True, Absence.NONE),
        (HERE._replace(admission=Admission.SKIPPED), Grace.OVER, True, True, Absence.NONE),
        (HERE._replace(admission=Admission.VACANT), Grace.OVER, True, True, Absence.NONE),
    ],
)
def test_the_absence_of_a_plugin_that_must_not_be_missed(
    state: SlotState, grace: Grace, refusing: bool, refused: bool, expected: Absence
) -> None:
    assert absence(state, grace, refusing=refusing, refused=refused) is expected
