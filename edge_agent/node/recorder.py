"""Events as plugins got and answered them, for `edge-agent record`: kept for a moment, in memory.

The verb "record" of the control socket:

    {"begin": {"plugin": "NN-name", "events": ["CreateContainer"], "count": 200}}
                                            {"recording": 7}; plugin and events may be absent
    {"take": 7}                             {"events": [...], "dropped": 0, "left": 12}
    {"end": 7}                              {}

An event has bytes in base64 as they went over the wire, secrets too: the socket is open to the
agent's own user only, and the command redacts before it writes anything.
"""

import binascii
from collections import deque

from edge_agent.control import Answer
from edge_agent.fleet_protocol.event_result import UNMONITORED, EventResult
from edge_agent.loop import Loop, Timer
from edge_agent.nri import events

MAX_COUNT = 10_000
MAX_WAITING_BYTES = 4 << 20
MAX_EVENT_BYTES = 256 << 10
TAKEN_BYTES = 64 << 10  # with one answer, which is written on the thread that answers runtimes
ABANDONED_S = 15.0  # without `take`: who asked for it is gone


class Recorder:
    """One recording at a time. All methods belong to the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._number = 0
        self._left = 0  # to be recorded; 0: nothing is
        self._plugin = ""
        self._events: frozenset[str] = frozenset()
        self._waiting: deque[EventResult] = deque()
        self._bytes = 0
        self._dropped = 0
        self._abandoned: Timer | None = None

    def answered(self, result: EventResult) -> None:
        """Note an event, if one is wanted. Neither copies nor decodes."""
        if not self._left or result.event not in self._events or not result.export:
            return
        if self._plugin and str(result.plugin) != self._plugin:
            return
        if result.size > MAX_EVENT_BYTES or self._bytes + result.size > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._left -= 1
        self._bytes += result.size
        self._waiting.append(result)

    def verb(self, arguments: Answer) -> Answer:
        """The verb "record". With wrong arguments, or while another recording runs, the answer is
        {"problem": "what is wrong"}."""
        if "begin" in arguments:
            return self._begin(arguments["begin"])
        number = arguments.get("take", arguments.get("end"))
        if number != self._number or self._abandoned is None:
            return {"problem": f"there is no recording {number}: nobody took from it for a while"}
        if "end" in arguments:
            self._end()
            return {}
        self._wait()
        return self._take()

    def _begin(self, wanted: object) -> Answer:
        if self._abandoned is not None:
            return {"problem": "another recording runs; end it first"}
        if not isinstance(wanted, dict):
            return {"problem": "begin must be a JSON object"}
        count, named = wanted.get("count"), wanted.get("events", [])
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
            return {"problem": f"count must be a number from 1 to {MAX_COUNT}"}
        if not isinstance(named, list) or not all(
            isinstance(each, str) and each in events.BY_METHOD for each in named
        ):
            return {"problem": f"events must be a list of {', '.join(events.BY_METHOD)}"}
        self._number += 1
        self._left = count
        self._plugin = str(wanted.get("plugin", ""))
        self._events = frozenset(named or events.BY_METHOD)
        self._dropped = 0
        self._wait()
        return {"recording": self._number}

    def _take(self) -> Answer:
        taken: list[Answer] = []
        size = 0
        while self._waiting and (not taken or size + self._waiting[0].size <= TAKEN_BYTES):
            result = self._waiting.popleft()
            self._bytes -= result.size
            size += result.size
            taken.append(_encoded(result))
        return {"events": taken, "dropped": self._dropped, "left": self._left + len(self._waiting)}

    def _wait(self) -> None:
        if self._abandoned is not None:
            self._abandoned.cancel()
        self._abandoned = self._loop.call_later(ABANDONED_S, self._end)

    def _end(self) -> None:
        if self._abandoned is not None:
            self._abandoned.cancel()
        self._abandoned = None
        self._left = self._bytes = 0
        self._waiting.clear()


def _encoded(result: EventResult) -> Answer:
    return {
        "time_ns": result.time_ns,
        "plugin": str(result.plugin),
        "digest": str(result.digest),
        "runtime": result.runtime,
        "event": result.event,
        "export": result.export,
        "kind": UNMONITORED.get(result.kind, result.kind),
        "error": result.error,
        "duration_us": result.duration_ns // 1000,
        "request": binascii.b2a_base64(result.request, newline=False).decode(),
        "reply": binascii.b2a_base64(result.reply, newline=False).decode(),
    }
