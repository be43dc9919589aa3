"""Counters and latencies of one plugin, for status, state and metrics."""

from collections import Counter, deque
from dataclasses import dataclass, field

SAMPLES = 256  # latencies kept, the latest; 8 bytes each
FRESH = 1 / 8  # of the samples: so many newer ones are worth sorting them again
MAX_KINDS = 32  # of failure; the agent has ten


@dataclass
class Stats:
    """Survives replacement: it belongs to the plugin's place, not to an instance."""

    events: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    _latencies_ns: deque[int] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _latency: dict[str, float] | None = None
    _latency_of: int = 0  # events

    def answered(self, duration_ns: int) -> None:
        self.events += 1
        self._latencies_ns.append(duration_ns)

    def failed(self, kind: str) -> None:
        if kind in self.failures or len(self.failures) < MAX_KINDS:
            self.failures[kind] += 1

    def latency_ms(self) -> dict[str, float] | None:
        """p50 and p99 of the latest calls, or None before the first."""
        if self.events - self._latency_of > len(self._latencies_ns) * FRESH:
            ordered = sorted(self._latencies_ns)
            last = len(ordered) - 1
            self._latency_of = self.events
            self._latency = {
                "p50": round(ordered[last // 2] / 1e6, 3),
                "p99": round(ordered[last * 99 // 100] / 1e6, 3),
            }
        return self._latency
