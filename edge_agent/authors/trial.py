"""Events for one plugin, and the outcome of each: of `edge-agent plugin run` and `plugin test`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from edge_agent.authors import backtrace
from edge_agent.authors.tryout import PluginFile, Runtime, Tryout
from edge_agent.config.units import format_size
from edge_agent.errors import ConfigError, GuestError, GuestFault
from edge_agent.nri import events, permissions
from edge_agent.nri.difference import Change, changes, message_types
from edge_agent.pb import nri_pb2
from edge_agent.wasm.engine_selection import AUTO
from edge_agent.wasm.guestlog import DEBUG, ERROR, INFO, WARN
from edge_agent.wasm.imports import Report

LEVELS = {DEBUG: "debug", INFO: "info", WARN: "warning", ERROR: "error"}
MAX_PAYLOAD_SHOWN = 200  # bytes of a report


@dataclass
class Outcome:
    """The result of the event.

    `kind` is "ok", "error" (the plugin's own), "rejected" (by a validator), "denied"
    (beyond its permissions) or a fault's kind.
    """

    kind: str = "ok"
    error: str = ""
    frames: list[str] = field(default_factory=list)  # where a fault was, the innermost call first
    step: str = ""  # where it failed: start, Configure, Synchronize or the event
    export: str = ""
    duration_us: int = 0
    changes: list[Change] = field(default_factory=list)
    asked: list[Change] = field(default_factory=list)  # through edge.update_containers
    reply: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[str, int, str]] = field(default_factory=list)  # step, level, text
    reports: list[Report] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    memory_bytes: int = 0
    fuel: dict[str, int] = field(default_factory=dict)  # instructions, by export
    notes: list[str] = field(default_factory=list)

    def after(self, begun: "Outcome") -> "Outcome":
        """With what the plugin did when it began."""
        if self is begun:
            return self
        return replace(
            self,
            lines=begun.lines + self.lines,
            reports=begun.reports + self.reports,
            asked=begun.asked + self.asked,
        )


class Trial:
    """One instance of a plugin under events, one after the other. A context manager.

    `begin`, then `event`s. Errors of the plugin are in the outcomes; after one of its beginning
    or a fault, it is finished.
    """

    def __init__(
        self,
        plugin: PluginFile,
        runtime: Runtime,
        *,
        engine: str = AUTO,
        count_fuel: bool = False,
        state: Mapping[str, bytes] | None = None,
    ) -> None:
        """`count_fuel`: where the plugin's own limits do not have it counted anyway."""
        self._tryout = Tryout(plugin, engine, count_fuel=count_fuel)
        self._runtime = runtime
        self._begun = Outcome(step="start")
        for key, value in (state or {}).items():
            self._tryout.state.put(key, value)

    def __enter__(self) -> "Trial":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tryout.__exit__(kind, error, trace)

    def check(self, method: str, request: Message) -> None:
        """ConfigError: the plugin does not take this event. Nothing is compiled for it."""
        _translated(self._tryout, method, request)

    def begin(self, sync: Message | None = None) -> Outcome:
        """Start and configure the plugin, and synchronise it if there is a request for that.

        ModuleError, EngineError, StoreError: it could not be started, for a reason outside of it.
        """
        outcome, tryout = self._begun, self._tryout
        tryout.compile()
        with self._telling(outcome):
            tryout.start()
            self._enter(outcome, events.CONFIGURE)
            tryout.configure(self._runtime)
            outcome.reply = {"events": tryout.wanted}
        if sync is not None:
            self.synchronize(sync)
        return outcome

    def synchronize(self, request: Message) -> None:
        """The rest of its beginning, for a plugin that wants it; told with the outcome of that."""
        outcome = self._begun
        if outcome.kind == "ok":
            with self._telling(outcome):
                self._enter(outcome, events.SYNCHRONIZE)
                self._tryout.synchronize(request.SerializeToString())

    def event(self, method: str, request: Message) -> Outcome:
        """Call the plugin once, after `begin`; where it did not begin, the outcome of that.

        ConfigError: it does not take this event.
        """
        tryout = self._tryout
        export, request = _translated(tryout, method, request)
        if self._begun.kind != "ok":
            return self._begun
        outcome = Outcome(step=method, export=export)
        with self._telling(outcome):
            _call(tryout, method, request, outcome)
        event = events.BY_METHOD.get(method)
        if event and not tryout.subscribed(self._runtime) & event.bit:
            outcome.notes.append(
                f"{self._runtime.name} {self._runtime.version} would not send it {method}: "
                "it does not ask for it when configured like this"
            )
        return outcome

    def timed(self, method: str, request: Message, calls: int) -> list[int]:
        """Nanoseconds of each of so many calls, after an `event` that went well; error replies
        count as any. GuestFault: it ended in one of them."""
        tryout = self._tryout
        export, request = _translated(tryout, method, request)
        payload = request.SerializeToString()
        taken = []
        for _ in range(calls):
            began = time.perf_counter_ns()
            with suppress(GuestError):
                tryout.call(export, payload)
            taken.append(time.perf_counter_ns() - began)
            tryout.services.reports.clear()
            tryout.services.updates.clear()
            tryout.lines.clear()
        return taken

    @contextmanager
    def _telling(self, outcome: Outcome) -> Iterator[None]:
        """Put into `outcome` how the plugin failed, and all that it did."""
        tryout = self._tryout
        try:
            yield
        except GuestError as error:
            outcome.kind, outcome.error = "error", str(error)
        except GuestFault as fault:
            outcome.kind, outcome.error = fault.kind, str(fault)
            outcome.frames = backtrace.described(
                tryout.plugin.wasm, fault.frames, lines=not tryout.counts_fuel
            )
        except permissions.NotPermitted as error:
            outcome.kind, outcome.error = "denied", str(error)
        self._take_lines(outcome)
        outcome.reports += tryout.services.reports
        outcome.asked += _asked(tryout.services.updates)
        tryout.services.reports.clear()
        tryout.services.updates.clear()
        outcome.state = dict(tryout.state.content)
        outcome.memory_bytes = tryout.memory_bytes
        outcome.fuel = dict(tryout.fuel_used)

    def _enter(self, outcome: Outcome, step: str) -> None:
        """Assign the log lines so far to the step before."""
        self._take_lines(outcome)
        outcome.step = step

    def _take_lines(self, outcome: Outcome) -> None:
        outcome.lines += [(outcome.step, level, text) for level, text in self._tryout.lines]
        self._tryout.lines.clear()


def _translated(tryout: Tryout, method: str, request: Message) -> tuple[str, Message]:
    """The export that serves a method, and the request in its form, as the agent does it."""
    export, change = events.ALL_EXPORTS[method], events.EXPORTS[events.STATE_CHANGE]
    event = events.BY_METHOD.get(method)
    if export in tryout.exports:
        return export, request
    if event is not None and event.in_state_change and change in tryout.exports:
        carrier = nri_pb2.StateChangeEvent(event=nri_pb2.Event.Name(event.number))
        carrier.MergeFromString(_as_state_change(request))
        return change, carrier
    served = events.names(events.servable(tryout.exports))
    raise ConfigError(
        f"{tryout.plugin.path} does not take {method}: it does not export {export}; "
        f"it takes {', '.join(served) or 'no event'}"
    )


def _as_state_change(request: Message) -> bytes:
    carrier = nri_pb2.StateChangeEvent()
    for name in ("pod", "container"):
        if name in request.DESCRIPTOR.fields_by_name and request.HasField(name):
            getattr(carrier, name).CopyFrom(getattr(request, name))
    return carrier.SerializeToString()


def _call(tryout: Tryout, method: str, request: Message, outcome: Outcome) -> None:
    payload = request.SerializeToString()
    began = time.perf_counter_ns()
    try:
        raw = tryout.call(outcome.export, payload)
    finally:
        outcome.duration_us = (time.perf_counter_ns() - began) // 1000
    kind = message_types(method)[1]
    try:
        reply = kind.FromString(raw)
    except (DecodeError, UnicodeDecodeError) as error:
        raise GuestFault("abi", f"its reply is no {kind.DESCRIPTOR.name}") from error
    outcome.reply = MessageToDict(reply, preserving_proto_field_name=True)
    outcome.changes = changes(request, reply)
    if isinstance(reply, nri_pb2.ValidateContainerAdjustmentResponse) and reply.reject:
        outcome.kind, outcome.error = "rejected", reply.reason or "it gives no reason"
    permissions.check(method, raw, tryout.plugin.settings.permissions)


def _asked(updates: list[bytes]) -> list[Change]:
    found: list[Change] = []
    for raw in updates:
        try:
            update = nri_pb2.UpdateContainersRequest.FromString(raw)
        except (DecodeError, UnicodeDecodeError):
            found.append(Change("update", "-", "", None, "is no UpdateContainersRequest"))
            continue
        found += changes(nri_pb2.Empty(), update)
    return found


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For tools; bytes are text where they are UTF-8, else hexadecimal."""
    return {
        "outcome": outcome.kind,
        "error": outcome.error,
        "frames": outcome.frames,
        "step": outcome.step,
        "export": outcome.export,
        "duration_us": outcome.duration_us,
        "changes": [asdict(change) for change in outcome.changes],
        "updates": [asdict(change) for change in outcome.asked],
        "reply": outcome.reply,
        "log": [
            {"step": step, "level": LEVELS.get(level, "info"), "text": text}
            for step, level, text in outcome.lines
        ],
        "reports": [
            {
                "kind": report.kind,
                "content_type": report.content_type,
                "payload": _readable(report.payload),
            }
            for report in outcome.reports
        ],
        "state": {key: _readable(value) for key, value in outcome.state.items()},
        "memory_bytes": outcome.memory_bytes,
        "fuel": outcome.fuel,
        "notes": outcome.notes,
    }


def as_text(outcome: Outcome, title: str) -> list[tuple[str, str]]:
    """(subject, text) of each line for a person, not yet safe to print."""
    found = [("request", title)]
    if outcome.kind == "ok":
        count = len(outcome.changes)
        told = f"{count} changes" if count > 1 else "1 change" if count else "nothing is changed"
        if outcome.step == events.VALIDATE.method:
            told = "accepted"
        found.append(("reply", f"{told}, in {outcome.duration_us} us"))
    else:
        words = {"error": "the plugin refuses", "denied": "not permitted"}
        word = words.get(outcome.kind, outcome.kind)
        found.append(("failed", f"{outcome.step}: {word}: {outcome.error}"))
    found += [("at", frame) for frame in outcome.frames]
    if outcome.kind in ("trap", "timeout") and not outcome.frames:
        found.append(("at", "not told by this engine: --engine wasmtime"))
    found += [("", str(change)) for change in outcome.changes if change.field != "reject"]
    found += [("asks for", str(change)) for change in outcome.asked]
    for report in outcome.reports:
        found.append(("report", f"{report.kind} ({report.content_type}): {_cut(report.payload)}"))
    for step, level, text in outcome.lines:
        at = "" if step == outcome.step else f"{step}: "
        found.append(("log", f"{at}{LEVELS.get(level, 'info')}: {text}"))
    if outcome.state:
        size = sum(len(key.encode()) + len(value) for key, value in outcome.state.items())
        found.append(("state", f"{size} bytes: {', '.join(sorted(outcome.state))}"))
    found.append(("memory", format_size(outcome.memory_bytes)))
    if outcome.fuel:
        calls = (f"{used} in {export}" for export, used in outcome.fuel.items())
        found.append(("fuel", ", ".join(calls)))
    found += [("note", note) for note in outcome.notes]
    return found


def _readable(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


def _cut(data: bytes) -> str:
    more = len(data) - MAX_PAYLOAD_SHOWN
    return _readable(data[:MAX_PAYLOAD_SHOWN]) + (f" ... ({more} bytes more)" if more > 0 else "")
