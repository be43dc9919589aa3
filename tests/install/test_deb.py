"""What `scripts/build-deb` makes, without installing it."""

from __future__ import annotations

import email.parser
import gzip
import io
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from edge_agent.__main__ import COMMANDS
from scripts.deb.archive import Link
from scripts.deb.contents import control_files, data_files, debian_version, for_operator
from scripts.deb.wheels import runs_on_armv6
from tests.install.conftest import ROOT, Build

MACHINES = {"amd64": 62, "arm64": 183, "armhf": 40, "riscv64": 243}  # e_machine of ELF
# For these PyPI has wasmtime, and machine code for protobuf and PyNaCl; for armhf none at all.
WITH_WHEELS = {"amd64", "arm64"}
# Library -> Debian's package of it.
PROVIDERS = {
    **dict.fromkeys(("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"), "libc6"),
    **dict.fromkeys(("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "librt.so.1"), "libc6"),
    **dict.fromkeys(("ld-linux-armhf.so.3", "ld-linux-riscv64-lp64d.so.1"), "libc6"),
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
}
LIBRARY = "./usr/lib/edge-agent/"


def member(package: Path, name: str) -> tarfile.TarFile:
    """A tar in the package, which is an `ar` archive."""
    archive = package.read_bytes()
    assert archive.startswith(b"!<arch>\n")
    at = 8  # then for each member a header of 60 bytes, and its content
    while at < len(archive):
        size = int(archive[at + 48 : at + 58])
        if archive[at : at + 16].startswith(name.encode()):
            return tarfile.open(fileobj=io.BytesIO(archive[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    raise AssertionError(f"no {name}")


def contents(package: Path) -> dict[str, bytes]:
    with member(package, "data.tar") as tar:
        files = {info.name: tar.extractfile(info) for info in tar if info.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def tracked() -> set[str]:
    """What belongs to the Python package: "edge_agent/..."."""
    listed = subprocess.run(
        ["git", "ls-files", "edge_agent"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the package is not known")
    named = {name for name in listed.stdout.split() if not name.endswith((".c", ".pyi"))}
    # What `edge-agent plugin new` makes of a plugin: nobody writes one on a board.
    elsewhere = ("edge_agent/authors/templates/", "edge_agent/console/")
    return {name for name in named if not name.startswith(elsewhere)}


def ours(package: Path) -> set[str]:
    """The same, as far as a Debian package brings it."""
    return {
        name.removeprefix(LIBRARY)
        for name in contents(package)
        if name.startswith(f"{LIBRARY}edge_agent/")
    }


# The other two are built and installed by scripts/test-arch: their engines take minutes to compile.
@pytest.fixture(scope="module", params=("amd64", "armhf"))
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(build: Build, arch: str) -> Path:
    return build(arch)


def test_the_same_sources_give_the_same_bytes(made: Path, build: Build, arch: str) -> None:
    again = build(arch)
    assert again != made
    assert again.read_bytes() == made.read_bytes()


def test_all_machine_code_is_of_the_packages_architecture(made: Path, arch: str) -> None:
    found = {name: file for name, file in contents(made).items() if ".so" in Path(name).suffixes}
    assert f"{LIBRARY}edge_agent_engines/edge_agent_engines.abi3.so" in found
    assert any("_libwasmtime" in name for name in found) == (arch in WITH_WHEELS)
    machines = {name: int.from_bytes(file[18:20], "little") for name, file in found.items()}
    assert set(machines.values()) == {MACHINES[arch]}


def test_every_python_that_is_promised_finds_its_msgpack_and_protobuf(
    made: Path, arch: str
) -> None:
    names = "\n".join(contents(made))
    promised = {"311", "312", "313", "314"} if arch != "armhf" else set()
    assert set(re.findall(r"_cmsgpack\.cpython-(\d+)-", names)) == promised
    assert f"{LIBRARY}msgpack/fallback.py" in names  # for any other
    assert (f"{LIBRARY}google/_upb/_message.abi3.so" in names) == (arch in WITH_WHEELS)
    assert f"{LIBRARY}google/protobuf/message.py" in names


def test_every_python_that_is_promised_finds_its_pynacl(made: Path, arch: str) -> None:
    names = "\n".join(contents(made))
    promised = {"311", "312", "313", "314"} if arch in WITH_WHEELS else set()
    assert set(re.findall(r"_cffi_backend\.cpython-(\d+)-", names)) == promised
    assert (f"{LIBRARY}nacl/_sodium.abi3.so" in names) == (arch in WITH_WHEELS)
    assert f"{LIBRARY}cffi/" not in names


@pytest.mark.parametrize("arch", ["armhf", "riscv64"])
def test_where_pypi_has_no_pynacl_links_lead_to_debians(arch: str) -> None:
    links = {
        path: entry.target
        for path, entry in data_files("1.0", arch, 0, {}).items()
        if isinstance(entry, Link)
    }
    assert links["/usr/lib/edge-agent/nacl"] == "../python3/dist-packages/nacl"
    triplet = {"armhf": "arm-linux-gnueabihf", "riscv64": "riscv64-linux-gnu"}[arch]
    assert f"/usr/lib/edge-agent/_cffi_backend.cpython-313-{triplet}.so" in links
    control = control_files("1.0", arch)["control"].content.decode()
    assert re.search("^Recommends:.*python3-nacl", control, re.M)


def test_the_pinned_wheels_are_what_setup_cfg_asks_for(made: Path, arch: str) -> None:
    asked = (ROOT / "setup.cfg").read_text()
    versions = dict(re.findall(r"^ +(wasmtime) == ([\d.]+)", asked, re.M))
    infos = {Path(name).parts[3] for name in contents(made) if ".dist-info/" in name}
    assert any(re.fullmatch(r"edge_agent_engines-0\.2\.\d+\.dist-info", name) for name in infos)
    assert (f"wasmtime-{versions['wasmtime']}.dist-info" in infos) == (arch in WITH_WHEELS)
    with_code = ("cffi", "pynacl") if arch in WITH_WHEELS else ()
    for distribution in ("msgpack", "paho_mqtt", "protobuf", *with_code):
        assert sum(info.startswith(f"{distribution}-") for info in infos) == 1


def test_everything_belongs_to_root_and_nobody_else_may_write(made: Path) -> None:
    with member(made, "data.tar") as tar:
        for info in tar:
            assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "root", "root")
            assert info.issym() or info.mode & 0o7022 == 0, info.name
            assert info.name.startswith(".")


def test_the_control_file_says_what_it_is(made: Path, arch: str) -> None:
    with member(made, "control.tar") as tar:
        files = {info.name: tar.extractfile(info) for info in tar}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    fields = email.parser.Parser().parsestr(texts["./control"])
    assert (fields["Package"], fields["Version"], fields["Architecture"]) == (
        "edge-agent",
        "1.0",
        arch,
    )
    assert "python3 (>= 3.11)" in fields["Depends"]
    size = sum(len(each) for each in contents(made).values())
    assert size / 1024 <= int(fields["Installed-Size"]) < size / 1024 + 2000
    assert texts["./conffiles"] == "/etc/edge-agent/agent.toml\n"
    assert len(texts["./md5sums"].splitlines()) == len(contents(made))


@pytest.mark.parametrize(
    ("machine", "refused"), [("armv6l", True), ("armv7l", False), ("aarch64", False)]
)
def test_what_is_for_armv7_refuses_older_boards_before_it_is_unpacked(
    machine: str, refused: bool, tmp_path: Path
) -> None:
    script = tmp_path / "preinst"
    script.write_bytes(control_files("1.0", "armhf")["preinst"].content)
    (tmp_path / "uname").write_text(f'#!/bin/sh\n[ "$*" = -m ] && echo {machine}\n')
    for each in (script, tmp_path / "uname"):
        each.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    words = ["sh", str(script), "install"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == refused
    assert ("this package is for ARMv7 and later" in done.stderr) == refused


def test_only_the_package_whose_code_is_for_armv7_says_so_and_looks() -> None:
    engines, pure = "edge_agent_engines-0.2.0-cp311-abi3-{}.whl", Path("paho-2-py3-none-any.whl")
    older = [pure, Path(engines.format("linux_armv6l.linux_armv7l"))]
    newer = [pure, Path(engines.format("manylinux_2_31_armv7l"))]
    assert (runs_on_armv6(older), runs_on_armv6(newer)) == (True, False)
    for arch, armv6, looks in (("armhf", False, True), ("armhf", True, False), ("arm64", 0, False)):
        files = control_files("1.0", arch, armv6=bool(armv6))
        assert ("preinst" in files) == looks
        assert (b"ARMv7" in files["control"].content) == looks
        assert (b"libc6 (>= 2.34)" in files["control"].content) == bool(armv6)


def test_every_library_that_machine_code_needs_is_depended_on(made: Path) -> None:
    with member(made, "control.tar") as tar:
        control = tar.extractfile("./control")
        assert control is not None
        depends = email.parser.BytesParser().parse(control)["Depends"]
    files = [file for name, file in contents(made).items() if name.endswith(".so")]
    # Names and versions as they stand in the tables of dynamic symbols.
    libraries = {
        name for file in files for name in re.findall(rb"\0([\w+-]+\.so\.\d+)(?=\0)", file)
    }
    assert libraries  # the engines' at least
    assert {PROVIDERS[name.decode()] for name in libraries} <= set(re.findall(r"[\w+-]+", depends))
    versions = {v for file in files for v in re.findall(rb"\0GLIBC_2\.(\d+)(?=[.\0])", file)}
    least = re.search(r"libc6 \(>= 2\.(\d+)\)", depends)
    assert least is not None
    assert max(int(version) for version in versions) <= int(least[1])


def test_the_manual_page_names_every_command(made: Path) -> None:
    page = gzip.decompress(contents(made)["./usr/share/man/man8/edge-agent.8.gz"]).decode()
    assert re.findall(r"^\.TP\n\.B (\w+)$", page, re.M) == list(COMMANDS)


def test_every_pin_is_a_digest_of_its_own() -> None:
    pins = tomllib.loads((ROOT / "scripts" / "deb" / "wheels.toml").read_text())
    for table in pins.values():
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in table.values())
        assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(
    ("python", "debian"),
    [("1.0", "1.0"), ("1.0rc1", "1.0~rc1"), ("1.0.dev3", "1.0~dev3"), ("2.1a2", "2.1~a2")],
)
def test_a_version_before_a_release_sorts_before_it(python: str, debian: str) -> None:
    assert debian_version(python) == debian


def test_a_board_gets_what_it_runs_and_an_operator_the_rest(build: Build) -> None:
    board, fleet = ours(build()), ours(build("all"))
    assert board | fleet == tracked()
    assert not board & fleet
    rooms = {"/".join(name.split("/")[:2]) for name in fleet}
    assert rooms == {f"edge_agent/{name}" for name in ("cli", "operator", "sim", "testing.py")}
    commands = {name for name in fleet if name.startswith("edge_agent/cli/")}
    assert {"edge_agent/cli/fleet.py", "edge_agent/cli/demo.py"} <= commands
    assert all(re.match(r"edge_agent/cli/(fleet|demo)", name) for name in commands)
    # Nothing that stays on the board needs what is left out.
    for name in board - {"edge_agent/__main__.py"}:  # which asks whether the commands are there
        if name.endswith(".py"):
            text = (ROOT / name).read_text()
            left_out = r"edge_agent\.(?:(?:console|operator|sim|testing)\b|cli\.(?:fleet|demo))"
            assert not re.search(left_out, text), name


def test_the_operators_package_is_for_each_architecture(build: Build) -> None:
    package = build("all")
    assert package.name == "edge-agent-fleet_1.0_all.deb"
    files = contents(package)
    assert not [name for name in files if ".so" in Path(name).suffixes]
    infos = {Path(name).parts[3].split("-")[0] for name in files if ".dist-info/" in name}
    assert infos == {"rich", "pygments", "markdown_it_py", "mdurl", "tomlkit"}
    with member(package, "control.tar") as tar:
        control = tar.extractfile("./control")
        assert control is not None
        fields = email.parser.BytesParser().parse(control)
    assert (fields["Package"], fields["Architecture"]) == ("edge-agent-fleet", "all")
    assert fields["Depends"] == "edge-agent (= 1.0)"
    assert package.read_bytes() == build("all").read_bytes()


def test_the_container_image_leaves_out_the_same() -> None:
    image = (ROOT / "configs" / "container" / "Containerfile").read_text()
    removed = re.search(r"^RUN cd /source/edge_agent && rm -r (.*)$", image, re.M)
    assert removed is not None
    gone = {
        str(found.relative_to(ROOT))
        for pattern in removed[1].split()
        for path in (ROOT / "edge_agent").glob(pattern)
        for found in ([path] if path.is_file() else path.rglob("*"))
    }
    assert gone & tracked() == {name for name in tracked() if for_operator(name)}


def run_unpacked(packages: list[Path], folder: Path, *words: str) -> tuple[int, str, str]:
    """`edge-agent WORDS` with the files of these packages, as the launcher runs it."""
    for package in packages:
        with member(package, "data.tar") as tar:
            tar.extractall(folder, filter="data")
    program = f"import sys; sys.path.insert(0, {str(folder / LIBRARY)!r})"
    program += f"; from edge_agent.__main__ import main; sys.exit(main({list(words)}))"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["fleet", "demo"])
def test_a_board_says_where_the_operators_commands_are(
    build: Build, tmp_path: Path, command: str
) -> None:
    code, said, complaint = run_unpacked([build()], tmp_path, command, "--plain")
    assert (code, said) == (2, "")
    assert "edge-agent-fleet" in complaint
    assert "pip install 'edge-agent[fleet]'" in complaint
    assert len(complaint.splitlines()) == 1
    code, said, complaint = run_unpacked([], tmp_path, "--help")
    assert code == 0
    assert "not installed: demo, fleet" in said
    assert "doctor" in said


def test_with_the_operators_package_the_commands_are_there(build: Build, tmp_path: Path) -> None:
    packages = [build(), build("all")]
    code, said, complaint = run_unpacked(packages, tmp_path, "--help")
    assert (code, complaint) == (0, "")
    assert "not installed" not in said
    keys, folder = tmp_path / "keys", tmp_path / "fleet"
    for words in (
        ["keygen", "me"],
        ["init", str(folder), "--broker", "mqtt://localhost:1883", "--key", "me"],
        ["plan", "-C", str(folder)],
    ):
        code, said, complaint = run_unpacked([], tmp_path, "fleet", *words, "--keys", str(keys))
        if words[0] != "plan":
            assert (code, complaint) == (0, ""), words
    assert code == 1  # no broker there, which needs paho, tomlkit and all of the operator's code
    assert "localhost" in complaint
