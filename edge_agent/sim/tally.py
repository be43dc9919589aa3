"""What the whole story amounts to, in figures for people."""

import statistics
from collections import Counter
from dataclasses import dataclass, field

from edge_agent.sim.asking import Outcome
from edge_agent.sim.listener import Listener
from edge_agent.sim.scene import MIB, milliseconds


@dataclass
class Tally:
    """Everything that the runtime asked, and what came of it."""

    outcomes: list[Outcome] = field(default_factory=list)

    def latencies_s(self) -> list[float]:
        return [answer.latency_s for outcome in self.outcomes for answer in outcome.answers]

    def figures(self, heard: Listener) -> list[tuple[str, str]]:
        """For people: what was done and what it took."""
        kinds = Counter(record["outcome"] for record in heard.results)
        memory = heard.states[-1]["memory"] if heard.states else {}
        latencies = self.latencies_s()
        hundredths = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
        return [
            ("events answered", f"{len(latencies)} by the plugins, as the runtime saw it"),
            (
                "time for an answer",
                f"median {milliseconds(hundredths[49])}, "
                f"99 of 100 within {milliseconds(hundredths[98])}",
            ),
            (
                "results over MQTT",
                f"{len(heard.results)} in {heard.messages} messages, {len(heard.gaps())} missing",
            ),
            ("of these", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
            (
                "memory of the agent",
                f"{memory.get('pss', 0) / MIB:.0f} MiB (PSS)",
            ),
        ]
