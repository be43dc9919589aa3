"""edge-agent: policy and telemetry plugins for containers on small boards."""

__version__ = "0.1.0"
