"""The console in a real Chromium: `edge-agent fleet console` as a process, a real mosquitto."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.operator.conftest import GUARD, LOGGER, Home, home, mosquitto, peers
from tests.operator.peer import Peer
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import TIMEOUT_S, wait_until

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright and Debian's chromium (scripts/ci-setup)"
)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.system,
    needs_mosquitto,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
__all__ = ("home", "mosquitto", "peers")  # fixtures of the operator's tests

PAGES = ("/", "/nodes/barn-1", "/rollout", "/events", "/plugins")
LIMIT_MS = 90_000  # of one wait in the browser
EVIL = "<img src=x onerror=alert(1)>\u202e<script>alert(2)</script>"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # No sandbox: tests run as root in a container, and all pages are our own.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def console(home: Home) -> Iterator[str]:
    """The command; the address that it prints."""
    words = ("console", "-C", str(home.path), "--no-browser", "--json", "--port", "0")
    with subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "fleet", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


class Tab:
    """One page of the browser; whatever the browser complains about fails the test."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._base = url.partition("/?")[0]
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        page.on("console", self._said)
        page.on("request", self._asked)
        page.goto(url)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self._base):
            self.problems.append(f"another host: {request.url}")

    def open(self, path: str) -> None:
        self.page.goto(f"{self._base}{path}")

    def shows(self, text: str) -> None:
        """Wait until the page shows this, without loading it anew."""
        self.page.locator("main").get_by_text(text).locator("visible=true").first.wait_for()


@pytest.fixture
def tab(home: Home, chromium: Any) -> Iterator[Tab]:
    with console(home) as url:
        context = chromium.new_context(viewport={"width": 1200, "height": 800})
        tab = Tab(context.new_page(), url)
        yield tab
        context.close()
        assert tab.problems == []


@pytest.fixture
def nodes(peers: Callable[..., list[Peer]]) -> list[Peer]:
    return peers("barn-1", "field-2", labels={"site": "north"})


@pytest.mark.usefixtures("nodes")
def test_each_screen(home: Home, tab: Tab) -> None:
    home.fleet("publish", str(_guard()), "--name", "guard", "--version", "1.0.0")
    home.fleet("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "--yes")
    tab.shows("20-guard 1.0.0")
    tab.page.get_by_role("link", name="barn-1").click()
    tab.page.get_by_role("heading", name="barn-1").wait_for()
    tab.shows("edge-agent fleet request barn-1 diagnose")
    tab.page.get_by_role("link", name="Rollout").click()
    tab.shows("2 of 2 nodes run it")
    tab.page.get_by_role("link", name="Plugins").click()
    tab.page.get_by_role("link", name="1.0.0").click()
    tab.shows("Only nodes with")
    tab.page.get_by_role("searchbox").fill("field")
    tab.page.keyboard.press("Enter")
    tab.page.get_by_text("1 of 2 nodes").wait_for()


def test_changes_come_without_a_reload(nodes: list[Peer], tab: Tab) -> None:
    tab.page.evaluate("window.same = true")
    tab.shows("barn-1")
    nodes[0].die()
    tab.shows("lost: its connection ended without an offline message")
    assert tab.page.evaluate("window.same")
    tab.open("/events")
    tab.page.evaluate("window.same = true")
    nodes[1].report("s", {"seq": 1, "plugin": "20-guard", "outcome": "timeout", "error": "slow"})
    tab.shows("slow")
    assert tab.page.evaluate("window.same")


def test_a_rejection_is_answered_in_two_clicks(
    home: Home, peers: Callable[..., list[Peer]], tab: Tab
) -> None:
    """A board fails since the last rollout: which, why, what is to be done."""
    peers("good")
    peers("bad", dislikes=frozenset(("1.1.0",)))
    for version in ("1.0.0", "1.1.0"):
        home.fleet("publish", str(_guard(version)), "--name", "guard", "--version", version)
        first = ("--index", "20") if version == "1.0.0" else ()
        home.fleet("rollout", "guard", version, *first, "--percent", "100", "--yes")
    tab.page.get_by_role("link", name="rejected a release").click()
    tab.shows("rejected guard 1.1.0: trap: unreachable")
    tab.page.get_by_role("link", name="Rollout").click()
    tab.shows("1 node: trap: unreachable")
    tab.shows("edge-agent fleet rollback guard")


def test_a_malicious_node_shows_text(nodes: list[Peer], home: Home, tab: Tab) -> None:
    tab.shows("barn-1")  # results are not retained
    with home.opened() as fleet:
        topic = f"{fleet.nodes_topic}/barn-1/state"
        told = {"session": 9, "agent": EVIL, "labels": {EVIL: EVIL}, "architecture": EVIL}
        plugin = {"name": EVIL, "index": "10", "version": EVIL, "status": "failed", "error": EVIL}
        state = json.dumps({**told, "plugins": [plugin]}).encode()
        fleet.client.wait(fleet.client.send(topic, state, retain=True))
    nodes[0].report("s", {"seq": 1, "plugin": EVIL, "outcome": EVIL, "error": EVIL})
    for path in PAGES:
        tab.open(path)
        if path != "/rollout":
            tab.shows("<img src=x")
        assert tab.page.locator("main img, main script").count() == 0
        assert "\u202e" not in tab.page.content()


@pytest.mark.usefixtures("nodes")
def test_the_broker_goes_and_comes(mosquitto: Mosquitto, tab: Tab) -> None:
    tab.shows("barn-1")
    mosquitto.kill()
    tab.shows("What is shown may be old")
    tab.shows("barn-1")
    mosquitto.start()
    tab.page.get_by_text("What is shown may be old").wait_for(state="detached")
    tab.page.get_by_role("link", name="barn-1").wait_for()


@pytest.mark.usefixtures("nodes")
def test_it_serves_keyboards_phones_and_dark_rooms(tab: Tab) -> None:
    page = tab.page
    tab.shows("barn-1")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "To the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1200, 360):
            page.set_viewport_size({"width": width, "height": 800})
            for path in PAGES:
                tab.open(path)
                too_wide = "document.documentElement.scrollWidth > innerWidth"
                assert not page.evaluate(too_wide), (path, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(home: Home, nodes: list[Peer], chromium: Any, scheme: str) -> None:
    nodes[0].report("s", {"seq": 1, "plugin": "20-guard", "outcome": "timeout", "error": "slow"})
    with console(home) as url:
        # axe is written into the page, which its policy forbids.
        context = chromium.new_context(bypass_csp=True, color_scheme=scheme)
        tab = Tab(context.new_page(), url)
        tab.shows("barn-1")
        for path in PAGES:
            tab.open(path)
            found = axe.Axe().run(tab.page, options=RULES)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        context.close()


def test_thousands_of_nodes(home: Home, chromium: Any) -> None:
    """They are shown by pages, and found."""
    with home.opened() as fleet:
        sent = [
            fleet.client.send(
                f"{fleet.nodes_topic}/board-{number:05}/status",
                b'{"status": "online", "session": 1}',
                retain=True,
            )
            for number in range(2_000)
        ]
        for each in sent:
            fleet.client.wait(each)
    with console(home) as url:
        context = chromium.new_context()
        tab = Tab(context.new_page(), url)
        tab.page.get_by_text("2000 of 2000 nodes").wait_for()
        assert tab.page.locator("tbody tr").count() < 120
        tab.page.get_by_role("searchbox").fill("board-01777")
        tab.page.keyboard.press("Enter")
        tab.page.get_by_text("1 of 2000 nodes").wait_for()
        assert tab.page.locator("main table").first.locator("tbody tr").count() == 1
        context.close()
        assert tab.problems == []


def _guard(version: str = "1.0.0") -> Any:
    return GUARD if version == "1.0.0" else LOGGER


def test_it_ends_with_a_signal(home: Home) -> None:
    with console(home) as url:
        assert url.startswith("http://127.0.0.1:")
    wait_until(lambda: not _listens(url), "its port is free")


def _listens(url: str) -> bool:
    port = int(url.partition("/?")[0].rpartition(":")[2])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
