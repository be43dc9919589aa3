"""The console's answers: who gets one, and that a node's text stays text."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_agent.console.live import MAX_EVENT_BYTES
from edge_agent.console.web import MAX_STREAMS
from tests.console.conftest import HOST, Site, scope
from tests.support.wait import TIMEOUT_S, wait_until

PAGES = ("/", "/rollout", "/events", "/plugins", "/nodes/barn-1")
# An attribute's end, an element's beginning, what reverses text, what a terminal would obey.
HOSTILE = "\"'><script>alert(1)</script><b onclick=x>\u202eevil\u0000\x1b[2J{{7*7}}"
BROKEN: tuple[object, ...] = (
    None,
    1,
    -1,
    1e300,
    1 << 70,
    "x" * 3000,
    [],
    [[]],
    [1],
    {},
    {"a": []},
    True,
)


def test_nothing_without_the_token(site: Site) -> None:
    site.node("barn-1")
    for path in (*PAGES, "/live", "/static/console.css", "/none"):
        answer = site.get(path, signed_in=False)
        assert (answer.status, "barn" in answer.body) == (401, False), path
        assert site.get(path, False, {"cookie": "edge_agent_console_8480=x"}).status == 401
    assert site.get("/?token=wrong", signed_in=False).status == 403
    assert site.get("/?token=%C3%BC", signed_in=False).status == 403


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site: Site) -> None:
    answer = site.get(f"/?token={site.token}", signed_in=False)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert f"edge_agent_console_8480={site.token}" in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", f"x@{HOST}"])
def test_another_name_that_leads_here_is_refused(site: Site, host: str) -> None:
    assert site.get("/", headers={"host": host}).status == 421
    assert site.get(f"/?token={site.token}", headers={"host": host}).status == 421


def test_every_answer_forbids_what_is_not_its_own(site: Site) -> None:
    for path in (*PAGES, "/none", "/static/console.css", "/static/none"):
        for signed_in in (True, False):
            headers = site.get(path, signed_in).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"


def test_pages_name_no_other_host_and_nothing_inline(site: Site) -> None:
    site.node("barn-1")
    for path in PAGES:
        body = site.get(path).body
        assert "//" not in body.replace("<!doctype html>", ""), path
        for inline in ("<style", " style=", " onclick", "javascript:", "<script>"):
            assert inline not in body, path


def test_an_address_that_is_too_long_is_refused(site: Site) -> None:
    assert site.get(f"/?q={'x' * 5000}").status == 414
    assert site.get("/?page=99999999999999999999&q=%00%ff").status == 200
    assert site.get("/nodes/..%2f..%2fetc").status == 404
    assert site.get("/static/../web.py").status == 404


def test_what_changed_is_sent_without_the_frame(site: Site) -> None:
    site.node("barn-1")
    whole, part = site.get("/"), site.get("/", headers={"hx-request": "true"})
    assert "<html" in whole.body
    assert "<html" not in part.body
    assert part.body.strip() in whole.body


def test_text_of_a_node_stays_text(site: Site) -> None:
    plugin = {
        "name": HOSTILE, "index": "10", "version": HOSTILE, "status": HOSTILE, "error": HOSTILE,
        "digest": HOSTILE, "runtime": HOSTILE, "failures": {HOSTILE: 1}, "events": 1,
    }  # fmt: skip
    site.node(
        "barn-1",
        "online",
        agent=HOSTILE,
        architecture=HOSTILE,
        labels={HOSTILE: HOSTILE},
        engine={"name": HOSTILE},
        runtimes=[{"name": HOSTILE, "state": HOSTILE}],
        plugins=[plugin],
        updates={"rejected": {HOSTILE: HOSTILE}, "refused": {"reason": HOSTILE, "text": HOSTILE}},
    )
    before = site.live.events_seen
    record = {"seq": 901, "plugin": HOSTILE, "event": HOSTILE, "outcome": HOSTILE, "error": HOSTILE}
    site.reports("barn-1", {**record, "pod": {"name": HOSTILE}, "adjusted": [HOSTILE]})
    wait_until(lambda: site.live.events_seen > before, "the result has come")
    site.settle()
    for path in PAGES:
        body = site.get(path).body
        assert "evil" in body or path == "/rollout", path
        for raw in ("<script>alert", "<b onclick", "\u202e", "\x1b", "\0"):
            assert raw not in body, (path, raw)


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_a_state_of_any_form_breaks_no_page(site: Site, broken: object) -> None:
    keys = ("agent", "labels", "plugins", "runtimes", "updates", "engine", "memory", "certificate")
    site.says("barn-1", "status", {"status": broken, "session": broken})
    site.node("barn-1", "online", **dict.fromkeys(keys, broken))
    site.node("barn-2", plugins=[dict.fromkeys(("name", "events", "failures", "since"), broken)])
    site.reports("barn-1", {"seq": 1, "time": broken, "pod": broken, "reports": broken})
    site.settle()
    assert not site.live.problem
    for path in PAGES:
        assert site.get(path).status == 200, path


def test_a_node_that_was_removed_is_gone(site: Site) -> None:
    site.node("barn-1")
    assert "barn-1" in site.get("/").body
    site.says("barn-1", "status", b"")
    site.says("barn-1", "state", b"")
    wait_until(lambda: site.live.node("barn-1") is None, "it is gone")
    assert "barn-1" not in site.get("/").body
    assert site.get("/nodes/barn-1").status == 404


def test_a_page_says_that_it_may_be_old(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.node("barn-1")
        site.broker.__exit__()
        wait_until(lambda: site.live.problem, "the broker is missed")
        for path in PAGES:
            body = site.get(path).body
            assert "What is shown may be old: " in body, path
        assert "barn-1" in site.get("/").body


def test_large_results_do_not_fill_memory(site: Site) -> None:
    """A board may send as much as it likes."""
    number = 50
    for seq in range(number):
        before = site.live.events_seen
        site.reports("flood", {"seq": 2000 + seq, "outcome": "error", "error": "x" * 200_000})
        wait_until(partial(_seen_after, site, before), "it has come")
    kept = site.live.events(lambda item: item.node == "flood", number)
    seqs = [each.item.first for each in kept]
    assert seqs == list(range(2000 + number - 1, 2000 + number - 1 - len(kept), -1))
    assert MAX_EVENT_BYTES - 300_000 < sum(each.size for each in kept) <= MAX_EVENT_BYTES


def test_open_pages_are_told_of_changes(site: Site) -> None:
    """Twice each: at first, for what changed since the page was made, and of each change."""

    def then(told: str) -> None:
        if "event: results" in told and "new" not in site.live.summary.agents:
            site.node("barn-1", agent="new")
        if told.count("event: fleet") == 2 and told.count("event: results") == 1:
            site.reports("barn-1", {"seq": 902 + len(told), "plugin": "10-a", "outcome": "ok"})

    told = asyncio.run(_stream(site, lambda told: told.count("event: results") >= 2, then))
    assert told.count("event: fleet\ndata:\n\n") >= 2


def test_no_more_streams_than_some(site: Site) -> None:
    async def many() -> list[int]:
        gates = [_Gate() for _ in range(MAX_STREAMS + 1)]
        calls = [asyncio.create_task(site.app(_live(site), g.receive, g.send)) for g in gates]
        for gate in gates:
            await asyncio.wait_for(gate.begun.wait(), TIMEOUT_S)
            await asyncio.sleep(0)
        for gate in gates:
            gate.leave.set()
        await asyncio.wait_for(asyncio.gather(*calls), TIMEOUT_S)
        return [gate.status for gate in gates]

    found = asyncio.run(many())
    assert found.count(503) == 1
    assert found.count(200) == MAX_STREAMS
    assert asyncio.run(_stream(site, lambda told: "200" in told, lambda _: None))  # room again


def _seen_after(site: Site, before: int) -> bool:
    return site.live.events_seen > before


class _Gate:
    """A browser's end of a stream."""

    def __init__(self) -> None:
        self.begun, self.leave = asyncio.Event(), asyncio.Event()
        self.status = 0
        self.body = b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.body += message.get("body", b"")
        self.begun.set()

    async def receive(self) -> Any:
        await self.leave.wait()
        return {"type": "http.disconnect"}


def _live(site: Site) -> dict[str, Any]:
    return scope("/live", {"host": HOST, "cookie": f"edge_agent_console_8480={site.token}"})


async def _stream(site: Site, until: Callable[[str], bool], then: Callable[[str], None]) -> str:
    """What a stream says until `until` holds of it; `then` is called after each new text."""
    gate, seen = _Gate(), ""
    call = asyncio.create_task(site.app(_live(site), gate.receive, gate.send))
    while not until(seen):
        await asyncio.sleep(0.01)
        text = f"{gate.status} {gate.body.decode()}"
        if text != seen:
            seen = text
            await asyncio.to_thread(then, text)
    gate.leave.set()
    await asyncio.wait_for(call, TIMEOUT_S)
    return seen
