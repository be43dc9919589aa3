"""The steps that a plugin takes before it is asked anything."""

import re
from collections.abc import Sequence
from typing import Any

from edge_agent.pb import nri_pb2
from edge_agent.sim.asking import Generation, Plugin
from edge_agent.sim.connection import PluginGone, Reply

REGISTRATION_TIMEOUT_S = 5.0  # upstream's default


def unfit(request: nri_pb2.RegisterPluginRequest) -> str:
    """Why a plugin cannot register under such a name; empty: it can."""
    if not re.fullmatch(r"[0-9]{2}", request.plugin_idx):
        return f"invalid plugin index {request.plugin_idx!r}"
    if not re.fullmatch(r"[a-zA-Z0-9_.+-]+", request.plugin_name):
        return f"invalid plugin name {request.plugin_name!r}"
    return ""


def configure(
    plugin: Plugin, generation: Generation, runtime: str, version: str, timeout_s: float
) -> None:
    """Learn what the plugin subscribes to. PluginGone: it answers badly."""
    request = nri_pb2.ConfigureRequest(
        runtime_name=runtime,
        runtime_version=version,
        registration_timeout=int(REGISTRATION_TIMEOUT_S * 1000),
        request_timeout=int(timeout_s * 1000),
        NRI_version=generation.nri_version,
    )
    reply = _call(plugin, "Configure", request, timeout_s)
    valid = (1 << generation.last_event) - 1
    events = nri_pb2.ConfigureResponse.FromString(reply.payload).events
    if events & ~valid:
        raise PluginGone(f"invalid plugin events: {events & ~valid:#x}")
    plugin.events = events or valid


def synchronise(
    plugin: Plugin, parts: Sequence[nri_pb2.SynchronizeRequest], timeout_s: float
) -> None:
    """Tell the plugin what runs. PluginGone: it answers badly, or not to each part."""
    for part in parts:
        reply = _call(plugin, "Synchronize", part, timeout_s)
        response = nri_pb2.SynchronizeResponse.FromString(reply.payload)
        if part.more and (response.update or not response.more):
            raise PluginGone("it does not handle split synchronisation")
        plugin.synchronised = reply.payload


def _call(plugin: Plugin, method: str, request: Any, timeout_s: float) -> Reply:
    reply = plugin.connection.call(method, request.SerializeToString(), timeout_s)
    if reply.code:
        raise PluginGone(f"{method}: {reply.text or reply.code}")
    return reply
