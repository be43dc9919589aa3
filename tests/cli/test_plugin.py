"""`edge-agent plugin check` and `plugin run`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.__main__ import main
from edge_agent.authors.tryout import read_request, sample
from edge_agent.errors import ConfigError
from edge_agent.nri.events import BY_METHOD, EXPORTS, method_named
from edge_agent.pb import nri_pb2
from tests.support.costly import wasmtime
from tests.support.wat import MEMORY, PLUGIN, constant, module

REPOSITORY = Path(__file__).parents[2]
GUESTS = REPOSITORY / "tests" / "guests"
CAPTURE = REPOSITORY / "tests" / "data" / "containerd-2.1.9-create_container_request.bin"
CREATE = "plugin_create_container"

Said = tuple[int, str]
Tool = Callable[..., Said]


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Runs `edge-agent plugin ...`: the exit code and all that was printed."""
    wasmtime()  # or skip

    def run(*words: object) -> Said:
        code = main(["plugin", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a module as 10-test.wasm into a folder of its own."""

    def write(wasm: bytes) -> Path:
        path = tmp_path / "10-test.wasm"
        path.write_bytes(wasm)
        return path

    return write


Write = Callable[[bytes], Path]


def lines(said: str, subject: str) -> list[str]:
    """The findings about a subject: their level and text."""
    return [
        f"{words[0]} {words[2]}"
        for words in (line.split(maxsplit=2) for line in said.splitlines())
        if len(words) == 3 and words[1] == subject
    ]


def facts(said: str) -> dict[str, Any]:
    loaded = json.loads(said)
    assert isinstance(loaded, dict)
    return loaded


# --- check


def test_check_of_a_good_plugin(tool: Tool) -> None:
    code, said = tool("check", GUESTS / "bench.wasm")
    assert code == 0, said
    size = (GUESTS / "bench.wasm").stat().st_size
    assert lines(said, "module")[0].startswith(f"ok {size} bytes, sha256:")
    assert lines(said, "methods") == ["ok Configure, CreateContainer"]
    assert lines(said, "imports") == ["ok env.log: all granted"]
    assert lines(said, "events") == ["ok CreateContainer"]
    assert "answers plugin_api_version with 1" in lines(said, "start")[0]
    assert said.endswith("0 to set right, 0 to look at\n")


def test_check_as_json_has_the_facts(tool: Tool) -> None:
    code, said = tool("check", GUESTS / "edge.wasm", "--json")
    assert code == 0
    found = facts(said)
    assert found["ok"] is True
    assert {"module": "edge", "name": "state_put", "granted": True} in found["imports"]
    assert found["artifact_bytes"] > found["size"]
    assert found["memory"]["limit"] == 32 << 20
    assert found["memory"]["started"] >= found["memory"]["start"]
    assert found["events"] == ["CreateContainer"]
    assert found["generation"] == "both"


@pytest.mark.parametrize(
    ("methods", "generation"),
    [
        (["plugin_run_pod_sandbox"], "new"),
        (["plugin_post_start_container", CREATE], "new"),
        (["plugin_state_change"], "old"),
        (["plugin_state_change", "plugin_run_pod_sandbox"], "both"),
        ([CREATE, "plugin_update_container", "plugin_stop_container"], "both"),
        (["plugin_validate_container_adjustment"], "both"),
    ],
)
def test_check_tells_the_generation_by_the_exports(
    tool: Tool, plugin: Write, methods: list[str], generation: str
) -> None:
    code, said = tool("check", plugin(constant(dict.fromkeys(methods, b""))), "--json")
    assert code == 0
    assert facts(said)["generation"] == generation


def test_check_of_what_is_no_module_says_so_and_stops(tool: Tool) -> None:
    code, said = tool("check", GUESTS / "bench.c")
    assert code == 1
    assert lines(said, "module") == ["fail not a Wasm module: it does not begin with \\0asm"]
    assert len(said.strip().splitlines()) == 3


def test_check_of_a_missing_file_names_it(tool: Tool, tmp_path: Path) -> None:
    assert tool("check", tmp_path / "no.wasm") == (1, f"{tmp_path / 'no.wasm'}: no such file\n")


def test_check_lists_every_problem_at_once(tool: Tool, plugin: Write) -> None:
    imports = """
      (import "env" "log" (func (param i32) (result i64)))
      (import "env" "fly" (func))
    """
    wasm = module('(memory (export "memory") 1024) (func (export "malloc"))', imports)
    code, said = tool("check", plugin(wasm))
    assert code == 1
    assert lines(said, "abi")[0].startswith("fail not an NRI plugin: the export plugin_api_version")
    assert "env.log of type (i32) -> (i64), not (i32, i32) -> (i64)" in lines(said, "imports")[0]
    assert "env.fly" in lines(said, "imports")[0]
    assert lines(said, "memory")[0].startswith("fail begins with 64MiB")
    assert 'raise limits.memory in NN-name.toml to "64MiB" or more' in said
    assert lines(said, "compile")[0].startswith("ok ")
    assert lines(said, "start") == []
    assert said.endswith("3 to set right, 0 to look at\n")


def test_check_of_invalid_code_gives_the_engines_reason(tool: Tool, plugin: Write) -> None:
    wasm = constant({CREATE: b""}).replace(b"\x42\x01\x0b", b"\x42\x01\x00", 1)
    code, said = tool("check", plugin(wasm))
    assert code == 1
    assert "fail not valid Wasm: " in lines(said, "compile")[0]


def test_check_of_a_plugin_that_serves_nothing(tool: Tool, plugin: Write) -> None:
    code, said = tool("check", plugin(constant({})))
    assert code == 1
    assert "fail it can serve no event" in lines(said, "methods")


def test_check_warns_of_exports_that_no_runtime_calls(tool: Tool, plugin: Write) -> None:
    code, said = tool("check", plugin(constant({CREATE: b"", "plugin_create_containers": b""})))
    assert code == 0
    assert "warn plugin_create_containers: no runtime calls these" in lines(said, "methods")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ('(func (export "_initialize") unreachable)', "trap: _initialize: unreachable executed"),
        ('(func (export "_initialize") (loop (br 0)))', "timeout: _initialize: stopped after"),
    ],
)
def test_check_of_a_plugin_that_does_not_start(
    tool: Tool, plugin: Write, more: str, text: str
) -> None:
    path = plugin(constant({CREATE: b""}, more=more))
    path.with_suffix(".toml").write_text('[limits]\nstart = "100ms"\n')
    code, said = tool("check", path)
    assert code == 1
    assert lines(said, "start")[0].startswith(f"fail {text}")


def test_check_of_another_abi_version(tool: Tool) -> None:
    code, said = tool("check", GUESTS / "hostile-version.wasm")
    assert code == 1
    assert lines(said, "start") == [
        "fail abi: plugin_api_version is 2; this agent speaks 1",
    ]


def test_check_uses_the_files_beside_the_plugin(tool: Tool, plugin: Write) -> None:
    path = plugin((GUESTS / "hostile.wasm").read_bytes())
    path.with_suffix(".conf").write_text("configure:error")
    path.with_suffix(".toml").write_text('[limits]\nmemory = "8MiB"\n')
    code, said = tool("check", path)
    assert code == 1
    assert lines(said, "configure") == ["fail the plugin refuses: refused on request"]
    assert "limit 8MiB" in lines(said, "memory")[0]


def test_check_uses_the_files_that_are_named(tool: Tool, tmp_path: Path) -> None:
    config, settings = tmp_path / "a", tmp_path / "b"
    config.write_text("synchronize:trap")
    settings.write_text('[limits]\nmemory = "4MiB"\n')
    code, said = tool("check", GUESTS / "hostile.wasm", "--config", config, "--settings", settings)
    assert code == 1
    assert lines(said, "synchronize") == ["fail trap: plugin_synchronize: unreachable executed"]
    assert "limit 4MiB" in lines(said, "memory")[0]


def test_check_with_wrong_settings_names_the_line(tool: Tool, tmp_path: Path) -> None:
    settings = tmp_path / "b.toml"
    settings.write_text("[limits]\nmemry = 1\n")
    code, said = tool("check", GUESTS / "bench.wasm", "--settings", settings)
    assert code == 1
    assert said.startswith(f"{settings}:2: limits.memry: unknown key")


def test_check_tells_which_events_an_older_runtime_does_not_send(tool: Tool) -> None:
    code, said = tool("check", GUESTS / "hostile.wasm", "--runtime-version", "v2.1.9")
    assert code == 0
    (warning,) = (line for line in lines(said, "events") if line.startswith("warn"))
    assert warning == (
        "warn UpdatePodSandbox, PostUpdatePodSandbox, ValidateContainerAdjustment: "
        "asked for, not sent"
    )


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    """resource-guard, which limits the processes of the built-in request, with permissions."""
    path = tmp_path / "10-guard.wasm"
    path.write_bytes((REPOSITORY / "plugins/resource-guard/resource-guard.wasm").read_bytes())
    path.with_suffix(".conf").write_text("[default]\npids.default = 7\n")
    path.with_suffix(".toml").write_text('permissions = ["linux.resources", "update"]\n')
    return path


def test_check_tells_what_a_runtime_drops_before_anything_runs(tool: Tool, guard: Path) -> None:
    code, said = tool("check", guard, "--runtime", "containerd@1.7.24~ds1")
    assert code == 0
    asked, granted = lines(said, "runtime")
    assert asked == (
        "warn containerd 1.7.24~ds1 (NRI 0.6) drops linux.resources.pids.limit, "
        "which it asks for in the built-in request"
    )
    assert granted == (
        "warn containerd 1.7.24~ds1 (NRI 0.6) does not carry linux.resources.pids, "
        "for which it has permission"
    )
    code, said = tool("check", guard, "--runtime", "containerd@1.7.24", "--json")
    told = json.loads(said)["runtime"]
    assert (told["nri"], told["drops"]) == ("0.6", ["linux.resources.pids"])
    assert told["asked"] == told["asked_dropped"] == ["linux.resources.pids.limit"]


def test_check_finds_nothing_that_a_newer_runtime_drops(tool: Tool, guard: Path) -> None:
    _, said = tool("check", guard, "--runtime", "containerd@2.1.9")
    assert lines(said, "runtime") == ["ok containerd 2.1.9 (NRI 0.8) carries what it may touch"]


def test_check_tells_what_docker_fails(tool: Tool, guard: Path) -> None:
    guard.with_suffix(".conf").write_text("[default]\nmemory.maximum = 1Mi\n")
    _, said = tool("check", guard, "--runtime", "docker@29.7.2")
    assert lines(said, "runtime")[0] == (
        "warn docker 29.7.2 (NRI 0.12) fails a creation over linux.resources.memory.limit, "
        "linux.resources.memory.swap, which it asks for in the built-in request"
    )


@pytest.mark.parametrize("words", ["containerd", "@1", "containerd@"])
def test_check_wants_a_runtimes_name_and_version(tool: Tool, guard: Path, words: str) -> None:
    code, said = tool("check", guard, "--runtime", words)
    assert code == 1
    assert said == f"--runtime wants NAME@VERSION, not {words}\n"
    code, said = tool("check", guard, "--runtime", "a@1", "--runtime-name", "b")
    assert code == 1


def test_check_shows_what_the_plugin_asks_at_synchronisation(tool: Tool, plugin: Write) -> None:
    update = nri_pb2.ContainerUpdate(container_id="c")
    update.linux.resources.pids.limit = 7
    reply = nri_pb2.SynchronizeResponse(update=[update]).SerializeToString()
    path = plugin(constant({CREATE: b"", "plugin_synchronize": reply}))
    code, said = tool("check", path)
    assert code == 0
    assert "+ update c pids limit: 7" in lines(said, "synchronize")[0]
    path.with_suffix(".toml").write_text('permissions = ["env"]\n')
    code, said = tool("check", path)
    assert code == 1
    assert "touches update" in lines(said, "synchronize")[0]


def test_names_in_a_module_cannot_drive_the_terminal(tool: Tool, plugin: Write) -> None:
    imports = '(import "env" "\\1b[2J" (func))'
    path = plugin(constant({CREATE: b""}, imports))
    for action in ("check", "run"):
        code, said = tool(action, path)
        assert code == 1
        assert "\x1b" not in said
        assert r"env.\x1b[2J" in said


# --- run


def test_run_shows_what_the_plugin_changes(tool: Tool) -> None:
    code, said = tool("run", GUESTS / "bench.wasm")
    assert code == 0
    told = said.splitlines()
    assert told[0] == "request   CreateContainer, the built-in request"
    assert told[1].startswith("reply     2 changes, in ")
    assert told[2] == "          + annotation edge.bench/plugin: c"
    assert told[3] == "          + env EDGE_BENCH=c"
    assert told[4] == "log       info: adjusted main"


def test_run_as_json_has_changes_and_the_reply(tool: Tool) -> None:
    code, said = tool("run", GUESTS / "bench.wasm", "--json")
    assert code == 0
    found = facts(said)
    assert found["outcome"] == "ok"
    assert found["changes"][1] == {
        "field": "env",
        "mark": "+",
        "name": "EDGE_BENCH",
        "old": None,
        "new": "c",
        "container": "",
    }
    assert found["reply"]["adjust"]["annotations"] == {"edge.bench/plugin": "c"}
    assert found["log"] == [{"step": "CreateContainer", "level": "info", "text": "adjusted main"}]


def test_run_takes_a_request_serialized_and_as_json(tool: Tool, tmp_path: Path) -> None:
    request = nri_pb2.CreateContainerRequest.FromString(CAPTURE.read_bytes())
    request.container.name = "other"
    (tmp_path / "request.bin").write_bytes(request.SerializeToString())
    _, shown = tool(
        "run", GUESTS / "bench.wasm", "--request", tmp_path / "request.bin", "--show-request"
    )
    (tmp_path / "request.json").write_text(f"\n {shown}")
    for name in ("request.bin", "request.json"):
        code, said = tool("run", GUESTS / "bench.wasm", "--request", tmp_path / name)
        assert code == 0
        assert "info: adjusted other" in said


def test_run_shows_reports_state_and_updates(tool: Tool, tmp_path: Path) -> None:
    request = nri_pb2.CreateContainerRequest.FromString(CAPTURE.read_bytes())
    request.container.annotations["edge.test/update"] = "abc 1048576"
    (tmp_path / "request").write_bytes(request.SerializeToString())
    words = ("run", GUESTS / "edge.wasm", "--request", tmp_path / "request")
    code, said = tool(*words)
    assert code == 0
    assert "report    count (text/plain): 1" in said
    assert "state     6 bytes: count" in said
    assert "asks for  + update abc memory limit: 1MiB" in said
    found = facts(tool(*words, "--json")[1])
    assert found["state"] == {"count": "1"}
    assert found["reports"] == [{"kind": "count", "content_type": "text/plain", "payload": "1"}]
    assert found["updates"][0]["container"] == "abc"


def test_run_gives_an_older_plugin_the_event_as_a_state_change(tool: Tool) -> None:
    code, said = tool("run", GUESTS / "old-gen.wasm", "--event", "run_pod_sandbox")
    assert code == 0
    assert "info: event 1 pod pod-0" in said
    code, said = tool("run", GUESTS / "old-gen.wasm", "--event", "PostStartContainer", "--json")
    assert facts(said)["export"] == "plugin_state_change"
    assert facts(said)["log"][0]["text"] == "event 7 pod pod-0 container main"


def test_run_of_an_event_that_the_plugin_does_not_take(tool: Tool) -> None:
    code, said = tool("run", GUESTS / "bench.wasm", "--event", "stop_container")
    assert code == 1
    assert said == (
        f"{GUESTS / 'bench.wasm'} does not take StopContainer: it does not export "
        "plugin_stop_container; it takes CreateContainer\n"
    )


def test_run_of_an_unknown_event_lists_those_there_are(tool: Tool) -> None:
    code, said = tool("run", GUESTS / "bench.wasm", "--event", "explode")
    assert code == 1
    assert said.startswith("no such event: explode; there are run_pod_sandbox, ")


@pytest.mark.parametrize(
    ("behaviour", "outcome", "text"),
    [
        ("loop", "timeout", "stopped after 0.2 s"),
        ("trap", "trap", "unreachable executed"),
        ("recurse", "trap", "call stack exhausted"),
        ("huge-reply", "abi", "answered 2147483647 bytes"),
        ("garbage", "abi", "its reply is no CreateContainerResponse"),
        ("error", "error", "refused on request"),
    ],
)
def test_run_of_a_plugin_that_fails_says_how(
    tool: Tool, tmp_path: Path, behaviour: str, outcome: str, text: str
) -> None:
    config, settings = tmp_path / "conf", tmp_path / "toml"
    config.write_text(f"create_container:{behaviour}")
    settings.write_text('[limits]\ndeadline = "200ms"\n')
    words = ("run", GUESTS / "hostile.wasm", "--config", config, "--settings", settings)
    code, said = tool(*words, "--json")
    assert code == 1
    found = facts(said)
    assert (found["outcome"], found["step"]) == (outcome, "CreateContainer")
    assert text in found["error"]
    code, said = tool(*words)
    assert code == 1
    assert "failed    CreateContainer: " in said


def test_run_counts_fuel_when_asked_and_the_same_each_time(tool: Tool) -> None:
    words = ("run", GUESTS / "bench.wasm", "--json")
    assert facts(tool(*words)[1])["fuel"] == {}
    counted = [facts(tool(*words, "--fuel")[1])["fuel"] for _ in range(2)]
    assert counted[0] == counted[1]
    assert counted[0].keys() == {"plugin_configure", CREATE}
    assert all(used > 0 for used in counted[0].values())
    _, said = tool("run", GUESTS / "bench.wasm", "--fuel")
    assert f"{counted[0][CREATE]} in {CREATE}\n" in said


def test_run_and_check_keep_a_limit_of_fuel(tool: Tool, tmp_path: Path) -> None:
    settings, config = tmp_path / "toml", tmp_path / "conf"
    words = (GUESTS / "bench.wasm", "--settings", settings)
    settings.write_text("[limits]\nfuel = 1_000_000\n")
    code, said = tool("run", *words, "--json")
    assert code == 0
    need = max(facts(said)["fuel"].values())
    settings.write_text(f"[limits]\nfuel = {need - 1}\n")
    code, said = tool("run", *words, "--json")
    assert code == 1
    assert facts(said)["outcome"] == "fuel"
    assert f"stopped after {need - 1} instructions, its limit of fuel" in facts(said)["error"]
    config.write_text("configure:loop")
    hostile = (GUESTS / "hostile.wasm", "--config", config, "--settings", settings)
    code, said = tool("check", *hostile)
    assert code == 1
    assert "raise limits.fuel in NN-name.toml (plugin run --fuel counts)" in said


def test_run_of_a_plugin_that_refuses_its_configuration(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("configure:error-not-utf8")
    code, said = tool("run", GUESTS / "hostile.wasm", "--config", tmp_path / "conf")
    assert code == 1
    assert "failed    Configure: the plugin refuses: bad " in said
    assert "\x1b" not in said


def test_run_beyond_the_permissions_is_denied(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "toml").write_text('permissions = ["annotations"]\n')
    code, said = tool("run", GUESTS / "bench.wasm", "--settings", tmp_path / "toml")
    assert code == 1
    assert "failed    CreateContainer: not permitted: its reply to CreateContainer touches env" in (
        said
    )
    assert "+ env EDGE_BENCH=c" in said


@pytest.mark.parametrize(("reject", "code"), [(True, 1), (False, 0)])
def test_run_of_a_validator_accepts_or_rejects(
    tool: Tool, plugin: Write, reject: bool, code: int
) -> None:
    reply = nri_pb2.ValidateContainerAdjustmentResponse(reject=reject, reason="no devices")
    path = plugin(constant({"plugin_validate_container_adjustment": reply.SerializeToString()}))
    exit_code, said = tool("run", path)
    assert exit_code == code
    if reject:
        assert "failed    ValidateContainerAdjustment: rejected: no devices" in said
    else:
        assert "reply     accepted, in " in said


def test_run_notes_an_event_that_would_not_be_sent(tool: Tool, plugin: Write) -> None:
    mask = nri_pb2.ConfigureResponse(events=BY_METHOD["StopContainer"].bit).SerializeToString()
    replies = {"plugin_configure": mask, CREATE: b"", "plugin_stop_container": b""}
    code, said = tool("run", plugin(constant(replies)))
    assert code == 0
    assert "note      containerd v2.3.0 would not send it CreateContainer" in said


def test_run_synchronises_with_the_state_that_is_given(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "sync.json").write_text('{"pods": [{"id": "x"}]}')
    (tmp_path / "conf").write_text("synchronize:error")
    code, said = tool(
        "run",
        GUESTS / "hostile.wasm",
        "--sync",
        tmp_path / "sync.json",
        "--config",
        tmp_path / "conf",
    )
    assert code == 1
    assert "failed    Synchronize: the plugin refuses: refused on request" in said


def test_run_of_what_is_no_plugin_names_the_file(tool: Tool, plugin: Write) -> None:
    path = plugin(module(PLUGIN + MEMORY.replace('memory"', 'mem"')))
    code, said = tool("run", path)
    assert code == 1
    assert said == f"{path}: not an NRI plugin: the memory is not exported as 'memory'\n"


# --- requests


@pytest.mark.parametrize("method", EXPORTS)
def test_every_method_has_a_sample(method: str) -> None:
    request = sample(method)
    assert request.IsInitialized()
    if method in BY_METHOD:
        pod = request.pod  # type: ignore[attr-defined]
        assert pod.name == "pod-0"


def test_the_sample_of_a_validation_names_owners() -> None:
    request = sample("ValidateContainerAdjustment")
    assert isinstance(request, nri_pb2.ValidateContainerAdjustmentRequest)
    owners = request.owners.owners[request.container.id]
    assert owners.compound[nri_pb2.Env].owners == {"SAMPLE": "10-sample"}
    assert list(request.adjust.annotations) == ["sample.example.com/touched"]


def test_the_built_in_request_is_the_captured_one() -> None:
    assert sample("CreateContainer") == nri_pb2.CreateContainerRequest.FromString(
        CAPTURE.read_bytes()
    )


@pytest.mark.parametrize(
    "word", ["create_container", "CreateContainer", "plugin_create_container", "create-container"]
)
def test_an_event_has_many_spellings(word: str) -> None:
    assert method_named(word) == "CreateContainer"


def test_a_serialized_request_that_begins_like_json_is_not_taken_for_it(tmp_path: Path) -> None:
    request = nri_pb2.RunPodSandboxRequest(pod=nri_pb2.PodSandbox(id="x" * 121))
    data = request.SerializeToString()
    assert data.lstrip().startswith(b"{")
    (tmp_path / "request").write_bytes(data)
    assert read_request(tmp_path / "request", "RunPodSandbox") == request


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"pod": ', r"neither JSON \(Expecting value: line 1 column 9 \(char 8\)\) nor a serial"),
        (b'{"pot": {}}', r"no CreateContainerRequest in JSON: .*no field named \"pot\""),
        (b'{"pod": 7}', r"no CreateContainerRequest in JSON: "),
        (b"[]", r"neither JSON \(not an object\) nor a serialized CreateContainerRequest"),
        (b"\xff\xff\xff", r"neither JSON \(.*\) nor a serialized CreateContainerRequest"),
        (b"[" * 100_000, r"neither JSON \(numbers or brackets without end\) nor"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "request").write_bytes(data)
    with pytest.raises(ConfigError, match=text):
        read_request(tmp_path / "request", "CreateContainer")


def test_a_missing_request_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone: no such file"):
        read_request(tmp_path / "gone", "CreateContainer")


def test_the_parser_loads_neither_engine_nor_protobuf() -> None:
    code = (
        "import sys; from edge_agent.__main__ import make_parser; make_parser(['plugin']); "
        "heavy = ('google', 'ctypes', 'json', 'edge_agent.wasm'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
