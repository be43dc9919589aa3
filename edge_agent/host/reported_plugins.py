"""Plugins and runtimes as the reported state shows them (docs/mqtt.md), read from their slots."""

from typing import TYPE_CHECKING, Any

from edge_agent.host.creations import carrier_of
from edge_agent.host.plugin import Plugin
from edge_agent.host.runtime_endpoint import RuntimeEndpoint
from edge_agent.host.slot import PluginSlot
from edge_agent.host.slot_state import settled as state_settled
from edge_agent.host.slot_state import status
from edge_agent.store.release import Release

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import PluginState

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
    optional = release is not None and release.settings.failure_policy == "Ignore"
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
