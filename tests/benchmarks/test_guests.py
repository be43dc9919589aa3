"""What the benchmark feeds is what it says."""

from pathlib import Path

import pytest

from edge_agent.pb import nri_pb2
from edge_agent.wasm import abi
from edge_agent.wasm.module import inspect
from scripts.benchmarks import guests
from scripts.benchmarks.engine import EXPORT, agents_instance


def test_request_is_of_about_4_kb_and_valid() -> None:
    raw = guests.request()
    assert 4096 < len(raw) < 4500
    assert nri_pb2.CreateContainerRequest.FromString(raw).container.name == "main"


def test_c_plugins_share_no_bytes_and_no_keys(tmp_path: Path) -> None:
    keys = set()
    for module in guests.c_plugins(3).values():
        with agents_instance(tmp_path, module) as call:
            reply = nri_pb2.CreateContainerResponse.FromString(call(guests.request()))
        keys |= set(reply.adjust.annotations) | {each.key for each in reply.adjust.env}
    assert len(keys) == 6


def test_empty_plugin_answers_empty(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="wasmtime assembles the empty plugin")
    module = guests.empty_plugin()
    assert EXPORT in abi.methods(inspect(module))
    with agents_instance(tmp_path, module) as call:
        assert call(guests.request()) == b""
