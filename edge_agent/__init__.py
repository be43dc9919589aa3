"""edge-agent: policy and telemetry plugins for containers on small boards."""

__version__ = "0.1.0"

# The day of this version: no clock that shows an earlier one is right.
RELEASED = "2026-11-23"
