"""The console as an ASGI application: sign-in, pages and live updates.

Only who has the token of the opened address gets an answer: a page of another site and another
user of the machine do not. The token is exchanged for a cookie at the first page.
"""

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.console import pages
from edge_agent.console.facts import VersionCount, name_of
from edge_agent.console.live import LiveFleet
from edge_agent.console.pages import EventFilter, NodeFilter
from edge_agent.text import printable

HERE = Path(__file__).parent
COOKIE = "edge_agent_console"  # and the port: cookies are the same for all ports of a host
TOKEN_BYTES = 32
MAX_STREAMS = 32  # pages with live updates at a time
LOOK_S = 0.5  # how often a page is told of changes, at most
KEEP_ALIVE_S = 15.0  # of a silent stream
MAX_QUERY_BYTES = 4096

# Nothing from another host, nothing inline: text of a node that became markup would do nothing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class _Guard:
    """Refuses what is not for this console, and sets HEADERS on every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int | None, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._cookie = f"{COOKIE}_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        # A name that another site made point here (DNS rebinding) is none of ours.
        if headers.get("host", "") not in self._hosts:
            return PlainTextResponse("this console has another address\n", 421)
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return PlainTextResponse("the address is too long\n", 414)
        request = Request(scope)
        given = request.query_params.get("token")
        if given is not None:
            if not self._right(given):
                return PlainTextResponse("a wrong token: open the address that was printed\n", 403)
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return answer
        if not self._right(request.cookies.get(self._cookie, "")):
            return PlainTextResponse(
                "not signed in: open the address that edge-agent fleet console printed\n", 401
            )
        return None

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def new_token() -> str:
    """A token for one run of the console."""
    return secrets.token_urlsafe(TOKEN_BYTES)


class Console:
    """The pages over one live fleet."""

    def __init__(self, live: LiveFleet) -> None:
        self._live = live
        self._streams = 0
        self.ending: Callable[[], bool] = lambda: False  # whether open pages are to be left
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # Control, bidirectional and invisible characters are written out, in every text.
        self._templates.finalize = _finalized

    def app(self, token: str, url: str) -> Starlette:
        """The application for this token; `url` is what browsers open, http://HOST:PORT."""
        address = urlsplit(url)
        hosts = frozenset((address.netloc, f"localhost:{address.port}"))
        return Starlette(
            routes=[
                Route("/", self._fleet),
                Route("/nodes/{name}", self._node),
                Route("/rollout", self._rollout),
                Route("/events", self._events),
                Route("/plugins", self._plugins),
                Route("/live", self._stream),
                Mount("/static", StaticFiles(directory=HERE / "static")),
            ],
            middleware=[Middleware(_Guard, token=token, port=address.port, hosts=hosts)],
            exception_handlers={404: _not_found},
        )

    # --- pages

    async def _fleet(self, request: Request) -> HTMLResponse:
        nodes, found = self._live.nodes(), self._live.summary
        wanted = NodeFilter.of(request.query_params)
        return self._page(
            request,
            "fleet",
            counts=pages.counts(found.words),
            all=len(nodes),
            summary=found,
            wanted=wanted,
            table=pages.table(nodes, wanted, _number(request.query_params.get("page"))),
            clock=pages.clock,
        )

    async def _node(self, request: Request) -> HTMLResponse:
        name = request.path_params["name"]
        facts = self._live.node(name)
        if facts is None:
            return self._page(request, "unknown", HTTPStatus.NOT_FOUND, name=name)
        events = self._live.events(EventFilter(node=name).takes, pages.MAX_SHOWN_EVENTS // 4)
        return self._page(
            request,
            "node",
            facts=facts,
            about=pages.about(facts.node, facts.seen),
            plugins=pages.plugin_rows(facts.node),
            rejected=sorted(facts.node.rejected.items())[: pages.MAX_NAMED],
            names=self._live.names,
            events=[pages.event_row(each) for each in events],
            news=self._live.news(name),
            clock=pages.clock,
        )

    async def _rollout(self, request: Request) -> HTMLResponse:
        current = self._live.current
        counted = self._live.summary
        found = [
            {"row": row, "name": name_of(row), "failures": pages.grouped(status.failed)}
            for row, status in zip(counted.releases, counted.rollouts, strict=True)
        ]
        return self._page(
            request,
            "rollout",
            current=current,
            releases=found,
            news=self._live.news(),
            clock=pages.clock,
        )

    async def _events(self, request: Request) -> HTMLResponse:
        wanted = EventFilter.of(request.query_params)
        events = self._live.events(wanted.takes, pages.MAX_SHOWN_EVENTS)
        return self._page(
            request,
            "events",
            wanted=wanted,
            events=[pages.event_row(each) for each in events],
            seen=self._live.events_seen,
        )

    async def _plugins(self, request: Request) -> HTMLResponse:
        found: dict[str, list[VersionCount]] = {}
        for each in self._live.summary.versions:
            found.setdefault(each.identity, []).append(each)
        return self._page(request, "plugins", plugins=found)

    def _page(
        self, request: Request, page: str, status: int = HTTPStatus.OK, **values: Any
    ) -> HTMLResponse:
        """The whole page; for htmx, which replaces what has changed, its content alone."""
        part = request.headers.get("hx-request") == "true"
        text = self._templates.get_template(f"{page}.html").render(
            page=page,
            layout="part.html" if part else "layout.html",
            here=f"{request.url.path}{f'?{request.url.query}' if request.url.query else ''}",
            fleet=self._live.name,
            problem=self._live.problem,
            **values,
        )
        return HTMLResponse(text, status)

    # --- live updates

    async def _stream(self, request: Request) -> StreamingResponse | PlainTextResponse:
        """Server-sent events: `fleet` when nodes or the deployment changed, `results` when results
        came. They have no content; the page asks for what it shows."""
        if self._streams >= MAX_STREAMS:
            return PlainTextResponse("too many pages are open\n", HTTPStatus.SERVICE_UNAVAILABLE)
        self._streams += 1
        return _Stream(self._changes(request), self._stream_ended)

    def _stream_ended(self) -> None:
        self._streams -= 1

    async def _changes(self, request: Request) -> AsyncIterator[str]:
        live, silent_s = self._live, 0.0
        # Both are told at first: something may have changed since the page was made.
        shown: object = None
        events = -1
        while not self.ending() and not await request.is_disconnected():
            await asyncio.sleep(LOOK_S)
            silent_s += LOOK_S
            if live.shown != shown:
                shown, silent_s = live.shown, 0.0
                yield "event: fleet\ndata:\n\n"
            if live.events_seen != events:
                events, silent_s = live.events_seen, 0.0
                yield "event: results\ndata:\n\n"
            if silent_s >= KEEP_ALIVE_S:
                silent_s = 0.0
                yield ": no change\n\n"


class _Stream(StreamingResponse):
    """Server-sent events; `ended` is called once, however the stream ends."""

    def __init__(self, changes: AsyncIterator[str], ended: Callable[[], None]) -> None:
        super().__init__(changes, media_type="text/event-stream")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def _finalized(value: object) -> object:
    return printable(value, 2000) if type(value) is str else "" if value is None else value


async def _not_found(_request: Request, _error: Exception) -> PlainTextResponse:
    return PlainTextResponse("no such page\n", HTTPStatus.NOT_FOUND)


def _number(given: str | None) -> int:
    return int(given) if given and given.isascii() and given.isdigit() and len(given) < 9 else 1
