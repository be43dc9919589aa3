"""What pages show: filters, order, counts and groups, by table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from edge_agent.console import pages
from edge_agent.console.facts import Facts, facts, summary
from edge_agent.console.live import Event
from edge_agent.console.pages import PAGE_ROWS, EventFilter, NodeFilter
from edge_agent.operator.deploy import Current
from edge_agent.operator.node_state import Node
from edge_agent.operator.results import Item
from edge_agent.operator.view import View

NONE = Current(None, None, "")


def plugin(name: str = "guard", version: str = "1.0.0", **more: object) -> dict[str, object]:
    told = {"name": name, "index": "20", "version": version, "digest": "sha256:" + "ab" * 32}
    return {**told, "status": "running", "events": 10, **more}


def made(name: str, status: str = "online", **state: Any) -> Facts:
    view = View()
    node = view.nodes[name] = Node(name, status, 1, {"agent": "0.1.0", **state})
    return facts(node, view, {}, 0, 0.0, 0.0)


NODES = [
    made("a", labels={"site": "north"}, plugins=[plugin()], architecture="armv7l"),
    made("b", "lost", plugins=[plugin(version="1.1.0", status="failed", error="trap: x")]),
    made("c", "offline", agent="0.2.0", plugins=[plugin("log"), plugin(status="quarantined")]),
    made("d", plugins=[plugin(status="probation")], updates={"rejected": {"sha256:ab": "slow"}}),
    made(
        "e", runtimes=[{"socket": "/run/s", "state": "waiting"}], plugins=[plugin(status="waiting")]
    ),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, "bcdae"),
        ({"q": "NORTH"}, "a"),
        ({"q": "site=north"}, "a"),
        ({"q": "trap"}, "b"),
        ({"q": "none of them"}, ""),
        ({"show": "lost"}, "b"),
        ({"show": "failing"}, "bc"),
        ({"show": "quarantined"}, "c"),
        ({"show": "probation"}, "d"),
        ({"show": "rejected"}, "d"),
        ({"show": "no-nri"}, "e"),
        ({"show": "trouble"}, "bcd"),
        ({"agent": "0.2.0"}, "c"),
        ({"arch": "armv7l"}, "a"),
        ({"plugin": "20-guard"}, "bcdae"),
        ({"plugin": "20-log"}, "c"),
        ({"plugin": "20-guard 1.1.0"}, "b"),
        ({"plugin": "20-guard", "show": "lost", "q": "a"}, "b"),
        ({"show": "lost", "agent": "0.2.0"}, ""),
    ],
)
def test_filter_takes_these_nodes_and_those_with_problems_first(
    query: Mapping[str, str], names: str
) -> None:
    found = pages.table(NODES, NodeFilter.of(query), 1)
    assert "".join(each.node.name for each in found.rows) == names
    assert found.found == len(names)


@pytest.mark.parametrize(
    ("count", "asked", "page", "pages_", "rows"),
    [
        *[(0, 1, 1, 1, 0), (PAGE_ROWS, 1, 1, 1, PAGE_ROWS), (PAGE_ROWS + 1, 2, 2, 2, 1)],
        *[(PAGE_ROWS * 3, 9, 3, 3, PAGE_ROWS), (5, 0, 1, 1, 5), (5, -7, 1, 1, 5)],
    ],
)
def test_pages_of_a_table(count: int, asked: int, page: int, pages_: int, rows: int) -> None:
    found = pages.table([made(f"n{n:04}") for n in range(count)], NodeFilter(), asked)
    assert (found.page, found.pages, len(found.rows), found.found) == (page, pages_, rows, count)


def test_a_filters_address_leads_to_the_same_filter() -> None:
    wanted = NodeFilter("a&b=c", "lost", "20-guard 1.0+x", "0.1.0", "armv7l")
    assert wanted.address() == (
        "?q=a%26b%3Dc&show=lost&plugin=20-guard+1.0%2Bx&agent=0.1.0&arch=armv7l"
    )
    assert wanted.address(page=2).endswith("&page=2")
    assert NodeFilter().address() == EventFilter().address() == ""
    assert len(NodeFilter.of({"q": "x" * 9999}).q) == pages.MAX_FILTER_CHARS


def test_counts_of_the_fleet() -> None:
    found = summary(NODES, View(), NONE)
    assert {each.title: each.nodes for each in pages.counts(found.words)} == {
        "online": 3,
        "lost": 1,
        "offline": 1,
        "with a problem": 3,
        "failing plugin": 2,
        "quarantined": 1,
        "rejected a release": 1,
        "on probation": 1,
        "runtime without NRI": 1,
    }
    assert (found.agents, found.architectures) == (["0.1.0", "0.2.0"], ["armv7l"])
    assert [each.title for each in pages.counts({})] == ["online"]


def test_versions_side_by_side() -> None:
    def at(name: str, version: str, p50: float, **more: object) -> Facts:
        return made(name, plugins=[plugin("guard", version, latency_ms={"p50": p50}, **more)])

    nodes = [
        *(at("a", "1.0.0", 1.0), at("b", "1.0.0", 3.0), at("c", "1.0.0", 9.0)),
        at("d", "1.1.0", 2.0, failures={"timeout": 2, "trap": 1}, events=12),
        at("e", "1.1.0", 2.0, status="skipped"),
    ]
    old, new = summary(nodes, View(), NONE).versions
    assert (old.version, old.nodes, old.good, old.bad, old.p50_ms) == ("1.0.0", 3, 3, 0, 3.0)
    assert (new.nodes, new.events, new.failures, new.failed_share) == (1, 12, 3, 25.0)


def record(**told: object) -> Item:
    return Item("record", "a", "s", 1, 1, told)


@pytest.mark.parametrize(
    ("item", "outcome", "subject", "detail", "bad"),
    [
        (record(outcome="ok"), "ok", "", "", False),
        (
            record(outcome="adjusted", adjusted=["env", "mounts"], pod={"name": "p"}),
            *("adjusted", "p", "changed env, mounts", False),
        ),
        (
            record(outcome="rejected", error="no", pod={"namespace": "n", "name": "p"},
                   container={"name": "c"}),
            *("rejected", "n/p/c", "no", True),
        ),
        (
            record(outcome="conflict", fields=["env A"], **{"with": ["10-a"]}),
            *("conflict", "", "fields env A; with 10-a", True),
        ),
        (
            record(outcome="ok", reports=[{"kind": "note", "payload": "hi"}]),
            *("ok", "", "note: hi", False),
        ),
        (Item("dropped", "a", "s", 3, 7, {}), "dropped", "", "5 results dropped: 3 to 7", True),
        (Item("unreadable", "a", "", 0, 0, {"error": "no map"}), "unreadable", "", "no map", True),
        (record(outcome=7, pod=3, adjusted="x", reports="y"), "7", "", "", True),
    ],
)  # fmt: skip
def test_an_event_for_people(
    item: Item, outcome: str, subject: str, detail: str, bad: bool
) -> None:
    row = pages.event_row(Event(1.0, item))
    assert (row.outcome, row.subject, row.detail, row.bad) == (outcome, subject, detail, bad)


@pytest.mark.parametrize(
    ("query", "taken"),
    [
        ({}, [True, True, True]),
        ({"node": "a"}, [True, True, True]),
        ({"node": "b"}, [False, False, False]),
        ({"outcome": "ok"}, [True, False, False]),
        ({"outcome": "bad"}, [False, True, True]),
        ({"plugin": "20-guard"}, [False, True, False]),
        ({"q": "SLOW"}, [False, True, False]),
        ({"q": "web"}, [True, False, False]),
    ],
)
def test_filter_takes_these_events(query: Mapping[str, str], taken: Sequence[bool]) -> None:
    items = [
        record(outcome="ok", plugin="10-log", pod={"name": "web"}),
        record(outcome="timeout", plugin="20-guard", error="slow"),
        Item("missing", "a", "s", 1, 2, {}),
    ]
    assert [EventFilter.of(query).takes(item) for item in items] == taken


def test_failures_are_grouped_by_reason_the_most_frequent_first() -> None:
    failures = {f"n{n:02}": "timeout" for n in range(30)} | {"x": "trap"}
    first, second = pages.grouped(failures)
    assert (first.reason, first.nodes, len(first.named)) == ("timeout", 30, pages.MAX_NAMED)
    assert first.named[0] == "n00"
    assert (second.reason, second.named) == ("trap", ["x"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, ""), (None, ""), ("", ""), (1_796_083_200, "2026-12-01 00:00:00")],
        *[("x", "-"), (1e300, "-"), (float("nan"), "-"), ([1], "-"), (True, "-")],
    ],
)
def test_times(seconds: object, text: str) -> None:
    assert pages.clock(seconds) == text


def test_words_are_counted_once_for_each_node() -> None:
    twice = made("x", plugins=[plugin(status="failed"), plugin("log", status="failed")])
    assert Counter(twice.words)["failing"] == 1
