"""One emulated board: it boots, runs commands, loses its power.

with Machine(hardware, files, folder) as machine:
    machine.boot()
    machine.run("uname -m")
    machine.cut_power()          # like a pulled plug
    machine.boot()               # from the same disk
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.boards.hardware import Hardware
from tests.boards.image import BoardFiles
from tests.support.ports import free_port
from tests.support.wait import wait_until

# The host as the board sees it, through QEMU's user network: its loopback ports are open there.
HOST = "10.0.2.2"
COMMAND_PORT = 2222  # in the board, guest/files: test-commands.socket
# An emulated processor on a busy machine: a passing run comes nowhere near.
BOOT_TIMEOUT_S = 600.0
COMMAND_TIMEOUT_S = 600.0
OFF_TIMEOUT_S = 180.0
MAX_SHOWN_CHARS = 4000


class BoardError(AssertionError):
    """The board did not boot, did not answer, or a command failed in it."""


class Machine:
    """A context manager; its disk, a copy, lies in `folder` and stays there when the power goes."""

    def __init__(
        self, hardware: Hardware, files: BoardFiles, folder: Path, *, memory_mib: int = 512
    ) -> None:
        self.hardware = hardware
        self.memory_mib = memory_mib
        self.disk = folder / "disk"
        self.console_log = folder / "console.log"
        self._files = files
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            ["cp", "--sparse=always", "--reflink=auto", str(files.disk), str(self.disk)], check=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(f"--- the console's end\n{self.console()[-MAX_SHOWN_CHARS:]}")
        self.cut_power()

    # --- power

    def boot(
        self,
        *,
        arguments: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
        log: Path | None = None,
    ) -> float:
        """Switch it on and wait until systemd says that all is started; seconds it took.

        `arguments` are the kernel's; `devices` are further options of QEMU's; `log` is a new file
        that takes down each write to the disk, and each flush (tests.powercuts.writelog).
        """
        begin = time.monotonic()
        self._start(arguments or {}, devices, log)
        self.wait_for_commands()
        state = self.run("systemctl is-system-running --wait", fails=True).strip()
        if state != "running":
            raise BoardError(f"systemd is {state}: {self.run('systemctl --failed', fails=True)}")
        return time.monotonic() - begin

    def _start(
        self, arguments: Mapping[str, str], devices: Sequence[str], log_of_writes: Path | None
    ) -> None:
        assert self._process is None, "it is on"
        command = self._command(arguments, devices, log_of_writes)
        with self.console_log.open("ab") as log:
            log.write(f"--- {shlex.join(command)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_for_commands(self) -> None:
        """Until the board runs commands."""

        def answers() -> bool:
            self._require_power()
            try:
                return self.run("true", timeout_s=10) == ""
            except BoardError:
                return False

        wait_until(answers, "the board runs commands", BOOT_TIMEOUT_S)

    def cut_power(self) -> None:
        """At once. What the disk was given stays, also what no program had synced."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def power_off(self) -> None:
        """In order; pods must be gone, or systemd waits for what containerd holds."""
        self.run("systemctl poweroff --no-block")
        self.wait_until_off()

    def wait_until_off(self, timeout_s: float = OFF_TIMEOUT_S) -> None:
        """Until it switched itself off; BoardError if it does not."""
        process, self._process = self._process, None
        assert process is not None, "it is off"
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BoardError(f"it did not switch itself off in {timeout_s} s") from None

    @property
    def on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        """What the kernel said, over all starts."""
        return self.console_log.read_text(errors="replace") if self.console_log.exists() else ""

    # --- commands

    def run(
        self,
        script: str,
        *,
        input: bytes = b"",
        fails: bool = False,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> str:
        """Run a script of bash as root; what it printed.

        `input` can be read from its standard input, to its last byte and no further (head -c).
        BoardError: it failed, unless it may (`fails`); or no answer came.
        """
        request = script.encode() + b"\0" + input
        answer = bytearray()
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout_s) as connection:
                connection.sendall(request)
                while part := connection.recv(1 << 16):
                    answer += part
        except OSError as error:
            raise BoardError(f"{script!r}: {error}; the board is {self._power()}") from None
        output, mark, code = answer.rpartition(b"\0")
        if not mark:
            raise BoardError(f"{script!r}: no answer; the board is {self._power()}")
        said = output.decode(errors="replace")
        if code != b"0" and not fails:
            raise BoardError(f"{script!r} gave {code.decode()}: {said[-MAX_SHOWN_CHARS:]}")
        return said

    def put(self, content: bytes, path: str, mode: int = 0o644) -> None:
        """A file; it appears under its name when it is whole."""
        place = shlex.quote(path)
        self.run(
            f"mkdir -p $(dirname {place}) && head -c {len(content)} >{place}.new"
            f" && chmod {mode:o} {place}.new && mv {place}.new {place}",
            input=content,
        )

    def read(self, path: str) -> str:
        return self.run(f"cat {shlex.quote(path)}")

    def unit(self, name: str, key: str) -> str:
        """A property of a unit of systemd's, such as ActiveState."""
        return self.run(f"systemctl show {name} --property {key} --value").strip()

    # --- QEMU

    def _command(
        self, arguments: Mapping[str, str], devices: Sequence[str], log_of_writes: Path | None
    ) -> list[str]:
        hardware = self.hardware
        kernel = {
            "console": hardware.console,
            "root": "/dev/vda",
            "rootfstype": self._files.filesystem.name,
            "net.ifnames": "0",
            "systemd.getty_auto": "no",
            "systemd.show_status": "no",
            "loglevel": "4",
            "panic": "-1",
            # x86: that the timer works is tried against the clock, and an emulator may be late.
            "no_timer_check": "",
            **arguments,
        }
        return [
            *(hardware.qemu, *hardware.options, "-accel", hardware.accelerator()),
            *("-smp", "2", "-m", str(self.memory_mib), "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", "stdio", "-monitor", "none"),
            *("-kernel", str(self._files.kernel), "-initrd", str(self._files.initrd)),
            *("-append", " ".join(f"{key}={value}" for key, value in kernel.items())),
            *drive(self.disk, "disk", log_of_writes),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:{COMMAND_PORT}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
            *devices,
        ]

    def _require_power(self) -> None:
        if not self.on:
            raise BoardError(f"it switched itself off:\n{self.console()[-MAX_SHOWN_CHARS:]}")

    def _power(self) -> str:
        return "on" if self.on else "off"


def drive(disk: Path, name: str, log: Path | None = None) -> list[str]:
    """QEMU's options for a raw file as a disk whose serial number is `name`; the new file `log`
    takes down what is written to it."""
    node = name
    options = _file(disk, name)
    if log is not None:
        log.write_bytes(b"")
        node = f"{name}-logged"
        options += _file(log, f"{name}-log")
        logged = f"driver=blklogwrites,file={name},log={name}-log,node-name={node}"
        options += ["-blockdev", logged]
    return [*options, "-device", f"virtio-blk-pci,drive={node},serial={name}"]


def _file(path: Path, node: str) -> list[str]:
    file = f"driver=file,filename={path},node-name={node}-file,cache.direct=off"
    return ["-blockdev", file, "-blockdev", f"driver=raw,file={node}-file,node-name={node}"]
