"""A real mosquitto on a free loopback port, with certificates, passwords and access lists."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support import tiers
from tests.support.names import require_localhost
from tests.support.ports import free_port
from tests.support.wait import wait_until

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
OPENSSL = shutil.which("openssl")

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


class Mosquitto:
    """One broker; a context manager. Killed and started again it keeps port and sessions."""

    def __init__(self, folder: Path, *settings: str) -> None:
        """`settings` are lines of mosquitto.conf; anonymous clients are allowed by default."""
        tiers.system("mosquitto")
        self.port = free_port()
        self.log_file = folder / "mosquitto.log"
        self._folder = folder
        self._config = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            # With each change, so that a killed broker knows its clients' sessions again.
            "autosave_on_changes true",
            "autosave_interval 1",
            *settings,
        ]
        if not any(line.startswith("allow_anonymous") for line in settings):
            lines.append("allow_anonymous true")
        if os.getuid() == 0:
            lines.append("user root")  # or it could not read this folder
        self._config.write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert MOSQUITTO is not None
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-v", "-c", self._config], stdout=log, stderr=log
            )
        wait_until(self._listens, "mosquitto listens")

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """SIGTERM: it writes what it keeps and ends."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()

    def forget(self) -> None:
        """Lose what it keeps, while it does not run."""
        assert self._process is None
        (self._folder / "mosquitto.db").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop it from answering while its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    @property
    def ports(self) -> tuple[int, ...]:
        """Of all its listeners."""
        return (self.port,)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        return all(map(_listens_at, self.ports))


def _listens_at(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Certificates:
    """An authority, a broker's certificate for `localhost` and a client's, made by openssl."""

    def __init__(self, folder: Path) -> None:
        require_localhost()
        self.ca, self._ca_key = folder / "ca.pem", folder / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *(
                "-keyout",
                self._ca_key,
                "-out",
                self.ca,
                "-days",
                "2",
                "-subj",
                "/CN=test authority",
            ),
        )
        self.broker = self._issue(folder, "broker", "subjectAltName=DNS:localhost")
        self.client = self._issue(folder, "client", "extendedKeyUsage=clientAuth")

    def _issue(self, folder: Path, name: str, extension: str) -> tuple[Path, Path]:
        key, request, extensions, certificate = (
            folder / f"{name}.{suffix}" for suffix in ("key", "csr", "ext", "pem")
        )
        extensions.write_text(extension + "\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", request, "-subj", f"/CN={name}"),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key),
            *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
        )
        return certificate, key

    def settings(self, require_client: bool = False) -> tuple[str, ...]:
        """The lines for mosquitto.conf."""
        certificate, key = self.broker
        lines = (f"cafile {self.ca}", f"certfile {certificate}", f"keyfile {key}")
        return (*lines, "require_certificate true") if require_client else lines

    @staticmethod
    def lock(key: Path, locked: Path) -> Path:
        """`key` once more, behind a password."""
        _openssl("ec", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret")
        return locked


def passwords(folder: Path, **users: str) -> Path:
    """A password file for `users`."""
    file = folder / "passwords"
    file.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([tool, "-U", file], check=True, capture_output=True)
    return file


def access_list(folder: Path, rules: Sequence[str]) -> Path:
    """An access list file; `rules` as in mosquitto.conf(5)."""
    file = folder / "access"
    file.write_text("\n".join(rules) + "\n")
    return file


def _openssl(*arguments: str | Path) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], check=True, capture_output=True)
