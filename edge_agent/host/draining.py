"""Ending the sessions that are no longer wanted, so that no container notices (docs/adr/0005).

Closing right after an answer can lose the answer, so a session closes once the runtime
has sent it nothing for a while, or instead of its next answer. A validator must not be
missed in the middle of a creation, and before NRI 0.12.5 not even at the next one: it
closes instead of answering an event outside of creations, whenever that comes
(edge_agent.host.plugin, Role.DRAIN).
"""

import time

from edge_agent.host.plugin import CREATE, Plugin, Role
from edge_agent.loop import Loop
from edge_agent.nri.generation import forgives_lost_validators

QUIET_S = 0.5  # until the runtime has surely read the last answer of a session
CREATION_S = 15.0
"""A creation whose validation did not come within this was given up: as long as seven other
plugins take that do not answer."""
MAX_DRAINING = 8  # sessions of one plugin that wait for an event to close on


class Draining:
    """The sessions of one slot that are being drained. Their guests are closed; what waits is a
    socket each."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._plugins: list[Plugin] = []

    def __contains__(self, plugin: Plugin) -> bool:
        return plugin in self._plugins

    def __len__(self) -> int:
        return len(self._plugins)

    def drain(self, plugin: Plugin) -> None:
        """End this session so that no container notices."""
        plugin.role = Role.DRAIN
        plugin.retire()
        self._plugins.append(plugin)
        if len(self._plugins) > MAX_DRAINING:
            self._plugins[0].close("too many sessions are being drained")
        runtime = plugin.session.runtime
        if not plugin.validates or (
            runtime is not None and forgives_lost_validators(runtime.nri_version)
        ):
            self._close_when_quiet(plugin)

    def remove(self, plugin: Plugin) -> None:
        """Its session is closed."""
        self._plugins.remove(plugin)

    def close(self, reason: str) -> None:
        """Close all of them at once."""
        for plugin in list(self._plugins):
            plugin.close(reason)

    def _close_when_quiet(self, plugin: Plugin) -> None:
        def close() -> None:
            # In the middle of a creation other plugins may take their time.
            creating = plugin.last_event == CREATE and plugin.validates
            quiet_s = CREATION_S if creating else QUIET_S
            if time.monotonic() - plugin.last_event_at < quiet_s:
                self._close_when_quiet(plugin)
            else:
                plugin.close("replaced")

        self._loop.call_later(QUIET_S, close)
