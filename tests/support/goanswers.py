"""What the runtime of tests/peers answers (tests/support/gopeers.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Call:
    """One request of the runtime to one plugin."""

    plugin: str
    operation: str
    duration_ns: int
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the plugins made of one event. ``error`` is "" unless the runtime has to refuse it."""

    error: str
    duration_ns: int
    calls: tuple[Call, ...]
    reply: dict[str, Any] = field(default_factory=dict)
    owners: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, result: Mapping[str, Any]) -> Self:
        return cls(
            error=result["error"],
            duration_ns=result["duration_ns"],
            calls=tuple(Call(**call) for call in result["calls"]),
            reply=result.get("reply", {}),
            owners=result.get("owners", {}),
        )

    @property
    def called(self) -> list[str]:
        """The names of the plugins in the order in which they were called."""
        return [call.plugin for call in self.calls]

    @property
    def plugins(self) -> list[str]:
        """The same, each name once: a placeholder may be about to leave beside its plugin."""
        return list(dict.fromkeys(self.called))

    @property
    def adjust(self) -> dict[str, Any]:
        adjust: dict[str, Any] = self.reply.get("adjust", {})
        return adjust

    @property
    def annotations(self) -> dict[str, str]:
        annotations: dict[str, str] = self.adjust.get("annotations", {})
        return annotations

    @property
    def env(self) -> dict[str, str]:
        return {variable["key"]: variable["value"] for variable in self.adjust.get("env", [])}

    @property
    def memory_limit(self) -> int | None:
        resources = self.adjust.get("linux", {}).get("resources", {})
        limit = resources.get("memory", {}).get("limit", {}).get("value")
        return None if limit is None else int(limit)

    def owner(self, container: str, number: int, key: str | None = None) -> str | None:
        """Who set a field of the container, by the field's number in NRI's enum ``Field``."""
        owners = self.owners.get("owners", {}).get(container, {})
        if key is None:
            return owners.get("simple", {}).get(str(number))  # type: ignore[no-any-return]
        compound = owners.get("compound", {}).get(str(number), {})
        return compound.get("owners", {}).get(key)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Made:
    """What became of one container of a burst; ``errors`` has the events that failed."""

    id: str
    at_ns: int
    duration_ns: int
    annotations: dict[str, str]
    env: dict[str, str]
    calls: tuple[Call, ...]
    errors: dict[str, str]

    @classmethod
    def parse(cls, result: Mapping[str, Any]) -> Self:
        calls = tuple(Call(**call) for call in result["calls"])
        return cls(**{**result, "calls": calls})


@dataclass(frozen=True)
class Bench:
    """Latencies of the runtime's whole CreateContainer request, and what the last one gave."""

    latencies_ns: list[int]
    errors: list[str]
    last: Outcome


@dataclass(frozen=True)
class Plugins:
    """``order`` as of the last registration; ``closed`` since then; ``count`` as of now."""

    order: list[str]
    closed: list[str]
    count: int

    @property
    def present(self) -> list[str]:
        present = list(self.order)
        for name in self.closed:
            if name in present:
                present.remove(name)
        return present
