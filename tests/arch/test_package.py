"""The Debian package's life on a board of another architecture.

No systemd runs under the emulator: what it would do with the unit, which is the same file in
every package, is done here by hand. Under a real one: tests/install.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.sim.runtime import SimRuntime
from edge_agent.wasm.engine_selection import engine_names
from tests.arch.__main__ import ENGINES
from tests.install.conftest import Build
from tests.support.agent import guest
from tests.support.foreign import EMULATED, ForeignBoard
from tests.support.notify import NotifySocket
from tests.support.served import wait_until_it_changes
from tests.support.wait import wait_until

CONFIG = "/etc/edge-agent/agent.toml"
PLUGIN = "/etc/edge-agent/plugins/10-bench.wasm"
STATE = "/var/lib/edge-agent"
UNIT = "/usr/lib/systemd/system/edge-agent.service"
ENABLED = "/etc/systemd/system/multi-user.target.wants/edge-agent.service"
# A signature by the project's own code, which takes PyNaCl from where the package says.
SIGNED = """if True:
    import sys
    sys.path.insert(0, "/usr/lib/edge-agent")
    from edge_agent.fleet_protocol.keys import SigningKey, verify
    key = SigningKey.generate()
    print(verify(key.public, b"message", key.sign(b"message")))
"""


def install(board: ForeignBoard, package: Path) -> None:
    board.path("/edge-agent.deb").write_bytes(package.read_bytes())
    said = board.run("dpkg", "--install", "--force-confold", "/edge-agent.deb")
    assert "edge-agent" in said
    assert "rror" not in said


@contextmanager
def started(board: ForeignBoard) -> Iterator[NotifySocket]:
    """What systemd starts for the unit, until it ends after SIGTERM; the socket it reports to."""
    unit = board.path(UNIT).read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line[:25])
    for base, folder in (("/var/lib", "StateDirectory"), ("/run", "RuntimeDirectory")):
        board.run("mkdir", "-p", "-m", "0700", f"{base}/{settings[folder]}")
    address = board.run_folder / "notify"
    address.unlink(missing_ok=True)
    with NotifySocket(address) as socket, socket.served():
        env = ["NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=2000000"]
        # exec: the process is the one whose number is written down.
        line = f"echo $$ >/run/pid; exec {settings['ExecStart']}"
        process = subprocess.Popen(
            board.command("sh", "-c", line, env=env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(lambda: socket.has("READY=1") or process.poll() is not None, "its start")
            assert process.poll() is None
            yield socket
            board.run("sh", "-c", "kill -TERM $(cat /run/pid)")
            assert process.wait() == 0
            assert socket.has("STOPPING=1")
        except BaseException:
            board.run("sh", "-c", "kill -KILL $(cat /run/pid)", fails=True)
            assert process.stdout is not None
            print(process.stdout.read())
            raise
        finally:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_from_installation_to_purge(board: ForeignBoard, package: Callable[[str], Path]) -> None:
    assert board.run("python3", "-c", "import platform; print(platform.machine())").strip() == (
        EMULATED[board.arch].machine
    )
    install(board, package("1.0"))
    assert board.path(ENABLED).is_symlink()
    compiled = board.path("/usr/lib/edge-agent/edge_agent/__pycache__")
    assert list(compiled.glob("agent.*.pyc"))
    assert board.run("edge-agent", "--version").startswith("edge-agent ")
    # In the order in which "auto" looks for them.
    engines = ENGINES[board.arch]
    findings = json.loads(board.run("edge-agent", "doctor", "--json", fails=True))["findings"]
    (engine,) = (each for each in findings if each["subject"] == "engine")
    assert engine["level"] == "ok", engine
    assert engine["text"].startswith(f"{engines[0]} ")
    # What would be preferred, and why it is not taken.
    for absent in engine_names()[: engine_names().index(engines[0])]:
        assert f"; {absent}: " in engine["text"]

    assert board.run("python3", "-IS", "-c", SIGNED) == "True\n"

    # It works, on each engine that is there, and keeps something.
    (board.run_folder / "nri").mkdir(mode=0o700)
    config = board.path(CONFIG)
    module = guest("bench").read_bytes()
    with SimRuntime(board.run_folder / "nri" / "nri.sock") as runtime:
        board.path(PLUGIN).write_bytes(module)
        for choice in ("auto", *engines[1:]):
            config.write_text(f'engine = "{choice}"\n')
            with started(board) as socket:
                wait_until_it_changes(runtime)
                wait_until(lambda: socket.has("WATCHDOG=1"), "the watchdog is fed")
                status = json.loads(board.run("edge-agent", "status", "--json"))
                assert len(status["plugins"]) == 1
        kept = board.path(STATE) / "artifacts.secret"
        secret = kept.read_bytes()

        # The new version goes on with the old configuration and state.
        config.write_text('node = "changed-by-hand"\n')
        install(board, package("1.1"))
        version = board.run("dpkg-query", "--show", "--showformat=${Version}", "edge-agent")
        assert version == "1.1"
        assert kept.read_bytes() == secret
        with started(board):
            status = json.loads(board.run("edge-agent", "status", "--json"))
            assert status["node"] == "changed-by-hand"
            runtime.wait_for_plugins(1)

    board.run("dpkg", "--remove", "edge-agent")
    assert not board.path("/usr/bin/edge-agent").exists()
    assert not board.path("/usr/lib/edge-agent").exists()
    assert kept.read_bytes() == secret
    assert config.exists()

    board.run("dpkg", "--purge", "edge-agent")
    assert not board.path(STATE).exists()
    assert not config.exists()
    assert board.path(PLUGIN).exists()  # people's own
    assert not board.path(ENABLED).is_symlink()
    assert board.run("find", "/usr", "/var/lib/systemd", "-name", "*edge-agent*") == ""


def test_the_unit_is_that_of_the_package_that_is_tested_under_systemd(
    board: ForeignBoard, build: Build
) -> None:
    units = []
    for arch in ("amd64", board.arch):
        package = build(arch=arch)
        words = (
            "sh",
            "-c",
            f"dpkg-deb --fsys-tarfile {shlex.quote(str(package))} | tar xO .{UNIT}",
        )
        units.append(subprocess.run(words, capture_output=True, check=True).stdout)
    assert units[0] == units[1] != b""
