"""`edge-agent plugin test`: cases, what is told of a failure, what was accepted, bad input."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edge_agent.__main__ import main
from edge_agent.wasm.engine_selection import engine_names
from tests.support import engines
from tests.wasm.lab import GUESTS, ROOT

pytest_plugins = ["pytester"]

PLUGINS = sorted((ROOT / "plugins").glob("*/*.cases.toml"))
EDGE = GUESTS / "edge.wasm"  # counts containers in its state, reports and logs
Said = tuple[int, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `edge-agent plugin test ...`: the exit code and all that was printed."""

    def call(*words: object) -> Said:
        code = main(["plugin", "test", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def cases(tmp_path: Path) -> Callable[[str], Path]:
    """Writes cases beside tests/guests/edge.c; the plugin's path."""
    plugin = tmp_path / "10-edge.wasm"
    plugin.write_bytes(EDGE.read_bytes())

    def write(text: str) -> Path:
        plugin.with_suffix(".cases.toml").write_text(text)
        return plugin

    return write


Write = Callable[[str], Path]
Run = Callable[..., Said]


def test_every_plugin_of_the_shelf_in_c_has_cases() -> None:
    with_cases = {path.parent.name for path in PLUGINS}
    assert with_cases == {path.parent.name for path in (ROOT / "plugins").glob("*/*.wasm")}


@pytest.mark.parametrize("cases_file", PLUGINS, ids=lambda path: path.parent.name)
def test_the_cases_of_the_shelf_pass_on_every_engine(cases_file: Path, run: Run) -> None:
    plugin = cases_file.with_name(cases_file.name.replace(".cases.toml", ".wasm"))
    code, said = run(plugin, "--engine", "all")
    assert code == 0, said
    named = said.splitlines()[-1].partition(", on ")[2].split(", ")
    assert named == [name for name in engine_names() if not isinstance(engines.make(name), str)]


COUNTING = """
[[case]]
name = "counts on from its state"
state = { count = "2" }
[[case.step]]
[case.step.expect]
reply_has.adjust.annotations = { "edge.test/count" = "3" }
reports = ["count: 3"]
state = { count = "3" }
[[case.step]]
[case.step.expect]
reply = { adjust = { annotations = { "edge.test/count" = "4" } } }
"""


def test_state_may_be_bytes_that_are_no_text(run: Run, cases: Write) -> None:
    text = COUNTING.replace(
        'state = { count = "2" }',
        'state = { count = "hex 32", other = "hex ff00", text = "hex x" }',
    )
    kept = 'state = { count = "3", other = "hex ff00", text = "hex x" }'
    code, said = run(cases(text.replace('state = { count = "3" }', kept)))
    assert code == 0, said


def test_steps_share_an_instance_and_its_state(run: Run, cases: Write) -> None:
    code, said = run(cases(COUNTING))
    assert code == 0, said
    assert said.splitlines()[-1].startswith("1 passed, 0 failed, on ")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"edge.test/count" = "3"', '"edge.test/count" = "9"', r'edge\.test/count: "9"'),
        ('"edge.test/count" = "3"', '"edge.test/none" = "3"', r"edge\.test/none"),
        ('"count: 3"', '"count: 4"', r"- report count: 4\n +\+ report count: 3"),
        ('reports = ["count: 3"]', "reports = []", r"- report \(none\)"),
        ('state = { count = "3" }', "state = {}", r'\+ +"count": "3"'),
        ('"edge.test/count" = "4"', '"edge.test/count" = "5"', r'- .*: "5"\n +\+ .*: "4"'),
        ('reports = ["count: 3"]', "fuel = 1", r"\+ \d+ instructions"),
        ('reports = ["count: 3"]', 'time = "0.001ms"', r"\+ \d+ us"),
        ('reports = ["count: 3"]', 'logs = ["error: *"]', r"- log error: \*"),
        ('reports = ["count: 3"]', 'ending = "trap"', r"- ending trap\n +\+ ending ok"),
    ],
)
def test_a_difference_fails_the_case_and_is_shown(
    before: str, after: str, told: str, run: Run, cases: Write
) -> None:
    assert before in COUNTING
    code, said = run(cases(COUNTING.replace(before, after)))
    assert (code, said.count("FAIL")) == (1, 1), said
    assert re.search(told, said), said
    assert "step " in said


def test_an_expected_zero_is_compared(run: Run, tmp_path: Path) -> None:
    # Fields that have their default value are left out of protobuf's JSON form.
    guard = ROOT / "plugins" / "resource-guard" / "resource-guard.wasm"
    text = """
[[case]]
name = "zero"
config = "[default]\\nmemory.maximum = 64Mi"
request.container.linux.resources.memory.limit.value = 4294967296
[case.expect]
reply_has.adjust.linux.resources.memory.limit.value = 0
"""
    path = tmp_path / "zero.cases.toml"
    path.write_text(text)
    code, said = run(guard, "--cases", path)
    assert code == 1, said
    assert "memory.limit.value: 0 (it is " in said


def test_what_a_plugin_gives_can_be_accepted_and_is_compared_then(run: Run, cases: Write) -> None:
    open_case = '[[case]]\nname = "as it is"\nstate = { count = "%s" }\n'
    plugin = cases(open_case % "7")
    code, said = run(plugin)
    assert code == 1
    assert "accept with --update" in said
    code, said = run(plugin, "--update", "--engine", "all")
    assert code == 0, said
    accepted = plugin.with_suffix(".accepted.json")
    (step,) = json.loads(accepted.read_text())["as it is"]
    assert (step["ending"], step["state"]) == ("ok", {"count": "8"})
    assert run(plugin)[0] == 0
    code, said = run(cases(open_case % "1"))
    assert code == 1
    assert re.search(r'- .*"8".*\n(?:.*\n)*.*\+ .*"2"', said), said
    # Nothing is kept of a case that is gone, or that says itself what it expects.
    code, said = run(cases(COUNTING), "--update")
    assert (code, accepted.exists()) == (0, False), said


HOSTILE = """
[[case]]
name = "traps when it is configured"
event = "configure"
config = "configure:trap"
expect.ending = "trap"
[[case]]
name = "traps when it is synchronised"
event = "synchronize"
config = "synchronize:trap"
expect.ending = "trap"
[[case]]
name = "traps before the event"
config = "synchronize:trap"
expect.ending = "trap"
[[case]]
name = "answers an error and lives on"
config = "create_container:error"
[[case.step]]
expect.ending = "error"
[[case.step]]
expect.ending = "error"
[[case]]
name = "comes back in time"
config = "create_container:loop"
expect = {}
"""


def test_each_way_to_fail_is_an_ending(run: Run, cases: Write) -> None:
    plugin = cases(HOSTILE)
    plugin.write_bytes((GUESTS / "hostile.wasm").read_bytes())
    plugin.with_suffix(".toml").write_text('[limits]\ndeadline = "100ms"\n')
    code, said = run(plugin)
    assert code == 1
    assert re.findall("^(ok|FAIL)", said, re.MULTILINE) == ["ok", "ok", "FAIL", "ok", "FAIL"]
    assert "it failed before CreateContainer, in Synchronize: trap" in said
    assert "- ending ok\n     + ending timeout: plugin_create_container: stopped after" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "begins with"),
        ("[[case]]\n", "name: is missing"),
        ('[[case]]\nname = "a"\n[[case]]\nname = "a"\n', "two have the name"),
        ('[[case]]\nname = "a"\nevnt = "x"\n', "did you mean event"),
        ('[[case]]\nname = "a"\nevent = "create_containr"\n', 'did you mean "create_container"'),
        ('[[case]]\nname = "a"\nrequest.pod.nam = "x"\n', 'no field named "nam"'),
        ('[[case]]\nname = "a"\nrequest = 7\n', "must be a table"),
        ('[[case]]\nname = "a"\nrequest.pod.labels = "x"\n', "no CreateContainerRequest"),
        ('[[case]]\nname = "a"\nwithout = ["pod.labls"]\n', "has no pod.labls"),
        ('[[case]]\nname = "a"\nrequest_file = "none.json"\n', "no such file"),
        ('[[case]]\nname = "a"\nconfig_file = "none.conf"\n', "cannot be read"),
        ('[[case]]\nname = "a"\nruntime = "containerd"\n', "NAME@VERSION"),
        ('[[case]]\nname = "a"\nexpect.ending = "fine"\n', "must be one of"),
        ('[[case]]\nname = "a"\nexpect.error = "x"\n', "no ending but ok"),
        ('[[case]]\nname = "a"\nexpect.reply = { adjst = 1 }\n', 'no field named "adjst"'),
        ('[[case]]\nname = "a"\nexpect.reply_has = { adjust = 1 }\n', "CreateContainerResponse"),
        ('[[case]]\nname = "a"\nexpect.fuel = -1\n', "must be between"),
        ('[[case]]\nname = "a"\nstep = []\n', "list of 1 to 100"),
        ('[[case]]\nname = "a"\nevent = "x"\n[[case.step]]\n', "one of the steps"),
        (
            '[[case]]\nname = "a"\n[[case.step]]\n[[case.step]]\nevent = "configure"\n',
            "configure comes first",
        ),
        ('[[case]]\nname = "a"\nevent = "configure"\nrequest = {}\n', "is not for configure"),
        ("[[case]\n", "not valid TOML"),
        ("x = " + "[" * 100_000, "far too long or deep"),
    ],
)
def test_wrong_cases_are_told_with_their_place_and_nothing_runs(
    text: str, told: str, run: Run, cases: Write
) -> None:
    plugin = cases(text)
    code, said = run(plugin)
    assert code == 1
    assert told in said
    assert "10-edge.cases.toml" in said
    assert "passed" not in said


@pytest.mark.parametrize("text", ["no json", "[]", '{"a": 1}', '{"a": [1]}', "[" * 100_000])
def test_a_damaged_file_of_accepted_answers_is_told(text: str, run: Run, cases: Write) -> None:
    plugin = cases('[[case]]\nname = "a"\n')
    plugin.with_suffix(".accepted.json").write_text(text)
    code, said = run(plugin)
    assert code == 1
    assert "--update" in said


def test_without_cases_or_with_no_such_name_it_says_so(run: Run, cases: Write) -> None:
    plugin = cases(COUNTING)
    code, said = run(plugin, "--only", "nothing of it")
    assert (code, "no case has nothing of it in its name" in said) == (1, True)
    plugin.with_suffix(".cases.toml").unlink()
    code, said = run(plugin)
    assert (code, "docs/plugin-test.md" in said) == (1, True)


def test_results_are_written_for_tools(run: Run, cases: Write, tmp_path: Path) -> None:
    path = cases(COUNTING + '[[case]]\nname = "fails <&"\nexpect.reply = {}\n')
    code, said = run(path, "--json", "--junit", tmp_path / "out.xml")
    assert code == 1
    first, second = json.loads(said)
    assert (first["passed"], second["passed"]) == (True, False)
    assert second["problems"]
    suite = ElementTree.fromstring((tmp_path / "out.xml").read_bytes())
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    passed, failed = suite
    assert passed.get("name") == "counts on from its state"
    assert len(passed) == 0
    assert "edge.test/count" in (failed[0].text or "")


def test_what_a_plugin_says_cannot_write_to_the_terminal(run: Run, cases: Write) -> None:
    text = '[[case]]\nname = "x"\nrequest.container.name = "\\u001b]0;title\\u0007"\n'
    plugin = cases(text + 'config = "log = info"\nexpect.logs = ["nothing"]\n')
    plugin.write_bytes((ROOT / "plugins" / "event-logger" / "event-logger.wasm").read_bytes())
    code, said = run(plugin)
    assert code == 1
    assert "title" in said
    assert "\x1b" not in said


def test_a_module_is_compiled_once(
    run: Run, cases: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plugin = cases(COUNTING)
    kept = tmp_path / "cache" / "edge-agent" / "plugins" / "artifacts"
    assert run(plugin)[0] == 0
    (artifact,) = kept.glob("*.artifact")
    inode = artifact.stat().st_ino
    assert run(plugin)[0] == 0
    assert artifact.stat().st_ino == inode
    # What others could write is not run, nor written to.
    kept.parent.chmod(0o770)
    artifact.unlink()
    assert run(plugin)[0] == 0
    assert not list(kept.glob("*.artifact"))


def test_the_newest_artifacts_are_kept(
    run: Run, cases: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "edge-agent" / "plugins" / "artifacts"
    kept.mkdir(mode=0o700, parents=True)
    kept.parent.chmod(0o700)
    for number in range(30):
        (kept / f"{number:02}.artifact").touch()
        (kept / f"{number:02}.mac").touch()
    assert run(cases(COUNTING))[0] == 0
    assert len(list(kept.glob("*.artifact"))) == 20


def test_with_pytest_a_case_that_fails_is_told(pytester: pytest.Pytester) -> None:
    (pytester.path / "10-edge.wasm").write_bytes(EDGE.read_bytes())
    wrong = COUNTING.replace('"edge.test/count" = "4"', '"edge.test/count" = "5"')
    (pytester.path / "10-edge.cases.toml").write_text(wrong)
    (pytester.path / "other.cases.toml").write_text("of no plugin")
    pytester.makeconftest('pytest_plugins = ["edge_agent.testing"]')
    pytester.makepyfile(
        """
        import pytest

        def test_errors(edge_plugin):
            with edge_plugin("10-edge.wasm", engine="wasmi", runtime="containerd@1.7.24") as plugin:
                with pytest.raises(AttributeError):
                    plugin.create_containr()
                with pytest.raises(ValueError, match="no field named"):
                    plugin.create_container({"pod": {"nam": "x"}})
                assert plugin.create_container().state == {"count": b"1"}
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*step 2, CreateContainer:", '*"edge.test/count": "5"*'])


def test_time_and_pressure_are_events_of_cases(tmp_path: Path, run: Run) -> None:
    plugin = tmp_path / "10-pressure.wasm"
    plugin.write_bytes((GUESTS / "pressure.wasm").read_bytes())
    plugin.with_suffix(".cases.toml").write_text(
        """
        [[case]]
        name = "the timer"
        event = "timer"
        request = { interval_ms = "1000", board = { memory = { some_10 = 42 } } }
        expect.reports = ["timer: 1000 42"]
        expect.reply = {}

        [[case]]
        name = "pressure, then its end"
        [[case.step]]
        event = "pressure"
        expect.reports = ["pressure: memory 2500 above 2000; "]
        [[case.step]]
        event = "on_pressure"
        without = ["exceeded"]
        expect.reports = ["pressure: over"]

        [[case]]
        name = "its error"
        event = "pressure"
        config = "error"
        expect.ending = "error"
        """
    )
    code, said = run(plugin, "--engine", "all")
    assert (code, said.count("FAIL")) == (0, 0), said
    plugin.write_bytes(EDGE.read_bytes())
    code, said = run(plugin)
    assert code == 1
    assert "does not export edge_on_timer" in said
