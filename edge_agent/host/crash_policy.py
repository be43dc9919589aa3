"""Crashes of the whole process by plugin, and the quarantine that follows from them.

    STATE/crashes      JSON: {"version": 1, "crashes": [{"plugin", "digest", "count", "time"}]};
                       "code": true in one is of machine code that the fleet had compiled

The first time may be bad luck: that a guest was at work is all that is known. The second time
the module is quarantined under this name, for good: until somebody lifts that (`Quarantine`), or
another module takes its place. Bad luck is forgotten after a week, or when the plugin has answered
for an hour since (docs/adr/0037). On probation the allowed
failures count, so that a new release is not given a second chance to end the agent.

Where machine code of the fleet's ran, the first time is the code's: the module is compiled here
from then on, and what it does then is its own.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_agent.errors import StoreError
from edge_agent.fleet_protocol.event_result import ANSWERED, EventResult
from edge_agent.host.crash_marker import MAX_IDENTITY_BYTES, Suspect
from edge_agent.store import files
from edge_agent.store.digest import NO_DIGEST, Digest
from edge_agent.store.release import PluginId, Release

log = logging.getLogger(__name__)

ENOUGH = 2  # the issue's: crashes of one module under one name
# Ours. By the wall clock, which may jump on a board; and by what the plugin did since, at its work
# in one process: both, since a flood of events proves as little as an hour without any.
FORGET_S = 7 * 86400.0
FORGIVE_S, FORGIVE_EVENTS = 3600.0, 1000
MAX_RECORDS = 128  # ours, the latest ones: more than there are plugins; 25 KB
MAX_FILE_BYTES = 64 << 10
_VERSION = 1


class CrashPolicy:
    """Plugins whose code ended the process, and how often. `later` runs what waits for the disk."""

    def __init__(
        self,
        path: Path,
        later: Callable[[Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._later = later
        self._clock = clock
        self._began = clock()
        self._crashes: dict[Suspect, tuple[int, float]] = {}  # count, and when it last was
        self._answers: dict[Suspect, int] = {}  # of those, in this process

    def begin(self, suspects: Iterable[Suspect], excuse: str = "") -> None:
        """Read what is known, and count the plugins whose code was running when the last process
        died, unless there is an `excuse` for them.

        Waits for the disk: before anything runs.
        """
        self._crashes = _remembered(_load(self._path), time.time())
        self._began = self._clock()
        suspects = list(suspects)
        for suspect in suspects if excuse else ():
            log.warning(
                "%s: the agent died while this plugin ran, which does not count: %s",
                suspect.identity,
                excuse,
                extra={"plugin": suspect.identity},
            )
        suspects = [] if excuse else suspects
        for suspect in suspects:
            count = self._crashes.pop(suspect, (0, 0.0))[0] + 1
            self._crashes[suspect] = count, time.time()
            times = "for the first time" if count == 1 else f"{count} times so far"
            log.error(
                "%s: the agent died while %s ran, %s",
                suspect.identity,
                "the fleet's machine code of this plugin" if suspect.by_code else "this plugin",
                times,
                extra={"plugin": suspect.identity},
            )
        self._answers = dict.fromkeys(self._crashes, 0)
        if suspects:
            self._save(dict(self._crashes))

    def answered(self, result: EventResult) -> None:
        """An event is over: so that bad luck is forgotten once the plugin itself has answered
        enough of them. What a placeholder refuses in its place says nothing of it."""
        if not self._answers or result.kind not in ANSWERED:
            return
        identity = result.plugin
        suspect = Suspect.of(identity, result.digest)
        answers = self._answers.get(suspect)
        if answers is None:
            return
        self._answers[suspect] = answers + 1
        if answers + 1 >= FORGIVE_EVENTS and self._clock() - self._began >= FORGIVE_S:
            self._forget([suspect])
            log.info("%s: its crash is forgotten", identity, extra={"plugin": identity})

    def why(self, release: Release) -> str:
        """Why this release must not run; empty: it may."""
        count = self._crashes.get(_suspect(release), (0, 0.0))[0]
        probation = release.probation
        enough = ENOUGH if probation is None else min(ENOUGH, probation.allowed_failures + 1)
        if count < enough:
            return ""
        times = "once, on probation" if count == 1 else f"{count} times"
        return (
            f"quarantined: the agent died while it ran, {times}; "
            f"edge-agent plugin unquarantine {release.identity} lets it run again"
        )

    def refuses_code(self, release: Release) -> bool:
        """Whether the fleet's machine code of this release ended the process: once is enough,
        since the module can be compiled here. On any thread."""
        return _suspect(release)._replace(by_code=True) in self._crashes

    def unquarantine(self, identity: PluginId) -> bool:
        """Forget the crashes of the plugin; False if there are none."""
        name = Suspect.of(identity, NO_DIGEST).identity
        found = [suspect for suspect in self._crashes if suspect.identity == name]
        if found:
            self._forget(found)
        return bool(found)

    def _forget(self, suspects: Iterable[Suspect]) -> None:
        for suspect in suspects:
            self._crashes.pop(suspect, None)
            self._answers.pop(suspect, None)
        crashes = dict(self._crashes)
        self._later(lambda: self._save(crashes))

    def _save(self, crashes: dict[Suspect, tuple[int, float]]) -> None:
        records = [
            {
                "plugin": suspect.identity,
                "digest": suspect.digest.hex,
                "count": count,
                "time": when,
                **({"code": True} if suspect.by_code else {}),
            }
            for suspect, (count, when) in list(crashes.items())[-MAX_RECORDS:]
        ]
        content = json.dumps({"version": _VERSION, "crashes": records}).encode()
        try:
            files.make_folder(self._path.parent)
            files.write(self._path, content)
        except StoreError as error:
            log.warning("crashes of plugins are not remembered: %s", error)


def _suspect(release: Release) -> Suspect:
    return Suspect.of(release.identity, release.digest)


def _remembered(
    crashes: dict[Suspect, tuple[int, float]], now: float
) -> dict[Suspect, tuple[int, float]]:
    """The crashes that still count at `now` (wall clock, seconds since 1970)."""
    return {
        suspect: (count, when)
        for suspect, (count, when) in crashes.items()
        if count >= ENOUGH or now - when < FORGET_S
    }


def _load(path: Path) -> dict[Suspect, tuple[int, float]]:
    """Load crash records, ignoring invalid entries."""
    try:
        content = files.read(path, MAX_FILE_BYTES)
        document = json.loads(content) if content is not None else {}
    except (StoreError, ValueError, RecursionError) as error:
        log.warning("%s: not used, so no plugin is quarantined: %s", path, error)
        return {}
    records = document.get("crashes") if isinstance(document, dict) else None
    found: dict[Suspect, tuple[int, float]] = {}
    for record in records if isinstance(records, list) else []:
        read = _record(record)
        if read is not None and len(found) < MAX_RECORDS:
            found[read[0]] = read[1:]
    return found


def _record(record: object) -> tuple[Suspect, int, float] | None:
    if not isinstance(record, dict):
        return None
    plugin, digest = record.get("plugin"), record.get("digest")
    count, when = record.get("count"), record.get("time")
    by_code = record.get("code", False)
    if not (
        isinstance(plugin, str)
        and isinstance(digest, str)
        and type(count) is int
        and isinstance(when, int | float)
        and isinstance(by_code, bool)
        and PluginId.parse(plugin)
        and len(plugin) <= MAX_IDENTITY_BYTES
        and 0 < count < 1 << 31
        and 0 <= when < 1 << 53
    ):
        return None
    try:
        return Suspect(plugin, Digest.of_hex(digest), by_code), count, float(when)
    except ValueError:
        return None


class Updates(Protocol):
    """The fleet's part (edge_agent.node.updates), where one is configured."""

    def unquarantine(self, identity: PluginId, done: Callable[[int | None], None]) -> bool:
        """Hold nothing against this plugin's modules any more; `done` gets how many that
        concerned, or None for a defect, on another thread. False: too much else waits."""


class Lifted(NamedTuple):
    """The crashes and quarantines of a plugin that were lifted."""

    crashes: bool  # the host's
    modules: int  # of the fleet's part
    problem: str = ""  # why that is nothing, or not all

    @property
    def answer(self) -> dict[str, object]:
        """For the control socket. `released` is what the command's first version looked at."""
        return {"released": not self.problem, **self._asdict()}


class Quarantine:
    """Lifts what is held against a plugin, by the host and by the fleet's part, which remembers
    modules not to run since it decides from its own disk (docs/adr/0022).

    The answer waits for both: it is the same, and true, wherever the plugin is held and whoever
    asks.
    """

    def __init__(
        self, forget: Callable[[PluginId], bool], updates: Callable[[], Updates | None]
    ) -> None:
        """`forget` forgets the host's crashes; False: there were none. `updates` may come later
        than this; None: the node takes no deployments."""
        self._forget = forget
        self._updates = updates

    def lift(self, name: str, done: Callable[[Lifted], None]) -> None:
        """Let the plugin NN-name run again, whatever is held against it. On the loop; `done` is
        called once, on any thread."""
        identity = PluginId.parse(name)
        if identity is None:
            done(_lifted(name, False, 0))
            return
        crashes = self._forget(identity)
        lifted = partial(_lifted, identity, crashes)
        updates = self._updates()
        if updates is None:
            done(lifted(0))
        elif not updates.unquarantine(identity, lambda modules: done(lifted(modules))):
            done(Lifted(crashes, 0, _partly(crashes, "it is busy; is the disk slow? Try again")))


def _lifted(name: str, crashes: bool, modules: int | None) -> Lifted:
    if modules is None:
        return Lifted(crashes, 0, _partly(crashes, "it failed; the agent's log says why"))
    if crashes or modules:
        return Lifted(crashes, modules)
    nothing = f"nothing is held against {name}: no crash, no quarantine, no rejection"
    return Lifted(crashes, modules, nothing)


def _partly(crashes: bool, why: str) -> str:
    rest = "what the fleet's part holds against it stays: "
    return ("its crashes are forgotten; " if crashes else "") + rest + why
