"""What `edge-agent run` loads, pinned: each module is memory on a board for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.sim.broker import Broker
from edge_agent.sim.runtime import SimRuntime
from tests.support import engines
from tests.support.served import wait_until_it_changes
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "tests" / "guests" / "bench.wasm"

# The agent's threads: loop, loader, log writer, ticker, and mqtt. A few more may be needed
# one day; one for each plugin or connection would show here.
MAX_THREADS = 8


def _named(text: str) -> set[str]:
    """Lines of a package and its modules."""
    found = set()
    for line in text.split("\n"):
        package, _, modules = line.strip().partition(": ")
        found |= {package, *(f"{package}.{module}" for module in modules.split())}
    return found - {""}


ALWAYS = _named(
    """
    edge_agent: __main__ agent control errors lazy_import logs loop notify pacing pathwatch
    edge_agent: process text wire
    edge_agent.cli: run
    edge_agent.config: pressure agent document model table units
    edge_agent.fleet_protocol: event_result
    edge_agent.host: crash_marker crash_policy creations guest handover loaded_modules loader
    edge_agent.host: per_event placeholder plugin pluginstates probation runtime_endpoint
    edge_agent.host: slot slot_sessions slot_state slot_stats supervisor withheld
    edge_agent.node: exposure plugin_sources state_publisher
    edge_agent.nri: applied capabilities difference events link permissions session
    edge_agent.pb: edge_pb2 nri_pb2 ttrpc_pb2
    edge_agent.store: digest files release
    edge_agent.wasm: abi artifacts compiler compiler_process engine engine_selection
    edge_agent.wasm: guestlog imports module modulefile spare_memory wasi
    edge_agent.wasm.engines: wasmtime wasmtime_capi wasmtime_instance
    """
)
WITH_MQTT = ALWAYS | _named(
    """
    edge_agent: strictjson
    edge_agent.fleet_protocol: envelope keys libcrypto packing reported_state requests
    edge_agent.fleet_protocol: signed_states topics
    edge_agent.mqtt: channels client connection inbound journal journal_lane journal_writer link
    edge_agent.mqtt: outbound outbox segment stream
    edge_agent.node: actions nodekey remote requests
    edge_agent.pb: event_pb2
    """
)

# Of the standard library, with what each would add; the interpreter's own start may load some.
HEAVY = {
    "_hashlib": "OpenSSL, 4 MB",
    "asyncio": "11 MB with TLS",
    "calendar": "with locale 0.3 MB; protobuf asks for it",
    "concurrent.futures": "logging of its own, queues, 1 MB",
    "csv": "importlib.metadata or somebody like it",
    "decimal": "0.5 MB",
    "email": "importlib.metadata or somebody like it",
    "google.protobuf.internal.encoder": "protobuf in Python, 1 MB",
    "encodings.idna": "0.5 MB with its tables: for a host's name in ASCII",
    "http": "a client that nothing here may be",
    "importlib.metadata": "2.5 MB",
    "inspect": "with ast, dis and tokenize 0.9 MB: for a dataclass without a docstring",
    "ipaddress": "0.3 MB; pathlib's parser of URLs asks for it",
    "multiprocessing": "1 MB",
    "shutil": "0.4 MB with bz2 and lzma: for the width of a terminal",
    "sqlite3": "2 MB",
    "ssl": "6 MB",
    "unittest": "2 MB",
    "urllib.request": "http, email and ssl",
    "xml": "nothing here is XML",
}
WITH_UPDATES = WITH_MQTT | _named(
    """
    edge_agent.fleet: blobs documents plan transfer trustfiles updater
    edge_agent.fleet.transfer: fetch parts web
    edge_agent.fleet_protocol: deployment form trust
    edge_agent.node: updates
    edge_agent.store: artifact catalogue catalogue_store layout
    """
)
if sys.version_info >= (3, 12):
    del HEAVY["inspect"]  # dataclasses uses it
HEAVY_WITH_MQTT = {"_hashlib", "ssl"}

RUN = """
import ctypes, gc, sys
from edge_agent.__main__ import main
code = main(["run", "-c", sys.argv[1]])
assert sys.getswitchinterval() < 0.001
assert gc.get_freeze_count() > 10_000
print(*sorted(name for name, each in sys.modules.items() if type(each).__name__ != "_Later"))
sys.stdout.flush()
libc = ctypes.CDLL(None)
stdout = ctypes.c_void_p.in_dll(libc, "stdout")
libc.malloc_info(0, stdout)
libc.fflush(stdout)
sys.exit(code)
"""


@pytest.fixture
def bare() -> set[str]:
    """What the interpreter loads for itself here, `.pth` files included."""
    script = "import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return set(done.stdout.decode().split())


def test_run_without_mqtt_loads_what_it_needs_and_no_more(tmp_path: Path, bare: set[str]) -> None:
    with running(tmp_path) as loaded:
        pass
    _check(loaded - bare, ALWAYS, third_party={"google"}, heavy=set(HEAVY))


@pytest.mark.parametrize("name", ["wasmer", "wasmi"])
def test_run_on_a_native_engine_loads_its_library_and_no_other(
    tmp_path: Path, bare: set[str], name: str
) -> None:
    engine = engines.make(name)
    if isinstance(engine, str):
        pytest.skip(engine)
    with running(tmp_path, engine=name) as loaded:
        pass
    ours = {each for each in ALWAYS if "wasmtime" not in each}
    ours |= _named("edge_agent.wasm.engines: native native_instance")
    _check(loaded - bare, ours, third_party={"google", "edge_agent_engines"}, heavy=set(HEAVY))


def test_run_with_mqtt_adds_the_link_and_what_paho_brings(tmp_path: Path, bare: set[str]) -> None:
    with Broker() as broker, running(tmp_path, broker) as loaded:
        pass
    _check(
        loaded - bare,
        WITH_MQTT,
        third_party={"google", "msgpack", "cython_runtime", "paho"},
        heavy=HEAVY.keys() - HEAVY_WITH_MQTT,
    )


def test_run_with_updates_adds_the_rules_but_no_signatures_before_there_is_one(
    tmp_path: Path, bare: set[str]
) -> None:
    with Broker() as broker, running(tmp_path, broker, "[updates]\n") as loaded:
        pass
    _check(
        loaded - bare,
        WITH_UPDATES,
        third_party={"google", "msgpack", "cython_runtime", "paho"},
        heavy=HEAVY.keys() - HEAVY_WITH_MQTT,
    )


def _check(loaded: set[str], ours: set[str], third_party: set[str], heavy: set[str]) -> None:
    found = {name for name in loaded if name.split(".")[0] == "edge_agent"}
    assert found == ours, "does what is new earn its memory? then it belongs into the list"
    roots = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert {root for root in roots if not root.startswith("_")} == {
        "edge_agent",
        *third_party,
    }
    too_heavy = {name: HEAVY[name] for name in loaded & heavy}
    assert not too_heavy


@contextmanager
def running(
    folder: Path, broker: Broker | None = None, more: str = "", *, engine: str = "wasmtime"
) -> Iterator[set[str]]:
    """The agent serves a container; the modules that it had loaded by its end, on leaving."""
    socket, config, log = folder / "nri.sock", folder / "agent.toml", folder / "log"
    (folder / "plugins").mkdir()
    (folder / "plugins" / "10-bench.wasm").write_bytes(BENCH.read_bytes())
    text = (
        f'node = "pinned"\nengine = "{engine}"\nplugin_dir = "plugins"\nstate_dir = "state"\n'
        f'control_socket = "{folder}/control"\n[nri]\nsockets = ["{socket}"]\n'
    )
    if broker is not None:
        text += f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
    config.write_text(text + more)
    loaded: set[str] = set()
    with SimRuntime(socket) as runtime, log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(config)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            wait_until_it_changes(runtime)
            if broker is not None:
                wait_until(lambda: b"connected to" in log.read_bytes(), "the agent connects")
            yield loaded
            status = Path(f"/proc/{process.pid}/status").read_text()
            threads = int(status.partition("Threads:")[2].split()[0])
            assert 2 <= threads <= MAX_THREADS
            process.terminate()
            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log.read_text()
    names, _, heaps = output.decode().partition("<malloc")
    loaded.update(names.split())
    assert heaps.count("<heap nr=") == 1, "another for each thread, which nothing gives back"
