"""When a successor takes over: every order in which a runtime may deliver events."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.host.handover import FORGET_S, SETTLE_S, HandoverPolicy

CREATE, START = 1 << 3, 1 << 5
BOTH = CREATE | START


def test_switches_after_an_event_reached_both_old_first() -> None:
    handover = HandoverPolicy(0.0, BOTH, BOTH)
    assert not handover.seen(True, CREATE, "c1", 0.1)
    assert handover.seen(False, CREATE, "c1", 0.2)


def test_switches_after_an_event_reached_both_new_first() -> None:
    handover = HandoverPolicy(0.0, BOTH, BOTH)
    assert not handover.seen(False, CREATE, "c1", 0.1)
    assert handover.seen(True, CREATE, "c1", 0.2)


def test_does_not_switch_on_an_event_that_was_given_up_halfway() -> None:
    handover = HandoverPolicy(0.0, BOTH, BOTH)
    assert not handover.seen(True, CREATE, "c1", 0.1)  # another plugin refused c1
    assert not handover.seen(True, CREATE, "c2", 0.2)
    assert not handover.seen(False, CREATE, "c3", 0.3)  # the runtime sorted its list anew
    assert handover.seen(True, CREATE, "c3", 0.4)


def test_an_event_for_one_side_only_says_nothing() -> None:
    handover = HandoverPolicy(0.0, CREATE, BOTH)
    assert not handover.seen(False, START, "c1", 0.1)
    assert handover.may_switch(SETTLE_S, old_failed=False)


@pytest.mark.parametrize(
    ("elapsed", "failed", "expected"),
    [(SETTLE_S / 2, False, False), (SETTLE_S, False, True), (SETTLE_S / 2, True, False)],
)
def test_switches_by_time_where_nothing_happens(
    elapsed: float, failed: bool, expected: bool
) -> None:
    assert HandoverPolicy(10.0, BOTH, BOTH).may_switch(10.0 + elapsed, failed) is expected


def test_an_event_halfway_delays_the_switch_until_it_is_forgotten() -> None:
    handover = HandoverPolicy(0.0, BOTH, BOTH)
    handover.seen(False, CREATE, "c1", 0.5)
    assert not handover.may_switch(0.5 + FORGET_S, old_failed=False)
    assert handover.may_switch(0.6 + FORGET_S, old_failed=False)


def test_a_failed_predecessor_is_relieved_though_it_ends_every_event() -> None:
    handover = HandoverPolicy(0.0, BOTH, BOTH)
    handover.seen(True, CREATE, "c1", 0.9)
    assert handover.may_switch(SETTLE_S, old_failed=True)


@dataclass
class Runtime:
    """A runtime that sends events to a list of sessions, one event at a time."""

    handover: HandoverPolicy = field(default_factory=lambda: HandoverPolicy(0.0, CREATE, CREATE))
    switched: bool = False
    now: float = 0.0

    def deliver(self, event: int, order: list[bool], listed: bool) -> list[str]:
        """Who answers the event; `order` says for each session whether it is the old one."""
        answers = []
        for old in order:
            if not old and not listed:
                continue
            self.now += 0.001
            switch = False
            if not self.switched:
                switch = self.handover.seen(old, CREATE, event, self.now)
            if old == (not self.switched):
                answers.append("old" if old else "new")
            self.switched |= switch
        return answers


@given(
    st.lists(st.booleans(), max_size=4),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
)
def test_exactly_one_version_answers_whatever_the_order(
    before: list[bool], events: list[tuple[bool, bool]]
) -> None:
    runtime = Runtime()
    number = 0
    for old_first in before:  # the successor is not in the runtime's list yet
        number += 1
        order = [True, False] if old_first else [False, True]
        assert runtime.deliver(number, order, listed=False) == ["old"]
    for old_first, aborted in events:
        number += 1
        order = [True, False] if old_first else [False, True]
        if aborted:  # a plugin between the two failed the event: its answers do not count
            runtime.deliver(number, order[:1], listed=True)
        else:
            assert len(runtime.deliver(number, order, listed=True)) == 1
