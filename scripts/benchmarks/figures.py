"""Figures made of many measurements. Pure: numbers in, numbers out."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Of one contestant over all rounds, in microseconds; events per second back to back."""

    median_us: float
    p99_us: float
    max_us: float
    events_per_s: float
    samples: int


@dataclass(frozen=True)
class Ratio:
    """A figure relative to another one's: median over the rounds, and the extremes."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Aim:
    """A figure beside the most that it should be."""

    name: str
    figure: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.figure <= self.limit

    def __str__(self) -> str:
        share = abs(self.figure / self.limit - 1) * 100
        verdict = f"met, {share:.0f} % below" if self.met else f"MISSED by {share:.0f} %"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name}: {self.figure:.2f}{unit}, aim {self.limit:g}{unit}: {verdict}"


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def latency(rounds: Sequence[Sequence[int]]) -> Latency:
    """Of nanoseconds, round by round."""
    ordered = sorted(value for each in rounds for value in each)
    return Latency(
        median_us=statistics.median(ordered) / 1e3,
        p99_us=percentile(ordered, 99) / 1e3,
        max_us=ordered[-1] / 1e3,
        events_per_s=1e9 * len(ordered) / sum(ordered),
        samples=len(ordered),
    )


def ratio(rounds: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> Ratio:
    """Median against median within each round: what slows the machine slows both."""
    found = [
        statistics.median(each) / statistics.median(other)
        for each, other in zip(rounds, others, strict=True)
    ]
    return Ratio(statistics.median(found), min(found), max(found))


def p99_ratio(rounds: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> Ratio:
    """The same of the 99th percentiles."""
    found = [
        percentile(sorted(each), 99) / percentile(sorted(other), 99)
        for each, other in zip(rounds, others, strict=True)
    ]
    return Ratio(statistics.median(found), min(found), max(found))
