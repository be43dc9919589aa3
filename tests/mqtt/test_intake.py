"""What is dropped where more is reported than is packed."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.intake import INTAKE_BYTES, Intake, Taken


def drained(intake: Intake) -> list[Taken]:
    """Everything that waits."""
    return list(iter(intake.pop, None))


def test_items_come_out_in_the_order_of_putting() -> None:
    intake = Intake(10)
    assert [intake.put(item, 1, False) for item in "abc"] == [1, 2, 3]
    assert drained(intake) == [Taken(item, False, 0) for item in "abc"]
    assert len(intake) == 0


def test_important_items_overtake() -> None:
    intake = Intake(10)
    for item in "abc":
        intake.put(item, 1, important=item == "c")
    assert [taken.item for taken in drained(intake)] == ["c", "a", "b"]


def test_the_oldest_ordinary_items_go_first_and_are_counted_among_their_kind() -> None:
    intake = Intake(3)
    for item in range(6):
        intake.put(item, 1, important=item in (1, 3))
    assert intake.dropped == 3
    assert drained(intake) == [Taken(1, True, 0), Taken(3, True, 0), Taken(5, False, 3)]


def test_important_items_go_once_no_other_is_left() -> None:
    intake = Intake(2)
    for item in range(5):
        intake.put(item, 1, important=True)
    assert drained(intake) == [Taken(3, True, 3), Taken(4, True, 0)]


def test_an_item_larger_than_all_is_dropped_alone() -> None:
    intake = Intake(10)
    for item, size in (("a", 1), ("huge", INTAKE_BYTES + 1), ("b", 1)):
        intake.put(item, size, False)
    assert drained(intake) == [Taken("a", False, 0), Taken("b", False, 1)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans())),
    st.integers(1, 8),
    st.integers(10, 60),
)
def test_the_bounds_hold_and_every_item_is_taken_or_counted(
    steps: list[tuple[int, bool, bool]], most: int, most_bytes: int
) -> None:
    intake, taken = Intake(most, most_bytes), list[Taken]()
    sizes = {}
    for number, (size, important, pops) in enumerate(steps):
        sizes[number] = size
        intake.put(number, size, important)
        assert len(intake) <= most
        if pops and (item := intake.pop()) is not None:
            taken.append(item)
    left = drained(intake)
    assert sum(sizes[each.item] for each in left if isinstance(each.item, int)) <= most_bytes
    taken += left
    for kind in (False, True):
        numbers = [int(str(each.item)) for each in taken if each.important == kind]
        assert numbers == sorted(numbers)
    assert len(taken) + intake.dropped == len(steps) == intake.put_so_far
    assert sum(each.skipped for each in taken) <= intake.dropped
