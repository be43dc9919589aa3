"""What is fed to the contestants: the request and the plugins."""

from pathlib import Path

from edge_agent.pb import nri_pb2
from tests.support.gobuild import ROOT, go_annotator_module

REQUEST_BYTES = 4200  # as large as what kubelet makes of a pod with a few volumes and variables
_CAPTURED = ROOT / "tests" / "data" / "containerd-2.1.9-create_container_request.bin"
_C_PLUGIN = ROOT / "tests" / "guests" / "bench.wasm"
_EMPTY_PLUGIN = Path(__file__).with_name("empty.wat")


def request() -> bytes:
    """A real containerd's CreateContainerRequest, filled up with what kubelet would add."""
    message = nri_pb2.CreateContainerRequest.FromString(_CAPTURED.read_bytes())
    container = message.container
    number = 0
    while message.ByteSize() < REQUEST_BYTES:
        number += 1
        container.env.append(f"SERVICE_{number}_PORT_8080_TCP_ADDR=10.43.{number}.17")
        container.annotations[f"io.kubernetes.container.note-{number}"] = f"value {number}"
        if number % 3 == 0:
            container.mounts.add(
                destination=f"/var/data/volume-{number}",
                type="bind",
                source=f"/var/lib/kubelet/pods/{message.pod.uid}/volumes/volume-{number}",
                options=["rbind", "rprivate", "rw"],
            )
    raw: bytes = message.SerializeToString()
    return raw


def c_plugin() -> bytes:
    """tests/guests/bench.c: one annotation, one variable, one line of log."""
    return _C_PLUGIN.read_bytes()


def c_plugins(count: int) -> dict[str, bytes]:
    """That plugin so many times, as modules of different bytes and keys: nothing is shared."""
    made = {}
    for number in range(count):
        module = c_plugin()
        for key, another in (
            (b"edge.bench/plugin", b"edge.bench/plg%03d" % number),
            (b"EDGE_BENCH", b"EDGE_BE%03d" % number),
        ):
            if module.count(key) != 1:
                raise ValueError(f"bench.wasm should hold {key!r} once")
            module = module.replace(key, another)
        made[f"{10 + number}-bench{number}"] = module
    return made


def go_plugin() -> bytes:
    """plugins/go-annotator, which does the same."""
    return go_annotator_module().read_bytes()


def go_plugins(count: int) -> dict[str, tuple[bytes, str]]:
    """That plugin so many times, each a module of its own, with its configuration."""
    made = {}
    for number in range(count):
        name = b"number"
        section = bytes((len(name),)) + name + bytes((number,))
        module = go_plugin() + bytes((0, len(section))) + section  # a custom section
        config = f"annotation edge.bench/go{number}=go\nenv EDGE_BENCH_GO{number}=go\n"
        made[f"{10 + number}-go{number}"] = (module, config)
    return made


def empty_plugin() -> bytes:
    """A guest that does nothing and answers empty."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(_EMPTY_PLUGIN.read_text()))
