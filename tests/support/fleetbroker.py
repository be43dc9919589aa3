"""A real mosquitto set up for a fleet by exactly the files of configs/mosquitto.

Only the folder of the certificates and the port differ from what an operator installs.
"""

import os
import shutil
import subprocess
from pathlib import Path

from edge_agent.config import Broker, MqttConfig
from tests.support.mosquitto import MOSQUITTO, Mosquitto

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mosquitto"
INSTALLED = "/etc/mosquitto/edge-fleet"
FLEET = "default"  # which the access list is written for


class FleetBroker(Mosquitto):
    """A context manager; `folder` holds certificates for the operator and `nodes`."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.folder = folder
        for words in (
            ("ca",),
            ("broker", "localhost", "127.0.0.1"),
            ("operator",),
            *(("node", name) for name in nodes),
        ):
            certificate(folder, *words)
        shutil.copy(CONFIGS / "acl", folder)
        super().__init__(folder)
        included = folder / "conf.d"
        included.mkdir()
        text = (CONFIGS / "edge-fleet.conf").read_text().replace(INSTALLED, str(folder))
        assert "listener 8883\n" in text
        text = text.replace("listener 8883\n", f"listener {self.port} 127.0.0.1\n")
        (included / "edge-fleet.conf").write_text(text)
        # As Debian's mosquitto.conf has it.
        lines = [
            "persistence true",
            f"persistence_location {folder}/",
            f"include_dir {included}",
        ]
        if os.getuid() == 0:
            lines.append("user root")  # or it could not read this folder
        self._config.write_text("\n".join(lines) + "\n")
        assert MOSQUITTO is not None

    def credentials(self, name: str) -> tuple[Path, Path, Path]:
        """Authority, certificate and key of the operator or a node."""
        return self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def config(self, name: str) -> MqttConfig:
        """How the node `name` connects."""
        authority, cert, key = self.credentials(name)
        return MqttConfig(
            (Broker("localhost", self.port, True),),
            name,
            ca_file=authority,
            cert_file=cert,
            key_file=key,
            batch_ms=20,
            reconnect_min_s=0.05,
            reconnect_max_s=0.5,
        )


def certificate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run configs/mosquitto/certificate in `folder`; CalledProcessError if it refuses."""
    return subprocess.run(
        [CONFIGS / "certificate", *words], cwd=folder, check=True, capture_output=True, text=True
    )
