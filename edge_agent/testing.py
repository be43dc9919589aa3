"""Test plugins with pytest: in conftest.py `pytest_plugins = ["edge_agent.testing"]`.

Collects the cases of each NAME.cases.toml that has a NAME.wasm beside it, and has the fixture
`edge_plugin`, for tests that need more than a case can say::

    def test_the_limit_is_cut(edge_plugin):
        with edge_plugin("50-hello.wasm", config="max = 1GiB") as plugin:
            outcome = plugin.create_container({"container": {"labels": {"app": "web"}}})
            assert outcome.reply["adjust"]["annotations"] == {"hello.example/app": "web"}

docs/plugin-test.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from google.protobuf import json_format

from edge_agent.authors import cases, suite, tryout
from edge_agent.authors.trial import Outcome, Trial
from edge_agent.errors import EdgeAgentError
from edge_agent.nri import events
from edge_agent.wasm.engine_selection import AUTO


class PluginUnderTest:
    """One instance of a plugin, configured and synchronised; a context manager.

    `plugin.create_container(fields)` and so on for each event: the fields, in protobuf's JSON form,
    go over those of a request that containerd sent. The outcome has `kind` ("ok", "error", a
    fault's kind), `error`, `reply`, `changes`, `lines`, `reports`, `state` and `fuel`.
    """

    def __init__(self, plugin: tryout.PluginFile, runtime: tryout.Runtime, engine: str) -> None:
        self._trial = Trial(plugin, runtime, engine=engine, count_fuel=True)

    def __enter__(self) -> "PluginUnderTest":
        """AssertionError: it does not start. ModuleError, EngineError: it cannot be started."""
        begun = self._trial.begin(tryout.message(events.SYNCHRONIZE))
        assert begun.kind == "ok", f"{begun.step}: {begun.kind}: {begun.error}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._trial.__exit__(kind, error, trace)

    def event(self, name: str, fields: Mapping[str, Any] | None = None) -> Outcome:
        """Call the plugin once. ConfigError: it does not take this event. ValueError: there is no
        such event or field."""
        method = events.method_named(name)
        if method is None:
            raise ValueError(f"there is no event {name}")
        request = tryout.sample(method)
        under = json_format.MessageToDict(request, preserving_proto_field_name=True)
        over = cases.merged(under, dict(fields or {}))
        try:
            message = json_format.ParseDict(over, type(request)())
        except json_format.ParseError as error:
            raise ValueError(f"no request of {name}: {error}") from error
        return self._trial.event(method, message)

    def __getattr__(self, name: str) -> Callable[..., Outcome]:
        if events.method_named(name) is None:
            raise AttributeError(name)
        return lambda fields=None: self.event(name, fields)


@pytest.fixture
def edge_plugin() -> Callable[..., PluginUnderTest]:
    """Makes a `PluginUnderTest` of a file: `edge_plugin(path, config=..., runtime=...)`.

    `config` is text (default: the plugin's own .conf), `runtime` NAME@VERSION, `engine` a name.
    """

    def make(
        path: str | Path, *, config: str | None = None, runtime: str = "", engine: str = AUTO
    ) -> PluginUnderTest:
        plugin = tryout.read_plugin(Path(path), None, None)
        if config is not None:
            plugin = replace(plugin, config=config)
        name, _, version = runtime.partition("@")
        of = tryout.Runtime(name, version) if runtime else tryout.Runtime()
        return PluginUnderTest(plugin, of, engine)

    return make


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The cases of NAME.cases.toml, if NAME.wasm is there."""
    name = file_path.name
    if name.endswith(suite.CASES_SUFFIX) and _plugin_of(file_path).is_file():
        found: pytest.Collector = _CasesFile.from_parent(parent, path=file_path)
        return found
    return None


def _plugin_of(cases_file: Path) -> Path:
    return cases_file.with_name(cases_file.name.removesuffix(suite.CASES_SUFFIX) + ".wasm")


class _CasesFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        run = suite.Suite(self.path, tryout.read_plugin(_plugin_of(self.path), None, None))
        for name in run.names:
            yield _CaseItem.from_parent(self, name=name, run=run)


class _CaseItem(pytest.Item):
    def __init__(self, *, run: suite.Suite, **of_pytest: Any) -> None:
        super().__init__(**of_pytest)
        self._run = run

    def runtest(self) -> None:
        for result in self._run.results([AUTO], [self.name]):
            if not result.passed:
                raise _FailedError("\n".join(result.problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, _FailedError | EdgeAgentError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class _FailedError(Exception):
    """A case did not go as expected."""
