"""Publishing: what is checked, how it is cut, and that an interrupted upload goes on."""

import json
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from edge_agent.errors import ModuleError, OperatorError
from edge_agent.fleet_protocol.topics import MAX_PART_BYTES, fleet_topics
from edge_agent.operator.blobs import Packed, pack, read_module, upload
from edge_agent.operator.broker import BrokerClient
from edge_agent.store.digest import sha256_hex
from tests.operator.conftest import GUARD, ROOT, Home
from tests.operator.gate import Gate
from tests.operator.test_broker import plain
from tests.support.mosquitto import Mosquitto, needs_mosquitto

TOPICS = fleet_topics("greenhouse")

UPLOAD = """
import sys
from pathlib import Path
from tests.operator.test_broker import plain
from tests.operator.test_publish import TOPICS, large
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.blobs import upload
with BrokerClient(plain(int(sys.argv[1]))) as client:
    upload(client, TOPICS, large(), lambda done, whole: print(done, whole, flush=True))
"""


def large() -> Packed:
    """A blob of 80 parts, the same in every process."""
    noise = b"".join(bytes.fromhex(sha256_hex(b"%d" % number)) for number in range(40 * 2048))
    return pack(noise, part_size=MAX_PART_BYTES // 2)


def test_parts_are_the_compressed_module_in_order() -> None:
    wasm = GUARD.read_bytes()
    packed = pack(wasm, part_size=1000)
    assert zlib.decompress(b"".join(packed.parts)) == wasm
    assert {len(part) for part in packed.parts[:-1]} == {1000}
    assert 0 < len(packed.parts[-1]) <= 1000
    assert packed.digest == f"sha256:{sha256_hex(wasm)}"
    assert pack(wasm, part_size=1000) == packed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF", "not a Wasm module"),
        (b"\0asm\x01\0\0\0", "not an NRI plugin: the export"),
        (GUARD.read_bytes()[:5000], "cut file"),
    ],
)
def test_what_nodes_could_not_host_is_not_published(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "x.wasm"
    file.write_bytes(content)
    with pytest.raises(ModuleError, match=said) as error:
        read_module(file)
    assert f"edge-agent plugin check {file}" in str(error.value)
    with pytest.raises(ModuleError, match="no such file"):
        read_module(tmp_path / "none.wasm")


@pytest.mark.system
@needs_mosquitto
def test_an_upload_that_was_killed_goes_on(mosquitto: Mosquitto) -> None:
    packed = large()
    topics = [TOPICS.blob_part(packed.digest, number) for number in range(len(packed.parts))]
    with Gate(mosquitto.port) as gate:
        gate.hold_after = packed.packed_bytes // 2  # or a busy machine kills it too late
        command = [sys.executable, "-c", UPLOAD, str(gate.port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line.split()[0]) > packed.packed_bytes // 4:
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with BrokerClient(plain(mosquitto.port)) as client:
        there = client.retained((f"{TOPICS.blobs}/{packed.digest.hex}/+",))
        assert len(packed.parts) // 4 <= len(there) < len(packed.parts)
        told: list[tuple[int, int]] = []
        done = upload(client, TOPICS, packed, lambda *bytes_: told.append(bytes_))
        kept = client.retained(topics)
    assert [kept[topic] for topic in topics] == list(packed.parts)
    assert done.there >= len(there) - 20  # what was acknowledged, but for a window
    assert (
        done.sent_bytes <= packed.packed_bytes - sum(map(len, there.values())) + 20 * MAX_PART_BYTES
    )
    assert told[0][0] > 0
    assert told[-1] == (packed.packed_bytes, packed.packed_bytes)


@pytest.mark.system
@needs_mosquitto
def test_an_upload_survives_a_broker_that_is_killed(mosquitto: Mosquitto) -> None:
    packed = large()
    topics = [TOPICS.blob_part(packed.digest, number) for number in range(len(packed.parts))]
    killed: list[int] = []

    def kill(done: int, whole: int) -> None:
        if not killed and done > whole // 3:
            killed.append(done)
            mosquitto.kill()
            mosquitto.start()

    with BrokerClient(plain(mosquitto.port)) as client:
        upload(client, TOPICS, packed, kill)
        assert killed
        assert client.connections == 2
        # It had acknowledged some that it had not written to its disk yet.
        assert client.retained(topics) == dict(zip(topics, packed.parts, strict=True))


@pytest.mark.system
@needs_mosquitto
def test_a_broker_that_takes_less_at_once_is_named(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, "max_packet_size 20000") as broker,
        BrokerClient(plain(broker.port)) as client,
        pytest.raises(OperatorError, match=r"takes 20000 bytes at once, .* max_packet_size"),
    ):
        upload(client, TOPICS, large())


@pytest.mark.system
@needs_mosquitto
def test_publishing_is_noted_in_the_folder_and_repeated_for_nothing(home: Home) -> None:
    words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0", "--json")
    first, again = (json.loads(home.fleet(*words)) for _ in range(2))
    assert (first["parts"], first["parts_there"]) == (1, 0)
    assert (again["parts_there"], again["sent"]) == (1, 0)
    text = (home.path / "releases" / "guard" / "1.0.0.toml").read_text()
    assert f'digest = "{first["digest"]}"' in text


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize(
    ("name", "version"), [("a/b", "1"), ("..", "1"), ("a", "../1"), ("a", ""), ("a" * 65, "1")]
)
def test_names_that_nodes_would_refuse_are_refused(home: Home, name: str, version: str) -> None:
    code, _, errors = home.tried("publish", str(GUARD), "--name", name, "--version", version)
    assert code == 1
    assert "cannot name" in errors
    assert not list(home.path.glob("releases/*"))


@pytest.mark.system
@needs_mosquitto
def test_an_upload_without_a_broker_says_where_it_looked(home: Home, mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    code, _, errors = home.tried("publish", str(GUARD), "--name", "a", "--version", "1")
    assert code == 1
    assert f"mqtt://127.0.0.1:{home.port}: connection refused" in errors
