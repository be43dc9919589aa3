"""What is dropped where more is reported than is packed."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.outbox import INGRESS_BYTES, IngressQueue, Taken


def drained(queue: IngressQueue) -> list[Taken]:
    """Everything that waits."""
    return list(iter(queue.pop, None))


def test_items_come_out_in_the_order_of_putting() -> None:
    queue = IngressQueue(10)
    assert [queue.put(item, 1, False) for item in "abc"] == [1, 2, 3]
    assert drained(queue) == [Taken(item, False, 0) for item in "abc"]
    assert len(queue) == 0


def test_important_items_overtake() -> None:
    queue = IngressQueue(10)
    for item in "abc":
        queue.put(item, 1, important=item == "c")
    assert [taken.item for taken in drained(queue)] == ["c", "a", "b"]


def test_the_oldest_ordinary_items_go_first_and_are_counted_among_their_kind() -> None:
    queue = IngressQueue(3)
    for item in range(6):
        queue.put(item, 1, important=item in (1, 3))
    assert queue.dropped == 3
    assert drained(queue) == [Taken(1, True, 0), Taken(3, True, 0), Taken(5, False, 3)]


def test_important_items_go_once_no_other_is_left() -> None:
    queue = IngressQueue(2)
    for item in range(5):
        queue.put(item, 1, important=True)
    assert drained(queue) == [Taken(3, True, 3), Taken(4, True, 0)]


def test_an_item_larger_than_all_is_dropped_alone() -> None:
    queue = IngressQueue(10)
    for item, size in (("a", 1), ("huge", INGRESS_BYTES + 1), ("b", 1)):
        queue.put(item, size, False)
    assert drained(queue) == [Taken("a", False, 0), Taken("b", False, 1)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans())),
    st.integers(1, 8),
    st.integers(10, 60),
)
def test_the_bounds_hold_and_every_item_is_taken_or_counted(
    steps: list[tuple[int, bool, bool]], most: int, most_bytes: int
) -> None:
    queue, taken = IngressQueue(most, most_bytes), list[Taken]()
    sizes = {}
    for number, (size, important, pops) in enumerate(steps):
        sizes[number] = size
        queue.put(number, size, important)
        assert len(queue) <= most
        if pops and (item := queue.pop()) is not None:
            taken.append(item)
    left = drained(queue)
    assert sum(sizes[each.item] for each in left if isinstance(each.item, int)) <= most_bytes
    taken += left
    for kind in (False, True):
        numbers = [int(str(each.item)) for each in taken if each.important == kind]
        assert numbers == sorted(numbers)
    assert len(taken) + queue.dropped == len(steps) == queue.put_so_far
    assert sum(each.skipped for each in taken) <= queue.dropped
