"""`scripts/test-arch`: the agent on emulated boards of other architectures.

Installs it there as a user would, with pip into a virtual environment, and runs the contract suite
of the engines, the tests of the wire and the demonstration; then installs, runs, upgrades and
removes the Debian package. Of time and memory an emulator tells nothing.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from scripts.deb.wasm3 import wasm3_wheel
from scripts.deb.wheels import WheelError, own_wheels
from tests.support.debian import DebianUnreachable
from tests.support.foreign import EMULATED, ForeignBoard, why_not

ROOT = Path(__file__).resolve().parents[2]
SOURCES, VENV = "/root/edge-agent", "/root/venv"
# Where PyPI lacks wheels, as docs/install.md says: PyNaCl is Debian's, msgpack is in Python.
SYSTEMS = {"armhf": ("--system-site-packages",), "riscv64": ("--system-site-packages",)}
COMPILING = ("CFLAGS=-Wno-incompatible-pointer-types",)
NOT_COMPILING = ("MSGPACK_PUREPYTHON=1",)
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
        help="also install the wheels for this architecture that lie here (engines built by us)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="wasm3 as PyPI has it, compiled in there, instead of scripts/build-wasm3",
    )
    parser.add_argument("tests", nargs="*", help="only these instead of all; pytest's words")
    arguments = parser.parse_args()
    reason = why_not(arguments.arch)
    if reason:
        sys.exit(f"test-arch: {reason}")
    try:
        with ForeignBoard(arguments.arch, arguments.suite, compiler=arguments.compile) as board:
            return steps(board, arguments)
    except (DebianUnreachable, WheelError) as error:
        sys.exit(f"test-arch: {error}")


def steps(board: ForeignBoard, arguments: argparse.Namespace) -> int:
    """0 if all went well."""
    for_it = own_wheels(arguments.wheels, arguments.arch)
    packages = ["pytest", "hypothesis"]
    if arguments.compile:
        packages.append("pywasm3==0.5.0")
    else:
        for_it.append(wasm3_wheel(arguments.arch))
    for wheel in for_it:
        board.path(f"/root/{wheel.name}").write_bytes(wheel.read_bytes())
        packages.append(f"/root/{wheel.name}")
    copy_checkout(board)
    plan = {
        "a virtual environment": ["python3", "-m", "venv", *SYSTEMS.get(board.arch, ()), VENV],
        "pip install": [f"{VENV}/bin/pip", "install", "--quiet", SOURCES, *packages],
        "what was installed": [f"{VENV}/bin/pip", "list"],
        # What is installed is tested, and not what lies beside the tests.
        "the checkout's own package goes": ["rm", "-r", f"{SOURCES}/edge_agent"],
        "the tests": [
            f"{VENV}/bin/python",
            "-m",
            "pytest",
            "--emulated",
            *(arguments.tests or TESTS),
        ],
    }
    if not arguments.tests:
        plan["the demonstration"] = [f"{VENV}/bin/edge-agent", "demo"]
    for step, command in plan.items():
        if not done(board, step, command):
            return 1
    return 0


def done(board: ForeignBoard, step: str, command: list[str]) -> bool:
    print(f"== {board.arch}: {step}", flush=True)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    env = [
        f"PIP_CERT={certificates}",
        "PIP_DISABLE_PIP_VERSION_CHECK=1",
        "PIP_ROOT_USER_ACTION=ignore",
        "PIP_DEFAULT_TIMEOUT=180",
        *(COMPILING if board.compiler else NOT_COMPILING),
    ]
    words = board.command("sh", "-c", f'cd {SOURCES} && exec "$@"', "sh", *command, env=env)
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        print(f"== {board.arch}: {step} ended with {code}", flush=True)
    return code == 0


def copy_checkout(board: ForeignBoard) -> None:
    """The files that git knows or would take, and the certificates that this machine trusts."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in sorted(set(listed.decode().split("\0")) - {""}):
        source, target = ROOT / name, board.path(f"{SOURCES}/{name}")
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode & 0o777)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    place = board.path(str(certificates))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(certificates.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
