"""Runs the cases of a plugin, and keeps what was accepted of them beside their file."""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from edge_agent.authors import judgement
from edge_agent.authors.cases import Case, read_cases
from edge_agent.authors.judgement import Snapshot
from edge_agent.authors.trial import Outcome, Trial
from edge_agent.authors.tryout import PluginFile, default_event, message
from edge_agent.errors import ConfigError
from edge_agent.nri import events
from edge_agent.store import files
from edge_agent.text import printable

CASES_SUFFIX = ".cases.toml"
MAX_ACCEPTED_BYTES = 16 << 20
_HEX = "hex "  # before bytes that are no text, as `judgement` writes them


@dataclass
class CaseResult:
    """How a case went. `problems`: lines for a person; empty: it passed."""

    name: str
    engine: str
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)  # of each step

    @property
    def passed(self) -> bool:
        return not self.problems


def cases_beside(plugin: Path) -> Path:
    """NAME.cases.toml of NAME.wasm."""
    return plugin.with_suffix(CASES_SUFFIX)


class Suite:
    """The cases of one file for one plugin."""

    def __init__(self, path: Path, plugin: PluginFile) -> None:
        """ConfigError: the file, or what was accepted, is missing or wrong. ModuleError: the
        plugin is none."""
        if not path.exists():
            raise ConfigError(
                f"{printable(str(path))}: no such file; it has the cases (docs/plugin-test.md), and"
                " --cases names another"
            )
        self._path = path
        self._plugin = plugin
        self._cases = read_cases(path, default_event(plugin))
        self._accepted = _read_accepted(_accepted(path))

    @property
    def names(self) -> list[str]:
        """Of the cases, in their order."""
        return [case.name for case in self._cases]

    def results(
        self, engines: Sequence[str], names: Collection[str], *, update: bool = False
    ) -> Iterator[CaseResult]:
        """Of each case of these names, on each engine.

        `update`: accept what it gives on the first engine, where nothing is expected of it.
        ModuleError, EngineError, StoreError: it could not be started, for a reason outside of it.
        """
        for case in self._cases:
            if case.name not in names:
                continue
            accepts = update and any(step.expected is None for step in case.steps)
            for engine in engines:
                result = run_case(
                    self._plugin, case, engine, None if accepts else self._accepted.get(case.name)
                )
                if accepts:
                    accepts = False
                    self._accepted[case.name] = result.snapshots
                    result = run_case(self._plugin, case, engine, result.snapshots)
                yield result

    def write_accepted(self) -> Path | None:
        """Keep what was accepted of cases that are still there; None: of none. StoreError."""
        path = _accepted(self._path)
        wanted = {c.name for c in self._cases if any(step.expected is None for step in c.steps)}
        kept = {name: steps for name, steps in self._accepted.items() if name in wanted}
        if not kept:
            files.remove(path)
            return None
        text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False)
        files.write(path, text.encode() + b"\n", mode=0o644)
        return path


def run_case(
    plugin: PluginFile, case: Case, engine: str, accepted: list[Snapshot] | None
) -> CaseResult:
    """Run all steps of a case on a fresh instance. ModuleError, EngineError, StoreError: it could
    not be started, for a reason that is none of the case's."""
    result = CaseResult(case.name, engine)
    began = time.monotonic()
    if case.config is not None:
        plugin = replace(plugin, config=case.config)
    count = any(step.expected and step.expected.fuel is not None for step in case.steps)
    state = {key: _bytes(value) for key, value in case.state.items()}
    try:
        with Trial(plugin, case.runtime, engine=engine, count_fuel=count, state=state) as trial:
            for number, outcome in enumerate(_outcomes(trial, case)):
                step = case.steps[number]
                kept = accepted[number] if accepted and number < len(accepted) else None
                found = judgement.differences(step, outcome, kept)
                result.snapshots.append(judgement.snapshot(outcome))
                if found and len(case.steps) > 1:
                    result.problems.append(f"step {number + 1}, {step.method}:")
                result.problems += found
    except ConfigError as error:
        result.problems.append(str(error))
    result.seconds = time.monotonic() - began
    return result


def _outcomes(trial: Trial, case: Case) -> Iterator[Outcome]:
    """Of each step. Configure and Synchronize come first, steps of the case or not."""
    for step in case.steps:
        if step.method != events.CONFIGURE:
            trial.check(step.method, step.request)
    steps = list(case.steps)
    synchronize = message(events.SYNCHRONIZE)
    if steps[0].method == events.SYNCHRONIZE:
        trial.begin()
    elif steps[0].method == events.CONFIGURE:
        yield trial.begin()
        del steps[0]
        if steps and steps[0].method != events.SYNCHRONIZE:
            trial.synchronize(synchronize)
    else:
        trial.begin(synchronize)
    for step in steps:
        yield trial.event(step.method, step.request)


def _read_accepted(path: Path) -> dict[str, list[Snapshot]]:
    data = files.read(path, MAX_ACCEPTED_BYTES)
    if data is None:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON ({error}); write it with --update") from error
    if not isinstance(found, dict) or not all(
        isinstance(steps, list) and all(isinstance(step, dict) for step in steps)
        for steps in found.values()
    ):
        raise ConfigError(f"{path}: has not the form that --update writes; write it again")
    return found


def as_json(result: CaseResult) -> dict[str, object]:
    """For tools."""
    return {
        "case": result.name,
        "engine": result.engine,
        "passed": result.passed,
        "seconds": round(result.seconds, 6),
        "problems": result.problems,
        "steps": result.snapshots,
    }


def as_junit(plugin: Path, results: Iterable[CaseResult]) -> bytes:
    """The results as JUnit's XML, as continuous integration reads it."""
    results = list(results)
    suite = ElementTree.Element(
        "testsuite",
        name=printable(plugin.name),
        tests=str(len(results)),
        failures=str(sum(not result.passed for result in results)),
        errors="0",
        skipped="0",
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"{printable(plugin.stem)}.{result.engine}",
            name=printable(result.name),
            time=f"{result.seconds:.3f}",
        )
        if not result.passed:
            # XML 1.0 has no control characters.
            lines = [printable(line) for line in result.problems]
            failure = ElementTree.SubElement(case, "failure", message=lines[0])
            failure.text = "\n".join(lines)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def as_lines(result: CaseResult, colours: bool) -> list[str]:
    """For a person; safe to print."""

    def painted(code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colours else text

    word = painted(32, "ok  ") if result.passed else painted(31, "FAIL")
    lines = [f"{word} {printable(result.name)} ({result.engine})"]
    for problem in result.problems:
        line = f"     {printable(problem)}"
        lines.append(painted({"-": 32, "+": 31}.get(problem[:1], 0), line))
    return lines


def _accepted(cases: Path) -> Path:
    return cases.with_name(
        f"{cases.name.removesuffix('.toml').removesuffix('.cases')}.accepted.json"
    )


def _bytes(text: str) -> bytes:
    if text.startswith(_HEX):
        try:
            return bytes.fromhex(text.removeprefix(_HEX))
        except ValueError:
            pass
    return text.encode()
