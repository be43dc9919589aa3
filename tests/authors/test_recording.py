"""Recordings: what is hidden, files that are damaged, and the agent's side of recording."""

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.__main__ import main
from edge_agent.authors import recording
from edge_agent.authors.recording import Recorded, Redaction
from edge_agent.errors import ConfigError
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.loop import Loop
from edge_agent.node import recorder
from edge_agent.node.recorder import Recorder
from edge_agent.pb import nri_pb2
from edge_agent.store.digest import NO_DIGEST
from edge_agent.store.release import PluginId
from tests.wasm.lab import GUESTS, ROOT, capture

CREATE = capture("create_container")
REPLY = nri_pb2.CreateContainerResponse()
REPLY.adjust.annotations["team"] = "a"
REPLY.adjust.annotations["secret/token"] = "s3cret"
REPLY.adjust.env.add(key="TOKEN", value="s3cret")
EVENT = Recorded(
    *("10-x", "sha256:00", "containerd", "CreateContainer", "plugin_create_container", "ok", ""),
    *(1, 2, CREATE, REPLY.SerializeToString()),
)


def written(folder: Path, *events: Recorded) -> Path:
    path = folder / "events.edgerec"
    path.write_bytes(recording.encoded({}, events))
    return path


# --- redaction


def test_values_are_hidden_in_request_and_reply_and_names_stay() -> None:
    request = nri_pb2.CreateContainerRequest.FromString(CREATE)
    request.container.env[:] = ["TOKEN=s3cret", "EMPTY", "MODE=fast=s3cret"]
    request.container.args[:] = ["/bin/tool", "--password=s3cret"]
    request.pod.annotations["secret/a"] = "s3cret"
    request.pod.labels["app"] = "bed"
    event = replace(EVENT, request=request.SerializeToString(), error="s3cret is no token")
    rules = ("env", "annotations:secret*", "args")
    found = recording.redacted(event, Redaction(rules))
    assert found is not None
    assert b"s3cret" not in found.request + found.reply + found.error.encode()
    hidden, reply = found.message(), found.answer()
    assert isinstance(hidden, nri_pb2.CreateContainerRequest)
    assert isinstance(reply, nri_pb2.CreateContainerResponse)
    assert list(hidden.container.env) == ["TOKEN=redacted", "EMPTY", "MODE=redacted"]
    assert list(hidden.container.args) == ["/bin/tool", "redacted"]
    assert dict(hidden.pod.labels)["app"] == "bed"
    assert dict(reply.adjust.annotations) == {"team": "a", "secret/token": "redacted"}
    assert reply.adjust.env[0].value == "redacted"


def test_what_nobody_knows_is_not_recorded() -> None:
    unknown = b"\xfa\x3e\x06s3cret"  # field 1007 of a newer runtime
    found = recording.redacted(replace(EVENT, request=CREATE + unknown), Redaction(["env"]))
    assert found is not None
    assert b"s3cret" not in found.request
    assert recording.redacted(replace(EVENT, request=b"\xff"), Redaction([])) is None
    assert recording.redacted(replace(EVENT, reply=b"\xff"), Redaction([])) is None


@pytest.mark.parametrize("rule", ["", "enf", "pod:*", "ENV"])
def test_a_rule_that_hides_nothing_is_an_error(rule: str) -> None:
    with pytest.raises(ConfigError, match="can be env, annotations"):
        Redaction([rule])


# --- files


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    events = [EVENT, replace(EVENT, time_ns=7, kind="error", error="no", reply=b"")]
    assert list(recording.read(written(tmp_path, *events))) == events


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b'{"format": "edge-agent recording 2"}\n', mtime=0),
        gzip.compress(b'{"format": "edge-agent recording 1"}\n[]\n', mtime=0),
        gzip.compress(
            b'{"format": "edge-agent recording 1"}\n{"event": "CreateContainer"}\n', mtime=0
        ),
        gzip.compress(b'{"format": "edge-agent recording 1"}\n' + b"[" * 100_000, mtime=0),
        gzip.compress(b"x" * (17 << 20), mtime=0),
        recording.encoded({}, [EVENT])[:-20],
        recording.encoded({}, [replace(EVENT, event="None")]),
        recording.encoded({}, [replace(EVENT, export="malloc")]),
    ],
)
def test_a_damaged_file_is_told(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.edgerec"
    path.write_bytes(data)
    assert main(["plugin", "replay", str(GUESTS / "bench.wasm"), str(path)]) == 1
    assert capsys.readouterr().err


def test_a_file_that_unpacks_without_end_is_left_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, *[EVENT] * 200)
    monkeypatch.setattr(recording, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(ConfigError, match="larger than a recording can be"):
        list(recording.read(path))


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_any_damage_is_an_error_in_words(at: int, put: bytes) -> None:
    lines = gzip.decompress(recording.encoded({}, [EVENT]))
    damaged = lines[: at % len(lines)] + put + lines[at % len(lines) + len(put) :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.edgerec"
        file.write_bytes(gzip.compress(damaged))
        try:
            for each in recording.read(file):
                each.message()
                each.answer()
        except ConfigError:
            pass


def test_what_comes_is_packed_until_the_file_is_full() -> None:
    most = 40_000
    writer = recording.Writer(most)
    added = 0
    while writer.add(replace(EVENT, time_ns=added)):
        added += 1
    data = writer.end({"agent": "9", "redacted": ["env"], "dropped": 3, "ended": "size"})
    assert most / 2 < len(data) <= most
    assert 5 < added == writer.count
    head, count = recording.looked_at("it", data)
    assert head == recording.Head("9", ("env",), 3, "size")
    assert count == added


def test_an_event_that_cannot_be_packed_smaller_still_fits_or_is_left_out() -> None:
    noise = replace(EVENT, request=os.urandom(20_000), reply=os.urandom(20_000))
    for most in range(50_000, 70_000, 500):
        writer = recording.Writer(most)
        writer.add(noise)
        assert len(writer.end({})) <= most
    assert writer.count == 1


def test_what_a_node_sends_is_looked_through_to_its_end() -> None:
    for each in (replace(EVENT, request=b"\xff"), replace(EVENT, reply=b"\xff")):
        with pytest.raises(ConfigError, match="an event CreateContainer is none"):
            recording.looked_at("it", recording.encoded({}, [EVENT, each]))
    with pytest.raises(ConfigError, match="it: damaged"):
        recording.looked_at("it", b"\x1f\x8b garbage")
    hostile = {"agent": [], "redacted": {}, "dropped": "many", "ended": 7}
    assert recording.looked_at("it", recording.encoded(hostile, [])) == (recording.Head(), 0)


# --- replay


def test_an_event_of_another_plugin_or_of_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = str(GUESTS / "bench.wasm")
    path = written(tmp_path, EVENT, replace(EVENT, plugin="20-y"))
    assert main(["plugin", "replay", bench, str(path)]) == 1
    assert "choose one with --plugin" in capsys.readouterr().err
    assert main(["plugin", "replay", bench, str(path), "--plugin", "30-z"]) == 1
    assert "nothing is compared" in capsys.readouterr().err


def test_a_plugin_that_faults_goes_on_with_a_new_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "10-hostile.wasm"
    hostile.write_bytes((GUESTS / "hostile.wasm").read_bytes())
    hostile.with_suffix(".conf").write_text("create_container:trap")
    path = written(tmp_path, EVENT, EVENT)
    assert main(["plugin", "replay", str(hostile), str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["events"] == 2
    for each in told["different"]:
        assert any(line.startswith("now: trap: plugin_create_container") for line in each["lines"])
        assert "before: + annotation team: a" in each["lines"]


def test_versions_that_do_not_start_are_not_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = ROOT / "plugins" / "event-logger" / "event-logger.wasm"
    config = tmp_path / "wrong.conf"
    config.write_text("log = loudly")
    words = ["--against", str(logger), "--config", str(config)]
    assert main(["plugin", "replay", str(logger), str(written(tmp_path, EVENT)), *words]) == 1
    assert "nothing is compared" in capsys.readouterr().err


def test_what_the_recording_hid_is_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """bench.wasm sets a variable; its value is hidden in the recorded reply."""
    reply = nri_pb2.CreateContainerResponse()
    reply.adjust.annotations["edge.bench/plugin"] = "c"
    reply.adjust.env.add(key="EDGE_BENCH", value="c")
    event = replace(EVENT, reply=reply.SerializeToString())
    hidden = recording.redacted(event, Redaction(["env"]))
    assert hidden is not None
    path = tmp_path / "events.edgerec"
    words = ["plugin", "replay", str(GUESTS / "bench.wasm"), str(path)]
    path.write_bytes(recording.encoded({"redacted": ["env"]}, [hidden]))
    assert main(words) == 0
    reply.adjust.env[0].key = "ANOTHER"  # names are compared
    hidden = recording.redacted(replace(EVENT, reply=reply.SerializeToString()), Redaction(["env"]))
    assert hidden is not None
    path.write_bytes(recording.encoded({"redacted": ["env"]}, [hidden]))
    assert main(words) == 1
    assert "now: + env EDGE_BENCH=redacted" in capsys.readouterr().out
    path.write_bytes(recording.encoded({"redacted": ["secrets"]}, [hidden]))
    assert main(words) == 1
    assert "can be env, annotations" in capsys.readouterr().err


def test_a_state_change_of_an_older_runtime_is_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = replace(
        EVENT,
        event="RunPodSandbox",
        export="plugin_state_change",
        request=capture("state_change"),
        reply=b"",
    )
    logger = ROOT / "plugins" / "event-logger" / "event-logger.wasm"
    assert main(["plugin", "replay", str(logger), str(written(tmp_path, change))]) == 0
    assert "1 events, 0 differ" in capsys.readouterr().out


# --- the agent's side


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def result(plugin: str = "10-x", event: str = "CreateContainer", size: int = 10) -> EventResult:
    return EventResult(
        *(1, PluginId(plugin), NO_DIGEST, "containerd", event, "plugin_create_container", "ok"),
        *(1000, b"q" * size, b"", "", (), "all"),
    )


Take = Callable[[], dict[str, object]]


def begun(made: Recorder, **wanted: object) -> Take:
    number = made.verb({"begin": {"count": 10, **wanted}})["recording"]
    return lambda: made.verb({"take": number})


def test_what_is_asked_for_is_recorded_until_there_are_enough(loop: Loop) -> None:
    made = Recorder(loop)
    made.answered(result())  # nobody asked yet
    take = begun(made, plugin="10-x", events=["CreateContainer"], count=2)
    for each in (result("20-y"), result(event="StopContainer"), *[result()] * 3):
        made.answered(each)
    answer = take()
    assert isinstance(answer["events"], list)
    assert [each["plugin"] for each in answer["events"]] == ["10-x"] * 2
    assert (answer["left"], answer["dropped"]) == (0, 0)


def test_what_waits_is_bounded_and_what_is_lost_is_counted(loop: Loop) -> None:
    made = Recorder(loop)
    take = begun(made, count=1000)
    made.answered(result(size=recorder.MAX_EVENT_BYTES + 1))
    most = recorder.MAX_WAITING_BYTES // recorder.MAX_EVENT_BYTES
    for _ in range(most + 5):
        made.answered(result(size=recorder.MAX_EVENT_BYTES))
    taken = 0
    while (answer := take())["events"]:
        assert isinstance(answer["events"], list)
        assert len(answer["events"]) == 1  # larger than what goes with one answer, so alone
        taken += 1
    assert (taken, answer["dropped"]) == (most, 6)
    # Room again.
    made.answered(result())
    assert len(str(take()["events"])) > 10


def test_a_recording_that_nobody_takes_from_ends(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "ABANDONED_S", 0.0)
    made = Recorder(loop)
    take = begun(made)
    loop.call_later(0.05, loop.stop)
    loop.run()
    made.answered(result())
    assert "there is no recording" in str(take()["problem"])
    assert "recording" in made.verb({"begin": {"count": 1}})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"take": 7},
        {"take": None},
        {"end": "x"},
        {"begin": 7},
        {"begin": {}},
        {"begin": {"count": 0}},
        {"begin": {"count": True}},
        {"begin": {"count": 10**9}},
        {"begin": {"count": 1, "events": "CreateContainer"}},
        {"begin": {"count": 1, "events": ["None"]}},
        {"begin": {"count": 1, "events": [["CreateContainer"]]}},
    ],
)
def test_wrong_arguments_are_a_problem_in_words(arguments: dict[str, object], loop: Loop) -> None:
    assert "problem" in Recorder(loop).verb(arguments)


def test_one_at_a_time(loop: Loop) -> None:
    made = Recorder(loop)
    begun(made)
    assert "another recording" in str(made.verb({"begin": {"count": 1}})["problem"])
    made.verb({"end": 1})
    assert "recording" in made.verb({"begin": {"count": 1}})


def test_without_an_agent_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'control_socket = "{tmp_path}/control"\n')
    words = ["record", "-c", str(config), "-o", str(tmp_path / "x.edgerec")]
    assert main(words) == 1
    assert "no agent listens" in capsys.readouterr().err
    wrongs = (["--events", "none"], ["--events", "configure"], ["--redact", "enf"])
    for wrong in (*wrongs, ["--max-size", "1KiB"], ["--max-size", "many"]):
        assert main([*words, *wrong]) == 1
        assert capsys.readouterr().err
    assert not (tmp_path / "x.edgerec").exists()
