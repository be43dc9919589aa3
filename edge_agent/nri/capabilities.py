"""Which fields of a reply reach a container, by runtime and by NRI version. Pure facts.

Names are those of edge_agent.config.PERMISSIONS and edge_agent.nri.permissions, and below
`linux.resources` those of NRI's messages: `linux.resources.memory.swap`.

A field that is younger than the runtime's NRI is dropped without a word: protobuf skips what it
does not know. What upstream's generator (containerd/nri, pkg/runtime-tools/generate) does not
apply is dropped too. Looked up in containerd/nri v0.2.0 to v0.12.2, at each tag in
pkg/api/api.proto, pkg/adaptation/result.go and the generator; and in the go.mod of containerd
1.7.0 to 2.3.4, CRI-O 1.26 to 1.37-dev and moby 29.2 to 29.7.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import PERMISSIONS, PluginSettings
from edge_agent.nri.session import RuntimeInfo

CONTAINERD, CRIO, DOCKER = "containerd", "cri-o", "docker"
"""The names that the runtimes send in Configure."""

# moby, daemon/internal/nri/nri.go (applyAdjustments), 29.2 to 29.7: what is not there fails the
# creation ("unsupported container adjustments") or is dropped without a word.
_DOCKER = frozenset({"env", "mounts"})
# checkForUnsupportedAdjustments, and what CreateContainer refuses before it.
_DOCKER_FAILS = (
    *("annotations", "hooks", "rlimits", "cdi_devices", "args", "update", "evict"),
    *("linux.devices", "linux.cgroups_path", "linux.oom_score_adj", "linux.io_priority"),
    *("linux.seccomp_policy", "linux.namespaces"),
    *("linux.resources.memory", "linux.resources.cpu"),
)

OLDEST, NEWEST = 2, 12
"""NRI versions that are known here, by their second number: 0.2 to 0.12."""
TIMEOUTS_SINCE = 7  # Configure tells the runtime's time-outs (api.proto)
SAYS_VERSION_SINCE = 12  # ... and its NRI version

SINCE = {
    **dict.fromkeys(("annotations", "mounts", "env", "hooks", "update", "evict"), 2),
    **dict.fromkeys(("linux.devices", "linux.resources", "linux.cgroups_path"), 2),
    "rlimits": 4,
    **dict.fromkeys(("cdi_devices", "linux.oom_score_adj", "linux.resources.pids"), 7),
    **dict.fromkeys(("args", "linux.io_priority", "linux.seccomp_policy"), 10),
    **dict.fromkeys(("linux.namespaces", "linux.resources.devices"), 10),
    **dict.fromkeys(("linux.sysctl", "linux.net_devices", "linux.scheduler", "linux.rdt"), 11),
    "linux.memory_policy": 12,
}
"""The first NRI, by its second number, that applies a field (with all below it)."""

NEVER = tuple(
    f"linux.resources.memory.{name}"
    for name in (
        *("reservation", "swap", "kernel", "kernel_tcp", "swappiness"),
        *("disable_oom_killer", "use_hierarchy"),
    )
)
"""Known to every NRI and applied by none to a container that is created: the generator takes
the memory limit only, and sets swap to it."""

_RARE = ("linux.resources.devices",)
"""No reason for a warning about every plugin that may set resources."""

_NRI_OF: dict[str, tuple[tuple[tuple[int, int, int], int], ...]] = {
    CONTAINERD: (
        *(((1, 7, 0), 3), ((1, 7, 7), 4), ((1, 7, 14), 6), ((1, 7, 26), 8)),
        *(((2, 0, 0), 8), ((2, 2, 0), 10), ((2, 2, 1), 11), ((2, 3, 0), 12)),
    ),
    CRIO: (
        *(((1, 26, 0), 2), ((1, 26, 2), 3), ((1, 29, 0), 5), ((1, 29, 2), 6)),
        *(((1, 32, 0), 9), ((1, 34, 0), 10), ((1, 35, 0), 11), ((1, 37, 0), 12)),
    ),
    DOCKER: (((29, 2, 0), 11), ((29, 5, 0), 12)),
}
"""From which version on a runtime is built with which NRI. A distribution may build it with
another: what the runtime itself says or does counts more."""

# Versions that resolve CDI devices of an adjustment: from the first up to before the second.
_RESOLVES_CDI = {
    CONTAINERD: (((1, 7, 30), (2, 0, 0)), ((2, 1, 0), (99, 0, 0))),
    CRIO: (((1, 34, 0), (99, 0, 0)),),
}
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?([-~.]?(?:alpha|beta|rc|dev))?")

Version = tuple[int, int, int]


def carried_fields(runtime: str, version: str, nri_version: str) -> frozenset[str] | None:
    """The fields that this runtime applies, as it described itself; None: not known, or all."""
    del version, nri_version  # Docker Engine's facts hold for every version so far
    return _DOCKER if runtime.lower() == DOCKER else None


def fails_creations(runtime: str) -> bool:
    """Whether a field that the runtime does not carry may fail the creation of the container."""
    return runtime.lower() == DOCKER


@dataclass(frozen=True, slots=True)
class Carrier:
    """A runtime as far as it matters what becomes of an adjustment.

    Its NRI is `least` to `most`, both by their second number: equal where it is known.
    """

    runtime: str
    version: Version | None
    least: int
    most: int

    def __str__(self) -> str:
        """The NRI version, for people."""
        return f"0.{self.most}" if self.least == self.most else f"0.{self.least} to 0.{self.most}"

    def carries(self, field: str) -> bool | None:
        """Whether the field reaches a container; None: that is not known of this version."""
        if self.runtime == DOCKER:
            return field in _DOCKER
        since = _since(field)
        if since is None:
            return None
        if field in NEVER or self.most < since:
            return False
        if field == "cdi_devices" and not self._resolves_cdi():
            return False
        return True if self.least >= since else None

    def knows(self, field: str) -> bool:
        """Whether its NRI surely has the field, whatever the runtime makes of it."""
        since = _since(field)
        return since is not None and self.least >= since

    def fails(self, field: str) -> bool:
        """Whether the runtime fails the creation because of this field, instead of dropping it."""
        return self.runtime == DOCKER and any(
            field == each or field.startswith(f"{each}.") for each in _DOCKER_FAILS
        )

    def missing(self, granted: Iterable[str]) -> list[str]:
        """The fields that a plugin may touch and that this runtime surely does not carry,
        and others do."""
        known = (
            field
            for grant in granted
            for field in SINCE
            if field == grant or (field.startswith(f"{grant}.") and field not in _RARE)
        )
        lost = [field for field in dict.fromkeys(known) if self.carries(field) is False]
        # With a parent all that is below it is lost.
        return [field for field in lost if not any(field.startswith(f"{up}.") for up in lost)]

    def _resolves_cdi(self) -> bool:
        spans = _RESOLVES_CDI.get(self.runtime)
        if spans is None or self.version is None:
            return True
        return any(first <= self.version < end for first, end in spans)


def carrier(
    runtime: str, version: str, nri_version: str, *, tells_timeouts: bool | None = None
) -> Carrier:
    """What is known of a runtime by what it says of itself, and by what it does.

    `tells_timeouts`: whether its Configure has its time-outs; None: it was not seen.
    """
    name = runtime.lower()
    found = _VERSION.match(version)
    own = (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None
    least, most = OLDEST, NEWEST
    if said := re.match(r"v?0\.(\d{1,4})\.", nri_version):
        least = most = max(int(said[1]), SAYS_VERSION_SINCE)
    elif nri_version:  # "unknown", of a build that does not know
        least = SAYS_VERSION_SINCE
    elif own is not None and name in _NRI_OF:
        least, most = _by_version(_NRI_OF[name], own, early=bool(found and found[4]))
    if tells_timeouts is not None and not nri_version:
        most = min(most, SAYS_VERSION_SINCE - 1)  # or it would have said so
        least = min(least, most)
    if tells_timeouts is True:
        least, most = max(least, TIMEOUTS_SINCE), max(most, TIMEOUTS_SINCE)
    elif tells_timeouts is False:
        most = min(most, TIMEOUTS_SINCE - 1)
        least = min(least, most)
    return Carrier(name, own, least, most)


def _by_version(
    table: tuple[tuple[Version, int], ...], own: Version, *, early: bool
) -> tuple[int, int]:
    """(least, most) by the table; what is older than its first row has that row's or none."""
    at = bisect_right(table, (own, NEWEST)) - 1
    if at < 0:
        return OLDEST, table[0][1]
    first, nri = table[at]
    if early and own == first and at:  # a pre-release may be older than its NRI
        return table[at - 1][1], nri
    return nri, nri


def _since(field: str) -> int | None:
    """The NRI of the field, or of the nearest one above it."""
    while field not in SINCE:
        field, dot, _ = field.rpartition(".")
        if not dot:
            return None
    return SINCE[field]


MAX_NAMED = 6  # permissions in a reason, which stands in a status


def why_skipped(settings: PluginSettings, socket: Path, runtime: RuntimeInfo | None) -> str:
    """Why the plugin is not registered at this runtime; empty: it is.

    `runtime` None: what listens there has not said its name yet. The name decides in the end, so
    a plugin that may be meant for it connects, and leaves once the runtime has said its name.
    """
    if settings.runtimes is not None:
        return _not_named(settings.runtimes, socket, runtime)
    if settings.permissions is None or runtime is None:
        return ""
    carried = carried_fields(runtime.name, runtime.version, runtime.nri_version)
    if carried is None:
        return ""
    declared = [name for name in PERMISSIONS if name in settings.permissions]
    missing = [name for name in declared if name not in carried]
    # Where a field is merely dropped the rest of the plugin's work still counts.
    if not missing or (len(missing) < len(declared) and not fails_creations(runtime.name)):
        return ""
    more = f" and {len(missing) - MAX_NAMED} more" * (len(missing) > MAX_NAMED)
    return (
        f"{runtime.name} does not carry {', '.join(missing[:MAX_NAMED])}{more}, for which the "
        f'plugin has permission; runtimes = ["{runtime.name}"] registers it all the same'
    )


def _not_named(names: tuple[str, ...], socket: Path, runtime: RuntimeInfo | None) -> str:
    sockets = [name for name in names if name.startswith("/")]
    if _place(str(socket)) in map(_place, sockets):
        return ""
    meant = f"is meant for {', '.join(names)}"
    if len(sockets) == len(names):
        return f"{meant} only"
    if runtime is None or runtime.name.lower() in names:
        return ""
    return f"{meant} only, and this is {runtime.name or 'a runtime without a name'}"


def _place(path: str) -> str:
    """A form in which two names of one socket are equal: /var/run is /run."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path
