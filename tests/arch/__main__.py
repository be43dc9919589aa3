"""`scripts/test-arch`: the agent on emulated boards of other architectures.

Installs it there as a user would, with pip into a virtual environment, and runs the contract suite
of the engines, the tests of the wire and the demonstration; then installs, runs, upgrades and
removes the Debian package. Of time and memory an emulator tells nothing.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from scripts.deb.engines import PACKAGE, engines_wheel
from scripts.deb.wheels import WheelError, own_wheels
from tests.support.debian import DebianUnreachable
from tests.support.foreign import EMULATED, ForeignBoard, why_not
from tests.support.gobuild import go_is_installed, modules_for_a_machine_without_go

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
TOOLS = "/root/tools"
SOURCES, VENV = "/root/edge-agent", "/root/venv"
# Where PyPI lacks wheels, as docs/install.md says: PyNaCl is Debian's, msgpack is in Python.
SYSTEMS = {"armhf": ("--system-site-packages",), "riscv64": ("--system-site-packages",)}
NOT_COMPILING = ("MSGPACK_PUREPYTHON=1",)
# What there is for each, in the order in which "auto" looks.
ENGINES = {
    "arm64": ("wasmer", "wasmtime", "wasmi"),
    "armhf": ("wasmi",),
    "riscv64": ("wasmer", "wasmi"),
}
CHOSEN = """if True:
    import sys
    from edge_agent.wasm.engine_selection import select_engine
    for name in sys.argv[1:]:
        print(select_engine(name)[1])
"""
TESTS = ("tests/wasm", "tests/wire")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-arch", description=__doc__)
    parser.add_argument("arch", choices=EMULATED, help="as Debian names it")
    parser.add_argument(
        "--suite", default="", help="the Debian that is unpacked (default: the oldest that has it)"
    )
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="DIR",
        help="take the wheels for this architecture that lie here, the engines' (else built here)",
    )
    parser.add_argument("tests", nargs="*", help="only these; options go to pytest, as in -k NAME")
    arguments, options = parser.parse_known_args()
    os.environ.setdefault("PROFILE", "ci")  # of the engines: the same code, sooner
    reason = why_not(arguments.arch)
    if reason:
        sys.exit(f"test-arch: {reason}")
    try:
        with ForeignBoard(arguments.arch, arguments.suite) as board:
            code = steps(board, arguments, options)
            if arguments.tests or code:
                return code
            return demonstration(board) or package(arguments)
    except (DebianUnreachable, WheelError) as error:
        sys.exit(f"test-arch: {error}")


def steps(board: ForeignBoard, arguments: argparse.Namespace, options: list[str]) -> int:
    """0 if all went well."""
    for_it = own_wheels(arguments.wheels, arguments.arch)
    packages = []
    if not any(wheel.name.startswith(PACKAGE) for wheel in for_it):
        for_it.append(engines_wheel(arguments.arch))
    for wheel in for_it:
        board.path(f"/root/{wheel.name}").write_bytes(wheel.read_bytes())
        packages.append(f"/root/{wheel.name}")
    copy_checkout(board)
    install_tools(board)
    if go_is_installed():
        for place, module in modules_for_a_machine_without_go().items():
            put(board, f"/root/.cache/edge-agent/go/{place}", module)
    venv = ["python3", "-m", "venv", *SYSTEMS.get(board.arch, ()), VENV]
    pytest = [
        "env",
        f"PYTHONPATH={TOOLS}",
        f"{VENV}/bin/python",
        "-m",
        "pytest",
        "--emulated",
        "-rfE",
    ]
    plan: list[tuple[str, list[str]]] = [
        ("a virtual environment", venv),
        ("pip install", [f"{VENV}/bin/pip", "install", "--quiet", SOURCES, *packages]),
        ("what was installed", [f"{VENV}/bin/pip", "list", "--local"]),
        # What is installed is tested, and not what lies beside the tests.
        ("the checkout's own package goes", ["rm", "-r", f"{SOURCES}/edge_agent"]),
        # Where one is missing its tests would only be skipped.
        ("the engines", [f"{VENV}/bin/python", "-c", CHOSEN, *ENGINES[board.arch]]),
        ("the tests", [*pytest, *(arguments.tests or TESTS), *options]),
    ]
    return 0 if all(done(board, step, command) for step, command in plan) else 1


def demonstration(board: ForeignBoard) -> int:
    """Shown only if it fails: it tells times and memory, which are the emulator's."""
    print(f"== {board.arch}: the demonstration", flush=True)
    words = board.command(f"{VENV}/bin/edge-agent", "demo")
    ran = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ran.returncode:
        print(f"{ran.stdout}{ran.stderr}\n== it ended with {ran.returncode}", flush=True)
    return ran.returncode


def package(arguments: argparse.Namespace) -> int:
    """The Debian package, from outside: on a board of its own."""
    print(f"== {arguments.arch}: the Debian package", flush=True)
    words = [sys.executable, "-m", "pytest", "tests/arch", f"--arch={arguments.arch}"]
    words.append(f"--suite={arguments.suite}")
    if arguments.wheels is not None:
        words.append(f"--wheels={arguments.wheels.absolute()}")
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def done(board: ForeignBoard, step: str, command: list[str]) -> bool:
    print(f"== {board.arch}: {step}", flush=True)
    env = [
        f"PIP_CERT={CERTIFICATES}",
        "PIP_DISABLE_PIP_VERSION_CHECK=1",
        "PIP_ROOT_USER_ACTION=ignore",
        "PIP_DEFAULT_TIMEOUT=180",
        *NOT_COMPILING,
    ]
    words = board.command("sh", "-c", f'cd {SOURCES} && exec "$@"', "sh", *command, env=env)
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        print(f"== {board.arch}: {step} ended with {code}", flush=True)
    return code == 0


def install_tools(board: ForeignBoard) -> None:
    """What only the tests need. From outside: it is the same everywhere, and pip slow in there."""
    words = ["--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary=:all:"]
    words += ["--platform=any", f"--target={board.path(TOOLS)}", "pytest", "hypothesis"]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)


def copy_checkout(board: ForeignBoard) -> None:
    """The files that git knows or would take, and the certificates that this machine trusts."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in sorted(set(listed.decode().split("\0")) - {""}):
        if (ROOT / name).is_file():
            put(board, f"{SOURCES}/{name}", ROOT / name)
    put(board, CERTIFICATES, Path(CERTIFICATES))


def put(board: ForeignBoard, inside: str, file: Path) -> None:
    target = board.path(inside)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
    target.chmod(file.stat().st_mode & 0o777)


if __name__ == "__main__":
    sys.exit(main())
