"""Which events a runtime knows. A bit that it does not know makes it drop the plugin.

From NRI 0.12 the runtime says its version; before that it is inferred from the runtime's
own name and version, as upstream's stub does (containerd/nri, pkg/api/version.go). In
doubt the older generation is assumed: a plugin that misses new events still works.
"""

import re

OLD_EVENTS = (1 << 11) - 1  # NRI 0.2 - 0.9: up to RemoveContainer
NEW_EVENTS = (1 << 14) - 1  # NRI 0.10 and later: pod updates and validation

# The first version of each runtime whose NRI is 0.10 or later.
# A pre-release of it may be older than its NRI.
_NEW_SINCE = {"containerd": (2, 2), "cri-o": (1, 34)}
_VERSION = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.0)?([-~.](?:alpha|beta|rc|dev))?")


def known_events(runtime: str, version: str, nri_version: str) -> int:
    """The mask of events that may be asked of this runtime."""
    if nri_version:
        return NEW_EVENTS  # only 0.12 and later send one
    since = _NEW_SINCE.get(runtime.lower())
    found = _VERSION.match(version)
    if since is None or found is None:
        return OLD_EVENTS
    said = (int(found[1]), int(found[2]))
    return NEW_EVENTS if said > since or (said == since and not found[3]) else OLD_EVENTS


def forgives_lost_validators(nri_version: str) -> bool:
    """Whether the runtime passes over a validator whose session has closed (NRI 0.12.5);
    before, its next CreateContainer fails."""
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", nri_version)
    return found is not None and tuple(map(int, found.groups())) >= (0, 12, 5)
