"""A real registry over HTTPS and a real oras, both built from the Go module proxy."""

import json
import os
import socket
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from tests.support.gobuild import oras_binary, registry_binary
from tests.support.mosquitto import Certificates
from tests.support.ports import free_port
from tests.support.wait import wait_until

WASM_LAYER, WASM_CONFIG = "application/wasm", "application/vnd.wasm.config.v0+json"


class Registry:
    """distribution's registry on `localhost`; a context manager.

    `settings` are its own variables (REGISTRY_...), which go before what is set here.
    """

    def __init__(
        self, folder: Path, certificates: Certificates, settings: Mapping[str, str] | None = None
    ) -> None:
        self._certificates = certificates
        certificate, key = certificates.broker
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self._folder = folder
        self._settings = {
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{self.port}",
            "REGISTRY_HTTP_TLS_CERTIFICATE": str(certificate),
            "REGISTRY_HTTP_TLS_KEY": str(key),
            "OTEL_TRACES_EXPORTER": "none",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "registry.log"

    def __enter__(self) -> "Registry":
        config = self._folder / "registry.yml"
        config.write_text(
            "version: 0.1\nlog:\n  level: info\n"
            f"storage:\n  filesystem:\n    rootdirectory: {self._folder / 'blobs'}\n"
            "http:\n  addr: 127.0.0.1:0\n"
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [registry_binary(), "serve", config],
                env={**os.environ, **self._settings},
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, "the registry listens")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def push(self, repository_tag: str, module: Path, login: tuple[str, str] | None = None) -> None:
        """`oras push` of a Wasm artifact."""
        config = self._folder / "config.json"
        config.write_text('{"architecture":"wasm","os":"wasip1"}')
        options: list[str | Path] = [
            "--plain-http=false",
            "--ca-file",
            self._certificates.ca,
            "--registry-config",
            self._folder / "auth",
        ]
        if login:
            options += ["--username", login[0], "--password", login[1]]
        what = ["--config", f"{config.name}:{WASM_CONFIG}", f"{module.name}:{WASM_LAYER}"]
        done = subprocess.run(
            [oras_binary(), "push", *options, f"{self.host}/{repository_tag}", *what],
            cwd=self._in_one_folder(module),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.log.read_text()

    def requests(self) -> list[str]:
        """What was asked of it, as `METHOD path -> status`, from its log."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if '"GET /v2' in line]

    def _in_one_folder(self, module: Path) -> Path:
        # oras takes no absolute paths.
        (self._folder / module.name).write_bytes(module.read_bytes())
        return self._folder

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def docker_config(path: Path, host: str, user: str, password: str) -> Path:
    """A file as `docker login` writes it."""
    auth = b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return path
