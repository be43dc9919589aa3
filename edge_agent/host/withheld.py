"""What a plugin in monitor mode would have done (docs/adr/0057). Pure.

Its reply, and the updates that it asked for by itself, are read as far as their fields' names, and
go nowhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

from edge_agent.fleet_protocol.event_result import ERROR, OK, WOULD_ADJUST, WOULD_REJECT
from edge_agent.host.creations import rejection
from edge_agent.nri import events
from edge_agent.nri.permissions import UPDATE_CONTAINERS, NotPermitted, touched


class Withheld(NamedTuple):
    """A reply that nothing follows from, in the words of a result."""

    kind: str
    text: str = ""
    adjusted: tuple[str, ...] = ()  # what it would have changed, as in `permissions`
    updates: int = 0  # requests for updates of other containers


def withheld(event: str, reply: bytes, updates: Sequence[bytes]) -> Withheld:
    """What a permitted reply and these serialized UpdateContainersRequests would have come to.

    A validator that rejects would have refused the container, whatever else it says.
    """
    try:
        fields = touched(event, reply).union(
            *(touched(UPDATE_CONTAINERS, each) for each in updates)
        )
    except NotPermitted as unreadable:  # to a runtime, too
        return Withheld(ERROR, str(unreadable), updates=len(updates))
    kind, text = (WOULD_ADJUST if fields else OK), ""
    if event == events.VALIDATE.method and (reason := rejection(reply)):
        kind, text = WOULD_REJECT, reason
    return Withheld(kind, text, tuple(sorted(fields)), len(updates))
