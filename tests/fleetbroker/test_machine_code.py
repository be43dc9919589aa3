"""Machine code from the operator's machine to a guest of a real agent's, over a real broker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, OperatorError
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.node_state import Node
from edge_agent.operator.releases import Maker
from edge_agent.sim.runtime import SimRuntime
from tests.fleetbroker.test_updates import LIMITED, PLUGIN, Closed
from tests.support.agent import guest
from tests.support.fleetbroker import FleetBroker
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = [needs_mosquitto, needs_openssl]


@contextmanager
def board(folder: Path, compiled: str) -> Iterator[Closed]:
    with (
        FleetBroker(folder, "alice") as broker,
        SimRuntime(folder / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime,
    ):
        home = folder / "f"
        home.mkdir()
        closed = Closed(home, broker, runtime, compiled=compiled)
        with closed.agent:
            yield closed


def deployed(
    closed: Closed, *, spoil: bool = False, edit: Callable[[bytes], bytes] = bytes
) -> None:
    """A plugin is deployed with its machine code, for what the node says of itself; `edit` changes
    the code before it is signed."""
    maker = Maker()
    wasm = guest("resource-guard")
    with closed.operator() as fleet:
        fleet.publish(wasm, "guard", "1.0.0")
        # Who is connected has not yet said of itself what it runs on.
        wait_until(lambda: "alice" in said_by(fleet), "the node says what it runs on")
        node = said_by(fleet)["alice"]
        (kind,) = maker.named(node.architecture, [node], False)
        made = maker.make(wasm.read_bytes(), kind)
        done = fleet.publish_code("guard", "1.0.0", made._replace(data=edit(made.data)))
        if spoil:
            topic = fleet.topics.blob_part(done.blob.digest, 0)
            part = fleet.client.retained([topic])[topic]
            fleet.client.publish(topic, part[:-1] + bytes([part[-1] ^ 1]), retain=True)
        file = closed.fleet_folder.deployment_file
        file.write_text(file.read_text() + PLUGIN)
        fleet.deploy(first=True)


def said_by(fleet: Fleet) -> dict[str, Node]:
    """The nodes whose state the broker has."""
    return {each.name: each for each in fleet.view().sorted() if each.state}


def compiled_here(closed: Closed) -> bool:
    return any((closed.agent.folder / "state").glob("artifacts/*.artifact"))


@pytest.fixture(autouse=True)
def _needs_a_compiler() -> None:
    try:
        Maker()
    except (EngineError, OperatorError) as error:
        pytest.skip(f"needs wasmer: {error}")


def test_a_node_that_accepts_runs_it_without_a_compiler_and_after_a_restart(tmp_path: Path) -> None:
    with board(tmp_path, "accept") as closed:
        deployed(closed)
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        assert closed.agent.status()["updates"]["code"] == {"20-guard": ""}
        assert not compiled_here(closed)
        closed.agent.stop()
        closed.agent.start()
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        assert not compiled_here(closed)


def test_a_node_that_refuses_compiles(tmp_path: Path) -> None:
    with board(tmp_path, "refuse") as closed:
        deployed(closed)
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        updates = closed.agent.status()["updates"]
        assert (updates["compiled"], updates["code"]) == ("refuse", {})
        assert compiled_here(closed)


def test_code_that_was_tampered_with_at_the_broker_is_compiled(tmp_path: Path) -> None:
    with board(tmp_path, "accept") as closed:
        deployed(closed, spoil=True)
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        (reason,) = closed.agent.status()["updates"]["code"].values()
        assert reason.startswith("mqtt: ")
        assert compiled_here(closed)


def test_code_that_was_damaged_on_the_disk_is_compiled(tmp_path: Path) -> None:
    with board(tmp_path, "accept") as closed:
        deployed(closed)
        closed.wait_version("1.0.0", "running")
        closed.agent.stop()
        store = closed.agent.folder / "state" / "store" / "blobs" / "sha256"
        code = [each for each in store.iterdir() if each.read_bytes()[:4] == b"\x7fELF"]
        (path,) = code
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-8])
        closed.agent.start()
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        assert compiled_here(closed)


# x86-64: tkill(gettid(), SIGABRT), and if need be for ever.
ABORTING = bytes.fromhex("b8ba000000 0f05 89c7 be06000000 b8c8000000 0f05 ebe9")


def that_ends_the_process(image: bytes) -> bytes:
    """Machine code of which each function ends the process that calls it. elf(5)."""
    code = bytearray(image)
    table, count = int.from_bytes(code[32:40], "little"), int.from_bytes(code[56:58], "little")
    for number in range(count):
        header = code[table + 56 * number :][:56]
        kind, flags = (int.from_bytes(header[at : at + 4], "little") for at in (0, 4))
        if kind == 1 and flags & 1:  # PT_LOAD, PF_X
            at, size = (int.from_bytes(header[at : at + 8], "little") for at in (8, 32))
            code[at : at + size] = bytes([0x90]) * (size - len(ABORTING)) + ABORTING
    assert code != image
    return bytes(code)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs x86-64: writes its machine code")
def test_code_that_ends_the_agent_is_held_against_the_code_and_not_the_module(
    tmp_path: Path,
) -> None:
    with board(tmp_path, "accept") as closed:
        deployed(closed, edit=that_ends_the_process)
        process = closed.agent.process
        wait_until(lambda: process.poll() is not None, "the code ends the agent")
        assert process.returncode == -signal.SIGABRT
        closed.agent.kill()  # so that it can be started again
        closed.agent.start()
        closed.wait_version("1.0.0", "running")
        assert closed.container() == LIMITED
        assert "the agent died while the fleet's machine code of this plugin ran" in (
            closed.agent.log()
        )
        assert compiled_here(closed)
        closed.agent.stop()
        closed.agent.start()
        closed.wait_version("1.0.0", "running")
        assert closed.agent.status()["updates"]["rejected"] == {}
