"""The judge is judged first: upstream's runtime side against plugins that are upstream's own.

What the agent's tests conclude from this peer rests on what is shown here: who is called in which
order, whose adjustment is whose, how a conflict, a rejection and a lost plugin look.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gobuild import PeerError, go_annotator_module, require_go
from tests.support.gopeers import NriRuntime
from tests.support.goplugin import NativePlugin

CAPTURE = Path(__file__).parents[1] / "data" / "containerd-2.1.9-create_container_request.bin"

# Numbers of NRI's enum Field.
ANNOTATIONS, ENV, MEMORY_LIMIT = 1, 6, 8


@pytest.fixture(scope="module", autouse=True)
def _go() -> None:
    require_go()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "nri.sock"


@pytest.fixture
def runtime(socket: Path) -> Iterator[NriRuntime]:
    with NriRuntime(socket) as running:
        yield running


# --- order, merging, owners -------------------------------------------------------------------


def test_plugins_are_called_in_the_order_of_their_index(runtime: NriRuntime, socket: Path) -> None:
    with (
        NativePlugin(socket, idx="90", name="late"),
        NativePlugin(socket, idx="10", name="early"),
        NativePlugin(socket, idx="50", name="middle"),
    ):
        runtime.wait_for_plugins("10-early", "50-middle", "90-late")
        for event in ("RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"):
            outcome = runtime.event(event, pod={"id": "p"})
            assert outcome.error == ""
            assert outcome.called == ["10-early", "50-middle", "90-late"]
        assert runtime.create_container().called == ["10-early", "50-middle", "90-late"]


def test_equal_index_is_called_in_the_order_of_registration(
    runtime: NriRuntime, socket: Path
) -> None:
    with (
        NativePlugin(socket, idx="10", name="b"),
        NativePlugin(socket, idx="10", name="a"),
        NativePlugin(socket, idx="10", name="c"),
    ):
        runtime.wait_for_plugins("10-b", "10-a", "10-c")
        assert runtime.create_container().called == ["10-b", "10-a", "10-c"]


def test_adjustments_are_merged_and_each_has_its_owner(runtime: NriRuntime, socket: Path) -> None:
    with (
        NativePlugin(socket, idx="10", name="a", annotations={"a": "1"}, env={"A": "1"}),
        NativePlugin(socket, idx="20", name="b", annotations={"b": "2"}, memory_limit=1 << 20),
    ):
        runtime.wait_for_plugins("10-a", "20-b")
        outcome = runtime.create_container("c1")
        assert outcome.annotations == {"a": "1", "b": "2"}
        assert outcome.env == {"A": "1"}
        assert outcome.memory_limit == 1 << 20
        assert outcome.owner("c1", ANNOTATIONS, "a") == "10-a"
        assert outcome.owner("c1", ANNOTATIONS, "b") == "20-b"
        assert outcome.owner("c1", ENV, "A") == "10-a"
        assert outcome.owner("c1", MEMORY_LIMIT) == "20-b"


def test_two_plugins_that_set_the_same_variable_conflict(runtime: NriRuntime, socket: Path) -> None:
    with (
        NativePlugin(socket, idx="10", name="a", env={"SAME": "1"}),
        NativePlugin(socket, idx="20", name="b", env={"SAME": "2"}),
    ):
        runtime.wait_for_plugins("10-a", "20-b")
        outcome = runtime.create_container("c1")
        assert outcome.error == 'plugins "20-b" and "10-a" both tried to set Env SAME'
        assert outcome.reply == {}
        assert "c1" not in runtime.state()["containers"]


def test_a_plugin_that_answers_with_an_error_fails_the_request_and_stays(
    runtime: NriRuntime, socket: Path
) -> None:
    with NativePlugin(socket, "--fail", "CreateContainer=not today", name="no"):
        runtime.wait_for_plugins("10-no")
        for _ in range(2):
            outcome = runtime.create_container()
            assert outcome.error == "rpc error: code = Unknown desc = not today"
            assert outcome.called == ["10-no"]


# --- validation -------------------------------------------------------------------------------


def test_a_validator_sees_all_plugins_and_rejects_by_owner(
    runtime: NriRuntime, socket: Path
) -> None:
    with (
        NativePlugin(socket, idx="10", name="good", env={"GOOD": "1"}),
        NativePlugin(socket, "--reject-env", "EVIL", idx="99", name="judge") as judge,
    ):
        runtime.wait_for_plugins("10-good", "99-judge")
        assert runtime.create_container().error == ""
        assert {"10-good", "99-judge"} <= set(
            judge.wait_for("ValidateContainerAdjustment")["plugins"]
        )
        with NativePlugin(socket, idx="20", name="bad", env={"EVIL": "1"}):
            runtime.wait_for_plugins("10-good", "20-bad", "99-judge")
            assert "EVIL of 20-bad is forbidden" in runtime.create_container().error


# --- the plugin's own requests ----------------------------------------------------------------


def test_an_unsolicited_update_is_recorded_and_can_be_refused(
    runtime: NriRuntime, socket: Path
) -> None:
    with NativePlugin(socket) as plugin:
        assert plugin.update("c1", 4096)["error"] == ""
        [first] = runtime.updates(refuse="no")
        [update] = first["updates"]
        assert update["containerId"] == "c1"
        assert update["linux"]["resources"]["memory"]["limit"]["value"] == "4096"
        assert "no" in plugin.update("c1", 8192)["error"]
        assert [each.get("refused", "") for each in runtime.updates()] == ["", "no"]


# --- synchronisation --------------------------------------------------------------------------


def test_a_big_state_is_split_and_arrives_whole(socket: Path) -> None:
    # 48 containers of 200 KiB are more than two messages of 4 MiB hold.
    with NriRuntime(socket, fill=(4, 48, 200 * 1024)) as runtime, NativePlugin(socket) as plugin:
        runtime.wait_for_plugins("10-native")
        assert plugin.events[-1] == {"event": "Synchronize", "pods": 4, "containers": 48}
        assert runtime.log().count("(more: true)") >= 2


def test_a_plugin_waits_for_a_creation_under_way(runtime: NriRuntime, socket: Path) -> None:
    runtime.block_sync(True)
    plugin = NativePlugin(socket)
    try:
        plugin.wait_for("Configure")
        with pytest.raises(PeerError, match="no line"):
            plugin.wait_for("Synchronize", timeout_s=0.3)
        assert runtime.plugins().order == []
        runtime.block_sync(False)
        plugin.wait_for("Synchronize")
        runtime.wait_for_plugins("10-native")
    finally:
        plugin.kill()


# --- plugins that go away ---------------------------------------------------------------------


def test_a_plugin_that_closes_between_events_is_dropped_with_the_next(
    runtime: NriRuntime, socket: Path
) -> None:
    with NativePlugin(socket) as plugin:
        runtime.wait_for_plugins("10-native")
        plugin.drop()
        runtime.wait_for_plugins()
        assert runtime.plugins().count == 1
        assert runtime.create_container().error == ""
        assert runtime.plugins().count == 0


def test_a_plugin_that_answers_too_late_is_left_out(socket: Path) -> None:
    with (
        # Also for its synchronisation, which a busy machine takes its time for.
        NriRuntime(socket, request_timeout_ms=1500) as runtime,
        NativePlugin(socket, "--hang", "CreateContainer=10s", annotations={"late": "1"}),
    ):
        runtime.wait_for_plugins("10-native")
        outcome = runtime.create_container()
        assert outcome.error == ""
        assert outcome.annotations == {}
        assert runtime.plugins().count == 0


# --- load -------------------------------------------------------------------------------------


def test_a_burst_reports_who_adjusted_each_container(runtime: NriRuntime, socket: Path) -> None:
    with NativePlugin(socket, annotations={"version": "1"}):
        runtime.wait_for_plugins("10-native")
        runtime.burst_start(prefix="b", life=["StartContainer", "StopContainer", "RemoveContainer"])
        runtime.wait_for_burst(20)
        made = runtime.burst_stop()
    assert len(made) >= 20
    assert [each.id for each in made] == [f"b{number}" for number in range(len(made))]
    assert all(each.annotations == {"version": "1"} for each in made)
    assert all(each.errors == {} for each in made)
    assert [call.operation for call in made[0].calls] == [
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
    ]
    assert runtime.state()["containers"] == {}


def test_a_request_as_a_real_runtime_sent_it_can_be_timed(
    runtime: NriRuntime, socket: Path
) -> None:
    with NativePlugin(socket, annotations={"a": "1"}, trace=False):
        runtime.wait_for_plugins("10-native")
        bench = runtime.bench(25, CAPTURE, warmup=5)
        assert len(bench.latencies_ns) == 25
        assert all(latency > 0 for latency in bench.latencies_ns)
        assert bench.errors == []
        assert bench.last.annotations == {"a": "1"}
        assert runtime.bench(1, CAPTURE.read_bytes()).last.annotations == {"a": "1"}


# --- the Go plugin in the runtime's own Wasm host ---------------------------------------------


def install(module: Path, folder: Path, name: str) -> None:
    """Upstream takes what is executable and named NN-name for a plugin."""
    folder.mkdir(exist_ok=True)
    shutil.copy(module, folder / name)
    (folder / name).chmod(0o755)


def test_the_go_plugin_runs_unmodified_in_the_runtimes_own_host(
    socket: Path, tmp_path: Path
) -> None:
    plugins, configs = tmp_path / "plugins", tmp_path / "conf.d"
    install(go_annotator_module(), plugins, "20-defaults")
    install(go_annotator_module(), plugins, "30-go-annotator")
    configs.mkdir()
    (configs / "go-annotator.conf").write_text("# test\nannotation conf=read\nenv CONF=read\n")
    with (
        NriRuntime(socket, plugin_dir=plugins, config_dir=configs) as runtime,
        NativePlugin(socket, idx="25", name="between", annotations={"between": "1"}),
    ):
        runtime.wait_for_plugins("20-defaults", "25-between", "30-go-annotator")
        outcome = runtime.create_container("c1")
        assert outcome.called == ["20-defaults", "25-between", "30-go-annotator"]
        assert outcome.annotations == {
            "edge.example/annotator": "go",
            "between": "1",
            "conf": "read",
        }
        assert outcome.env == {"EDGE_AGENT": "go", "CONF": "read"}
        assert outcome.owner("c1", ENV, "EDGE_AGENT") == "20-defaults"
        assert outcome.owner("c1", ENV, "CONF") == "30-go-annotator"
        assert runtime.log().count("info: adjusting container c1") == 2
        assert runtime.event("StartContainer", container="c1", pod={"id": "p"}).called == [
            "25-between"
        ]


def test_a_go_plugin_with_a_wrong_configuration_is_left_out(tmp_path: Path) -> None:
    plugins, configs = tmp_path / "plugins", tmp_path / "conf.d"
    install(go_annotator_module(), plugins, "20-go-annotator")
    configs.mkdir()
    (configs / "20-go-annotator.conf").write_text("label a=b\n")
    with NriRuntime(None, plugin_dir=plugins, config_dir=configs) as runtime:
        assert runtime.plugins().order == []
        assert 'line 1: "label" is neither annotation nor env' in runtime.log()


# --- the driver itself ------------------------------------------------------------------------


def test_a_wrong_operation_is_a_fault_and_not_an_answer(runtime: NriRuntime) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("dance", {}),
        ("event", {"event": "DanceContainer"}),
        ("event", {"event": "CreateContainer", "colour": "red"}),
        ("event", {"event": "StartContainer", "container": "unknown"}),
        ("event", {"event": "CreateContainer", "base64": "/////w=="}),
    ]
    for operation, fields in wrong:
        with pytest.raises(PeerError):
            runtime.ask(operation, **fields)
    assert runtime.state() == {"pods": {}, "containers": {}}


def test_stop_ends_in_order_and_a_killed_runtime_takes_its_plugins_along(socket: Path) -> None:
    with NriRuntime(socket) as runtime:
        runtime.stop()
    with NriRuntime(socket) as runtime, NativePlugin(socket) as plugin:
        runtime.wait_for_plugins("10-native")
        runtime.kill()
        plugin.wait_for("closed")
    began = time.monotonic()
    with NriRuntime(socket):
        assert time.monotonic() - began < 5
