"""The Rust SDK: what the C SDK's tests ask of readers, writers and small parsers, its typed
messages against the real protobuf library, and its native tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2
from tests.support.rust import GUEST, TARGET, cargo, require_rust, sdk_guest
from tests.support.rust import SDK as SOURCE

from . import test_sdk
from .expected import expected
from .guest import Guest, GuestError, capture
from .messages import messages
from .test_sdk import (  # noqa: F401 - run here on the other guest
    test_a_captured_request_is_read_and_written_byte_for_byte,
    test_a_damaged_request_is_read_as_by_the_library_or_refused,
    test_a_map_is_looked_up,
    test_a_message_of_the_library_is_read_and_written_byte_for_byte,
    test_amounts,
    test_an_error_of_no_text_is_no_reply,
    test_hostile_bytes_are_refused,
    test_lines_without_comments_and_blanks_keep_their_numbers,
    test_patterns_match_as_the_shells_do,
    test_pieces_of_a_line,
    test_random_bytes_are_read_as_by_the_library_or_refused,
    test_running_out_of_memory_is_an_error_and_the_guest_lives_on,
    test_the_last_of_two_fields_counts,
)

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    target = tmp_path_factory.mktemp("cargo")
    yield sdk_guest(target)
    shutil.rmtree(target, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def sdk(module: Path) -> Iterator[Guest]:
    """The guest that `test_sdk` asks, for this module."""
    with pytest.MonkeyPatch.context() as patch:
        guest = Guest(module)
        patch.setattr(test_sdk, "SDK", guest)
        yield guest


def test_a_captured_request_is_read_by_its_types(sdk: Guest) -> None:
    request = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
    assert request.container.mounts
    assert request.container.linux.resources.HasField("memory")
    assert sdk.create(request).adjust == expected(request)


@given(messages(nri_pb2.CreateContainerRequest))
def test_any_request_is_read_by_its_types(request: nri_pb2.CreateContainerRequest) -> None:
    assert test_sdk.SDK.create(request).adjust == expected(request)


@given(st.data(), st.integers(0, 3000), st.integers(0, 255))
def test_a_damaged_request_is_an_answer_or_an_error(
    data: st.DataObject, at: int, byte: int
) -> None:
    whole = bytearray(capture("create_container"))
    whole[at % len(whole)] = byte
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    reply, told = b"", ""
    try:
        reply = test_sdk.SDK.call("create_container", damaged)
    except GuestError as error:
        told = str(error)
    assert told in ("", "malformed message")
    if told:
        return
    # What the plugin did not read it could not find wrong; what it read is right. A name that is no
    # UTF-8 it hands back as it is.
    try:
        request = nri_pb2.CreateContainerRequest.FromString(damaged)
    except DecodeError:
        return
    adjust = nri_pb2.CreateContainerResponse.FromString(reply).adjust
    assert [pair.key for pair in adjust.env][:1] == ["name"]
    assert adjust.env[0].value == request.container.name


def test_text_that_is_no_text_is_malformed(sdk: Guest) -> None:
    with pytest.raises(GuestError, match="malformed message"):
        sdk.call("create_container", b"\x12\x03\x1a\x01\xff")  # container.name


def test_what_is_asked_of_the_host_comes_back(module: Path) -> None:
    guest = Guest(module)
    request = nri_pb2.PostCreateContainerRequest()
    request.pod.name, request.container.id = "web", "c1"
    data = request.SerializeToString()
    assert guest.call("post_create_container", data) == b""
    assert guest.state == {"calls": b"1"}
    (report,) = guest.reports
    assert (report.kind, report.payload, report.content_type) == ("seen", b"web", "text/plain")
    (update,) = guest.updates[0].update
    assert (update.container_id, update.linux.resources.memory.limit.value) == ("c1", 64 << 20)
    with pytest.raises(GuestError, match="call 2 of c1"):
        guest.call("post_create_container", data)
    assert guest.lines == ["call 1, before None", "call 2, before Some([49])"]
    assert guest.state == {}


def test_a_map_of_messages_with_numbers_as_keys(sdk: Guest) -> None:
    request = nri_pb2.ValidateContainerAdjustmentRequest()
    request.container.id = "c1"
    request.owners.owners["c1"].simple[nri_pb2.Args] = "10-other"
    reply = sdk.ask(
        "validate_container_adjustment", request, nri_pb2.ValidateContainerAdjustmentResponse
    )
    assert (reply.reject, reply.reason) == (True, "args: 10-other")


def test_the_parts_of_a_split_synchronisation_are_marked(sdk: Guest) -> None:
    for more in (True, False):
        request = nri_pb2.SynchronizeRequest(more=more)
        assert sdk.ask("synchronize", request, nri_pb2.SynchronizeResponse).more is more


def test_configure_subscribes_to_what_is_exported(module: Path) -> None:
    guest = Guest(module)
    bits = {2, 4, 5, 14}  # stop_pod_sandbox, create, post create, validate
    assert guest.configure() == sum(1 << bit - 1 for bit in bits)
    assert guest.api_version() == 1


def test_a_panic_is_logged_with_its_place(module: Path) -> None:
    guest = Guest(module)
    request = nri_pb2.StopPodSandboxRequest()
    request.pod.name = "web"
    with pytest.raises(Exception, match="unreachable"):
        guest.call("stop_pod_sandbox", request.SerializeToString())
    ((level, line),) = guest.logs
    assert level == nri_pb2.LogRequest.LEVEL_ERROR
    assert "src/lib.rs:" in line
    assert "no plan for web" in line


def test_memory_does_not_grow_with_the_number_of_calls(module: Path) -> None:
    guest = Guest(module)
    request = capture("create_container")
    for _ in range(10):
        guest.call("transcode_deep", request)
    before = guest.memory_size()
    for _ in range(500):
        guest.call("transcode_deep", request)
    assert guest.memory_size() == before


def test_malloc_of_too_much_and_free_of_anything_are_harmless(module: Path) -> None:
    guest = Guest(module)
    for size in (33 << 20, 1 << 30, (1 << 31) - 1, (1 << 31) - 1 << 1):
        assert guest.malloc(size) == 0
    block = guest.malloc(64)
    for pointer in (0, 8, 0x7FFFFFF0, block, block):
        guest.free(pointer)
    assert guest.call("transcode_flat", b"\x08\x01") == b"\x08\x01"


def test_native_tests_style_and_the_core_alone(tmp_path: Path) -> None:
    require_rust()
    folder, target = tmp_path / "sdk", tmp_path / "target"
    shutil.copytree(SOURCE, folder)  # a Cargo.lock in the original would become part of a template
    cargo("fmt", "--check", folder=folder, target=target)
    assert "test result: ok" in cargo("test", "--quiet", folder=folder, target=target)
    clippy = ("clippy", "--quiet", "--target", TARGET)
    for features in ((), ("--no-default-features",)):
        cargo(*clippy, *features, "--", "-D", "warnings", folder=folder, target=target)
    cargo("fmt", "--check", folder=GUEST, target=target)
