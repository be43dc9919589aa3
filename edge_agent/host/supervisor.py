"""All plugins at all runtimes: brings what runs in line with what should run, and reports it.

`apply` takes the complete set of releases; the slots of every runtime get their assignments, and
replace by themselves what changed (edge_agent.host.slot). Runs on the loop's thread. The state
that is reported is documented in docs/mqtt.md.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_agent.config import NriConfig
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.crash_policy import CrashPolicy
from edge_agent.host.creations import Creations, carrier_of, load_comparison
from edge_agent.host.handover import QUIET_S
from edge_agent.host.loader import Loader
from edge_agent.host.plugin import Plugin
from edge_agent.host.pluginstates import PluginStates
from edge_agent.host.probation import Trials
from edge_agent.host.runtime_endpoint import RuntimeEndpoint
from edge_agent.host.slot import Assignment, PluginSlot
from edge_agent.host.slot_state import settled as state_settled
from edge_agent.host.slot_state import status
from edge_agent.loop import Loop
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import PluginState
    from edge_agent.host.board_watch import BoardWatch

log = logging.getLogger(__name__)


class Supervisor:
    """`report` gets each result; `changed` is called, often, when a status may differ.

    `verdict(identity, digest, kept, reason)` ends the probation of a release, or
    says that one is quarantined (not kept), on the loop. What follows from it comes back through
    `apply`; a release that was rejected is tried on until then, since no other stands there.
    """

    def __init__(
        self,
        loop: Loop,
        config: NriConfig,
        loader: Loader,
        report: Callable[[EventResult], None],
        changed: Callable[[], None],
        verdict: Callable[[PluginId, Digest, bool, str], None],
        quarantine: CrashPolicy,
        states: PluginStates,
    ) -> None:
        self._loop = loop
        self._loader = loader
        self._report = report
        self._changed = changed
        self._releases: dict[PluginId, Release] = {}
        self._errors: dict[str, str] = {}
        self._applied = False  # what is to run is known
        self._verdict = verdict
        self._trials = Trials(loop, self._judged)
        self._crash_policy = quarantine
        self._reported: dict[
            PluginId, Digest
        ] = {}  # digests whose quarantine was reported, by plugin
        self._states = states
        self._creations = {each: Creations(loop, loader.run) for each in config.sockets}
        self._board_watch: BoardWatch | None = None  # most nodes need none
        self.endpoints = [
            RuntimeEndpoint(loop, socket, config, self._make_slot) for socket in config.sockets
        ]

    def apply(self, releases: Mapping[PluginId, Release], errors: Mapping[str, str]) -> None:
        """Run these releases. `errors` are shown beside them until the next call."""
        for name, error in errors.items():
            if self._errors.get(name) != error:
                log.error("%s", error)
        for identity in releases.keys() - self._releases.keys():
            log.info("%s: found", identity)
        for identity in self._releases.keys() - releases.keys():
            log.info("%s: removed", identity)
            self._states.forget(identity)  # a session of it may still wait to leave
            self._trials.forget(identity)
            self._reported.pop(identity, None)
        self._errors = dict(errors)
        self._releases = dict(releases)
        self._applied = True
        self._assign()
        self._watch_board()
        if releases:
            self._loader.run(load_comparison)  # after what was asked to be loaded
        self._states.drop(releases.keys() | set().union(*(each.slots for each in self.endpoints)))
        self._changed()

    def unquarantine(self, identity: PluginId) -> bool:
        """Lift a plugin's quarantine and forget its crashes; False if there are none."""
        if not self._crash_policy.unquarantine(identity):
            return False
        log.info(
            "%s: its crashes are forgotten, it may run again", identity, extra={"plugin": identity}
        )
        self._reported.pop(identity, None)
        self._assign()
        self._changed()
        return True

    def renew(self, identity: PluginId) -> bool:
        """Make a plugin's guest anew at each runtime; False if there is no such plugin."""
        if identity not in self._releases:
            return False
        for runtime in self.endpoints:
            runtime.slots[identity].renew()
        return True

    def _watch_board(self) -> None:
        """Call plugins by time and pressure, as far as any is set up for it."""
        wanted = any(each.settings.noticed for each in self._releases.values())
        if self._board_watch is not None:
            self._board_watch.want(wanted)
        elif wanted:
            self._loader.run(self._load_watch)

    def _load_watch(self) -> None:
        """On the loader's thread: an import waits for the disk."""
        from edge_agent.host.board_watch import BoardWatch

        self._loop.call_soon(partial(self._begin_watch, BoardWatch))

    def _begin_watch(self, kind: "type[BoardWatch]") -> None:
        if self._board_watch is None:
            made = kind(self._loop, self._loader.run, self._answering, self._waited_for)
            self._board_watch = made
        self._watch_board()

    def _answering(self) -> list[Plugin]:
        slots = (slot for runtime in self.endpoints for slot in runtime.slots.values())
        return [slot.plugin for slot in slots if slot.plugin is not None]

    def _waited_for(self) -> bool:
        """Whether a runtime waits for the answer of any session."""
        slots = (slot for runtime in self.endpoints for slot in runtime.slots.values())
        return any(plugin.waited_for for slot in slots for plugin in slot.sessions.plugins)

    def fails_closed(self) -> list[str]:
        """The plugins with a session without which no container may be created."""
        return sorted(
            identity
            for identity, release in self._releases.items()
            if release.settings.must_not_be_missed
            and any(each.slots[identity].plugin is not None for each in self.endpoints)
        )

    def close(self) -> None:
        """Close every session: the runtimes go on without these plugins.

        An event that has come is answered and reported first, and the runtime gets the time to
        read the answer: then this waits QUIET_S, where nothing is left to be answered.
        """
        self._trials.close()
        if sum(runtime.finish() for runtime in self.endpoints):
            time.sleep(QUIET_S)
        for runtime in self.endpoints:
            runtime.close()

    def _assign(self) -> None:
        assigned = {
            identity: self._assignment(identity, release)
            for identity, release in self._releases.items()
        }
        for runtime in self.endpoints:
            runtime.assign(assigned)

    def _assignment(self, identity: PluginId, release: Release) -> Assignment:
        held = self._crash_policy.why(release) if not release.unusable else ""
        if not held:
            self._reported.pop(identity, None)
            return Assignment(release, self._trials.of(release))
        self._trials.forget(identity)
        if self._reported.get(identity) != release.digest:
            self._reported[identity] = release.digest
            verdict = partial(self._judged, identity, release.digest, False, held)
            self._loop.call_soon(verdict)
        return Assignment(release, held=held)

    def _judged(self, identity: PluginId, digest: Digest, kept: bool, reason: str) -> None:
        level, word = (logging.INFO, "kept") if kept else (logging.ERROR, "rejected")
        log.log(level, "%s: %s: %s", identity, word, reason, extra={"plugin": identity})
        self._verdict(identity, digest, kept, reason)
        self._changed()

    def _make_slot(self, runtime: RuntimeEndpoint, identity: PluginId) -> PluginSlot:
        state = self._states.of(identity)
        return PluginSlot(
            self._loop,
            runtime,
            self._loader,
            state,
            self._creations[runtime.socket],
            self._report,
            self._changed,
        )

    def unsettled(self) -> list[str]:
        """What is still to come: "NN-name at SOCKET" for each plugin that is neither registered
        there nor reported as missing."""
        if not self._applied:
            return ["what the fleet deploys here"]
        return [
            f"{identity} at {runtime.socket}"
            for runtime in self.endpoints
            for identity, slot in sorted(runtime.slots.items())
            if not settled(slot)
        ]

    def runtimes(self) -> list[dict[str, Any]]:
        """For people and the fleet: each socket, what is there, what it said of itself."""
        return [runtime_state(each) for each in self.endpoints]

    def plugins(self) -> "list[PluginState]":
        """For people and the fleet: each plugin at each runtime that is there."""
        found: list[PluginState] = []
        there = [each for each in self.endpoints if each.state != "waiting"]
        for identity, release in sorted(self._releases.items()):
            error = self._errors.get(identity, "")
            for runtime in there or self.endpoints[:1]:
                found.append(plugin_state(runtime.slots[identity], release, error))
        for name, error in sorted(self._errors.items()):
            if name not in self._releases:
                found.append({"name": name, "status": "failed", "error": short(error)})
        return found


# Of an error in the status: the log has all of it, and the state of a hundred plugins has
# to fit one MQTT message of 64 KiB.
MAX_ERROR_CHARS = 200
MAX_NOT_CARRIED = 6  # fields of one plugin that are named, for the same reason


def runtime_state(runtime: RuntimeEndpoint) -> dict[str, Any]:
    """The socket, whether a runtime is there, and what it said of itself."""
    entry: dict[str, Any] = {"socket": str(runtime.socket), "state": runtime.state}
    if runtime.reason:
        entry["reason"] = runtime.reason
    told = runtime.description
    if told is not None:
        entry["name"], entry["version"] = told[:2]
        if told[2]:
            entry["nri_version"] = told[2]
    return entry


def plugin_state(slot: PluginSlot, release: Release, error: str) -> "PluginState":
    """The plugin at one runtime; `error`: what is wrong with it outside of the slot."""
    stats = slot.stats.counters
    entry: PluginState = {
        "name": release.name,
        "index": release.index,
        "version": release.version,
        "digest": release.digest,
        "status": _status(slot),
        "since": round(slot.stats.since, 3),
        "runtime": str(slot.socket),
        "events": stats.events,
        "failures": dict(stats.failures),
        "restarts": stats.restarts,
    }
    if not release.version:
        del entry["version"]
    if not release.digest:
        del entry["digest"]
    if release.settings.failure_policy == "Ignore":
        entry["failure_policy"] = "Ignore"
    if release.settings.monitored:
        entry["mode"] = release.settings.mode
        entry["would_adjust"], entry["would_reject"] = stats.would_adjust, stats.would_reject
        if stats.updates_withheld:
            entry["updates_withheld"] = stats.updates_withheld
    if release.settings.one_shot:
        entry["instance"] = release.settings.instance
    if slot.skipped_for:
        entry["reason"] = short(slot.skipped_for)
    if slot.refusing:
        entry["refusing"] = True
    latency = stats.latency_ms()
    if latency is not None:
        entry["latency_ms"] = latency
    if slot.plugin is not None:
        entry["memory_bytes"] = slot.plugin.memory_bytes
        running = slot.plugin.release
        if running.digest != release.digest:
            entry["running"] = running.digest
        elif not running.same_guest(release):  # the same module, still as it was configured before
            entry["running"] = running.setup
        if slot.plugin.unread:
            entry["unread"] = [short(each) for each in slot.plugin.unread]
        lost = _not_carried(slot.plugin)
        if lost:
            entry["not_carried"] = lost
    error = slot.stats.error or error or release.unusable or slot.stats.finding
    if error:
        entry["error"] = short(error)
    return entry


def settled(slot: PluginSlot) -> bool:
    """See edge_agent.host.slot_state."""
    release = slot.release
    optional = release is not None and not release.settings.must_not_be_missed
    return state_settled(slot.state, refusing=slot.refusing, optional=optional)


def _status(slot: PluginSlot) -> str:
    trial = slot.stats.trial_of(slot.plugin)
    # Until one that failed is replaced, it is not through its probation either.
    return status(slot.state, on_trial=trial is not None and not trial.kept)


def short(error: str) -> str:
    """The beginning of an error, as long as it may be in a reported state."""
    return error if len(error) <= MAX_ERROR_CHARS else f"{error[: MAX_ERROR_CHARS - 3]}..."


def _not_carried(plugin: Plugin) -> list[str]:
    """Fields that the plugin may set and its runtime drops silently (docs/runtimes.md)."""
    granted, runtime = plugin.release.settings.permissions, plugin.session.runtime
    if granted is None or runtime is None:
        return []
    return carrier_of(runtime).missing(granted)[:MAX_NOT_CARRIED]
