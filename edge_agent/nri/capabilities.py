"""Which fields of a reply reach a container, by runtime.

Names are those of edge_agent.config.PERMISSIONS and edge_agent.nri.permissions. Pure facts.
"""

CONTAINERD, CRIO, DOCKER = "containerd", "cri-o", "docker"
"""The names that the runtimes send in Configure."""

# moby, daemon/internal/nri/nri.go (applyAdjustments), 29.2 to 29.7: what is not there fails the
# creation ("unsupported container adjustments") or is dropped without a word.
_DOCKER = frozenset({"env", "mounts"})


def carried_fields(runtime: str, version: str, nri_version: str) -> frozenset[str] | None:
    """The fields that this runtime applies, as it described itself; None: not known, or all."""
    del version, nri_version  # Docker Engine's facts hold for every version so far
    return _DOCKER if runtime.lower() == DOCKER else None


def fails_creations(runtime: str) -> bool:
    """Whether a field that the runtime does not carry may fail the creation of the container."""
    return runtime.lower() == DOCKER
