import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, ModuleError, StoreError
from edge_agent.store.digest import Digest
from edge_agent.store.files import TEMPORARY_PREFIX
from edge_agent.wasm.artifacts import Artifacts, artifact_key, cpu_features, sidecar
from edge_agent.wasm.engine import Engine
from edge_agent.wasm.engine_selection import engine_names, select_engine
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
from edge_agent.wasm.modulefile import ModuleFile, identify, inspect_file
from tests.support.costly import costly_module, wasmtime
from tests.support.smalldisk import small_disk

GUESTS = Path(__file__).parents[1] / "guests"
STACK_BYTES = 512 << 10


def source(path: Path, *, metered: bool = False) -> ModuleFile:
    digest, _ = identify(path)
    return ModuleFile(path, digest, inspect_file(path, digest), STACK_BYTES, metered)


class Node:
    """A node's state folder with one compiled module in it."""

    def __init__(self, state: Path, engine: Engine, guest: str = "bench") -> None:
        self.state = state
        self.engine = engine
        self.source = source(GUESTS / f"{guest}.wasm")
        self.artifacts = Artifacts(state)
        self.load()

    def load(self) -> None:
        """Load the module and give it back. StoreError and the like as they come."""
        self.artifacts.module(self.engine, self.source).close()

    @property
    def key(self) -> str:
        return self.artifacts.key(self.engine, self.source.digest, self.source.metered)

    @property
    def artifact(self) -> Path:
        return self.state / "artifacts" / f"{self.key}.artifact"

    @property
    def mac(self) -> Path:
        return self.state / "artifacts" / f"{self.key}.mac"

    @property
    def secret(self) -> Path:
        return self.state / "artifacts.secret"

    def builds(self, spoil: Callable[[], object]) -> bool:
        """Whether loading after `spoil` compiles again; loading then works in any case."""
        spoil()
        before = _identity(self.artifact)
        self.load()
        built = _identity(self.artifact) != before
        again = _identity(self.artifact)
        self.load()
        assert _identity(self.artifact) == again, "a fresh artifact is not trusted"
        return built


def _identity(path: Path) -> object:
    """Differs for a file that was put in the place of another."""
    return (path.stat().st_ino, path.stat().st_ctime_ns) if path.exists() else None


@pytest.fixture(scope="module", params=engine_names())
def engine(request: pytest.FixtureRequest) -> Engine:
    try:
        return select_engine(request.param)[0]
    except EngineError as error:
        pytest.skip(f"needs {request.param}: {error}")


@pytest.fixture(scope="module")
def compiled(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a node that compiled its module."""
    return Node(tmp_path_factory.mktemp("compiled") / "state", engine).state


@pytest.fixture
def node(tmp_path: Path, engine: Engine, compiled: Path) -> Node:
    return Node(shutil.copytree(compiled, tmp_path / "state"), engine)


def test_a_good_artifact_is_not_compiled_again(node: Node) -> None:
    assert not node.builds(lambda: None)


def test_the_kept_files_are_for_their_owner_only(node: Node) -> None:
    for path in (node.mac, node.secret):
        assert path.stat().st_mode & 0o7777 == 0o600, path
    # It is mapped: nobody writes into it by accident.
    assert node.artifact.stat().st_mode & 0o7777 == 0o400
    assert node.artifact.parent.stat().st_mode & 0o7777 == 0o700


@pytest.mark.not_emulated("plain Python, and each time a process that compiles")
@pytest.mark.parametrize("eighth", range(9))
def test_a_flipped_bit_anywhere_in_the_artifact_is_found(node: Node, eighth: int) -> None:
    def flip() -> None:
        data = bytearray(node.artifact.read_bytes())
        data[(len(data) - 1) * eighth // 8] ^= 0x10
        node.artifact.write_bytes(data)

    assert node.builds(flip)


@pytest.mark.parametrize("part", range(3))
def test_a_flipped_bit_anywhere_in_the_sidecar_is_found(node: Node, part: int) -> None:
    def flip() -> None:
        data = bytearray(node.mac.read_bytes())
        data[(len(data) - 1) * part // 2] ^= 0x01
        node.mac.write_bytes(data)

    assert node.builds(flip)


SPOILERS: dict[str, Callable[[Node], object]] = {
    "artifact missing": lambda node: node.artifact.unlink(),
    "artifact empty": lambda node: node.artifact.write_bytes(b""),
    "artifact cut": lambda node: os.truncate(node.artifact, node.artifact.stat().st_size - 1),
    "artifact longer": lambda node: node.artifact.write_bytes(node.artifact.read_bytes() + b"\0"),
    "artifact is a link": lambda node: _make_link(node.artifact),
    "artifact is a named pipe": lambda node: _make_pipe(node.artifact),
    "sidecar missing": lambda node: node.mac.unlink(),
    "sidecar empty": lambda node: node.mac.write_bytes(b""),
    "sidecar huge": lambda node: node.mac.write_bytes(bytes(1 << 20)),
    "secret missing": lambda node: node.secret.unlink(),
    "secret too short": lambda node: node.secret.write_bytes(node.secret.read_bytes()[:31]),
    "secret too long": lambda node: node.secret.write_bytes(node.secret.read_bytes() + b"x"),
    "secret readable by others": lambda node: node.secret.chmod(0o644),
    "secret is a link": lambda node: _make_link(node.secret),
    "secret of another node": lambda node: node.secret.write_bytes(bytes(32)),
}


def _make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _make_link(path: Path) -> None:
    moved = path.rename(path.parent.parent / f"moved-{path.name}")
    path.symlink_to(moved)


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS.keys())
def test_what_is_not_this_nodes_own_work_is_compiled_again(
    node: Node, spoil: Callable[[Node], object], caplog: pytest.LogCaptureFixture
) -> None:
    assert node.builds(lambda: spoil(node))
    secret = node.secret.lstat()
    assert secret.st_mode & 0o777 == 0o600
    assert secret.st_size == 32
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.system
def test_a_secret_that_another_user_owns_is_replaced(node: Node) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: gives a file to another user")
    assert node.builds(lambda: os.chown(node.secret, 65534, -1))
    assert node.secret.stat().st_uid == 0


def test_another_nodes_artifacts_are_compiled_again(node: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", node.engine)
    assert other.builds(
        lambda: [shutil.copy(path, other.artifact.parent) for path in (node.artifact, node.mac)]
    )


def test_an_artifact_under_another_modules_name_is_compiled_again(
    node: Node, tmp_path: Path
) -> None:
    other = Node(tmp_path / "state", node.engine, guest="edge")

    def swap() -> None:
        shutil.copy(other.artifact, node.artifact)
        shutil.copy(other.mac, node.mac)

    assert node.builds(swap)


def test_an_artifact_that_the_engine_refuses_is_compiled_again(node: Node) -> None:
    def forge() -> None:
        node.artifact.write_bytes(b"not what an engine takes")
        write_sidecar(node)

    assert node.builds(forge)


# What an engine itself must find, when an artifact came here with its sidecar and secret: a
# state folder that was copied to another board, or kept over an update of the engine.
MACHINE = os.uname().machine.encode()
MOVED: dict[str, dict[str, tuple[bytes, bytes]]] = {
    "wasmtime": {
        "foreign architecture": (MACHINE + b"-", b"mips64el"[: len(MACHINE)] + b"-"),
        "older engine": (b"\x0250", b"\x0249"),  # of its version the first part is there
    },
    "wasmi": {"older agent": (b"edge-agent wasmi 1", b"edge-agent wasmi 0")},
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, each in MOVED.items() for what in each]
)
def test_what_was_made_elsewhere_is_compiled_again(tmp_path: Path, name: str, what: str) -> None:
    try:
        node = Node(tmp_path / "state", select_engine(name)[0])
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    before, after = MOVED[name][what]

    def move() -> None:
        data = node.artifact.read_bytes()
        assert len(before) == len(after)
        assert before in data
        node.artifact.write_bytes(data.replace(before, after, 1))
        write_sidecar(node)

    assert node.builds(move)


def write_sidecar(node: Node) -> None:
    """Make the sidecar of what lies there, as only this node can."""
    fd = os.open(node.artifact, os.O_RDONLY)
    node.mac.write_bytes(sidecar(node.secret.read_bytes(), node.key, fd))
    os.close(fd)


def test_key_depends_on_each_of_its_parts() -> None:
    class Newer(WasmtimeEngine):
        version = "99"

    class Renamed(WasmtimeEngine):
        name = "other"

    class Tuned(WasmtimeEngine):
        def settings(self) -> str:
            return "other"

    wasmtime()  # or skip
    keys = {
        artifact_key(Digest.of(b"digest"), WasmtimeEngine(), "cpu"),
        artifact_key(Digest.of(b"other"), WasmtimeEngine(), "cpu"),
        artifact_key(Digest.of(b"digest"), WasmtimeEngine(), "other"),
        artifact_key(Digest.of(b"digest"), Newer(), "cpu"),
        artifact_key(Digest.of(b"digest"), Renamed(), "cpu"),
        artifact_key(Digest.of(b"digest"), Tuned(), "cpu"),
        artifact_key(Digest.of(b"digest"), WasmtimeEngine(), "cpu", metered=True),
    }
    assert len(keys) == 7
    assert all(len(key) == 64 for key in keys)


def test_what_counts_its_fuel_is_kept_beside_what_does_not(node: Node) -> None:
    node.source = replace(node.source, metered=True)
    assert node.builds(lambda: None)
    node.source = replace(node.source, metered=False)
    assert not node.builds(lambda: None)


def test_cpu_features_name_the_machine_and_stay_the_same() -> None:
    assert cpu_features().startswith(os.uname().machine)
    assert cpu_features() == cpu_features()


def test_collect_keeps_what_is_in_use_and_removes_the_rest(node: Node) -> None:
    other = Node(node.state, node.engine, guest="edge")
    leftover = node.artifact.parent / f"{TEMPORARY_PREFIX}1234-x"
    leftover.write_bytes(b"half")
    freed = node.artifact.stat().st_size + node.mac.stat().st_size
    assert other.artifacts.collect([other.key]) == freed
    assert not leftover.exists()
    assert not node.artifact.exists()
    assert not node.mac.exists()
    assert not other.builds(lambda: None)


def test_collect_before_anything_was_kept_does_nothing(tmp_path: Path) -> None:
    assert Artifacts(tmp_path / "state").collect([]) == 0
    assert not (tmp_path / "state").exists()


def test_a_bad_module_leaves_nothing(node: Node, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wasm"
    bad.write_bytes(node.source.path.read_bytes()[:-1])
    cut = replace(node.source, path=bad, digest=identify(bad)[0])
    with pytest.raises(ModuleError, match=r"not valid Wasm|a cut file\?"):
        node.artifacts.module(node.engine, cut)
    assert set(node.artifact.parent.iterdir()) == {
        node.artifact,
        node.mac,
        node.artifact.parent / "lock",
    }


@pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")
def test_a_compiler_out_of_memory_leaves_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path, memory_bytes=64 << 20)
    path = tmp_path / "costly.wasm"
    path.write_bytes(costly_module(1, 20_000))
    with pytest.raises(EngineError, match="needed more than 64MiB of memory"):
        artifacts.module(wasmtime(), source(path))
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["lock"]


@pytest.mark.system
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, engine: Engine) -> None:
    with small_disk(tmp_path / "disk", size_kib=4 << 10) as disk:
        with pytest.raises(StoreError, match=r"the disk is full: 4\.0 MiB free"):
            Node(disk / "state", engine)
        assert [path.name for path in (disk / "state" / "artifacts").iterdir()] == ["lock"]


@pytest.mark.system
@pytest.mark.not_emulated("QEMU maps code of what it runs as data")
def test_a_disk_that_runs_no_code_is_said(tmp_path: Path) -> None:
    engine = wasmtime()
    with (
        small_disk(tmp_path / "disk", 32 << 10, options="noexec") as disk,
        pytest.raises(EngineError, match="is on a file system mounted noexec"),
    ):
        Node(disk / "state", engine)


def test_a_sidecar_that_cannot_be_written_takes_its_artifact_along(node: Node) -> None:
    node.mac.unlink()
    node.artifact.unlink()
    node.mac.mkdir()  # cannot be replaced by a file, whoever we are
    with pytest.raises(StoreError, match="cannot put the new file in place"):
        node.load()
    assert not node.artifact.exists()
    assert not list(node.artifact.parent.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=r"state/artifacts.* Not a directory"):
        Node(tmp_path / "state", wasmtime())


def test_leftovers_of_a_crash_are_gone_after_the_next_build(node: Node) -> None:
    leftover = node.artifact.parent / f"{TEMPORARY_PREFIX}1234-x"
    leftover.write_bytes(b"half")
    assert node.builds(node.artifact.unlink)
    assert not leftover.exists()


def test_two_processes_at_once_compile_once(tmp_path: Path) -> None:
    wasmtime()  # or skip
    code = """if True:
        import os, sys
        from pathlib import Path
        from edge_agent.wasm.artifacts import Artifacts
        from edge_agent.wasm.engine_selection import select_engine
        from edge_agent.wasm.modulefile import ModuleFile, identify, inspect_file
        path = Path(sys.argv[2])
        digest, _ = identify(path)
        source = ModuleFile(path, digest, inspect_file(path, digest), 512 << 10)
        sys.stdin.readline()
        artifacts = Artifacts(Path(sys.argv[1]))
        artifacts.module(select_engine("auto")[0], source)
        artifact, = Path(sys.argv[1]).glob("artifacts/*.artifact")
        print(artifact.stat().st_ino)
    """
    command = [sys.executable, "-c", code, str(tmp_path), str(GUESTS / "bench.wasm")]
    crowd = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for each in crowd:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate()[0] for each in crowd]
    assert [each.returncode for each in crowd] == [0, 0, 0]
    assert len(set(said)) == 1
    assert said[0].strip()


@pytest.mark.parametrize("size", ["same", "less", "none"])
def test_after_a_fault_what_is_damaged_goes_and_is_named(node: Node, size: str) -> None:
    assert node.artifacts.remove_damaged() == []
    sound = node.artifact
    node.source = source(GUESTS / "edge.wasm")
    node.load()
    content = node.artifact.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    with node.artifact.open("r+b") as file:  # in place, as a bad disk does
        file.write(flipped)
        file.truncate({"same": len(content), "less": half, "none": 0}[size])
    assert node.artifacts.remove_damaged() == [node.artifact]
    assert not node.artifact.exists()
    assert not node.mac.exists()
    assert sound.exists()
    assert node.artifacts.remove_damaged() == []
    node.load()


def test_after_a_fault_what_was_never_finished_is_no_damage(node: Node) -> None:
    node.mac.unlink()
    assert node.artifacts.remove_damaged() == []
    assert node.artifact.exists()


def test_after_a_fault_nothing_can_be_said_without_the_secret(node: Node) -> None:
    node.secret.unlink()
    assert node.artifacts.remove_damaged() == []
    assert Artifacts(node.state / "nothing").remove_damaged() == []
