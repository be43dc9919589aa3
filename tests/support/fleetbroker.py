"""A real mosquitto set up for a fleet by exactly the files of configs/mosquitto.

Only the folder of the certificates and the port differ from what an operator installs.
"""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import Broker, MqttConfig
from tests.support.mosquitto import MOSQUITTO, Mosquitto
from tests.support.names import require_localhost
from tests.support.ports import free_port
from tests.support.wait import TIMEOUT_S, wait_until

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mosquitto"
INSTALLED = "/etc/mosquitto/edge-fleet"
FLEET = "default"  # which the access list is written for
PATIENCE_S = TIMEOUT_S


class FleetBroker(Mosquitto):
    """A context manager; `folder` holds certificates for the operator and `nodes`.

    Nodes connect to `port`, operators to `operators_port`.
    """

    def __init__(self, folder: Path, *nodes: str) -> None:
        require_localhost()
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
        self.operators_port = free_port()
        for installed, port in ((8883, self.port), (8884, self.operators_port)):
            assert f"listener {installed}\n" in text
            text = text.replace(f"listener {installed}\n", f"listener {port} 127.0.0.1\n")
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

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self.operators_port)

    def credentials(self, name: str) -> tuple[Path, Path, Path]:
        """Authority, certificate and key of the operator or a node."""
        return self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def port_of(self, name: str) -> int:
        """Where the operator or a node connects."""
        return self.operators_port if name == "operator" else self.port

    def handshake(self, name: str, port: int | None = None) -> None:
        """ssl.SSLError or ConnectionError unless the broker takes the certificate of `name`."""
        handshake(port or self.port_of(name), tls(*self.credentials(name)))

    def config(self, name: str) -> MqttConfig:
        """How the operator or a node connects."""
        authority, cert, key = self.credentials(name)
        return MqttConfig(
            (Broker("localhost", self.port_of(name), True),),
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


class Peer:
    """One MQTT 5 client with the certificate of `name`; says what the broker answered.

    A second one of a node ends the first: the broker makes the client id of the certificate.
    """

    def __init__(
        self,
        broker: FleetBroker,
        name: str,
        client_id: str = "",
        will: tuple[str, bytes] = ("", b""),
        keep_s: int = 0,
        heard: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """With `keep_s` the broker keeps the session, and what comes meanwhile, for so long.

        Messages are kept in `messages`, or go to `heard`, in a thread of the client's.
        """
        self.messages: list[tuple[str, bytes]] = []
        take = heard or (lambda topic, payload: self.messages.append((topic, payload)))
        self.disconnects = 0
        self._answers: dict[int, ReasonCode] = {}
        self._answered = threading.Condition()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"{name}-{time.monotonic_ns()}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        self.client.tls_set_context(tls(*broker.credentials(name)))
        self.client.on_disconnect = self._on_disconnect
        if will[0]:
            self.client.will_set(*will, qos=1)
        self.client.on_message = lambda _c, _u, m: take(m.topic, bytes(m.payload))
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self._answer(mid, reason)
        self.client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._answer(mid, reasons[0])
        properties = Properties(1)  # type: ignore[no-untyped-call]  # CONNECT
        properties.SessionExpiryInterval = keep_s
        self.client.connect(
            "localhost", broker.port_of(name), clean_start=not keep_s, properties=properties
        )
        self.client.loop_start()
        wait_until(self.client.is_connected, f"{name} is connected")

    def _on_disconnect(self, *_: object) -> None:
        self.disconnects += 1

    def _answer(self, mid: int, reason: ReasonCode) -> None:
        with self._answered:
            self._answers[mid] = reason
            self._answered.notify_all()

    def _wait(self, mid: int) -> str:
        with self._answered:
            assert self._answered.wait_for(lambda: mid in self._answers, PATIENCE_S)
            return str(self._answers[mid])

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> str:
        """The broker's reason."""
        return self._wait(self.client.publish(topic, payload, qos=1, retain=retain).mid)

    def may_write(self, topic: str) -> bool:
        reason = self.publish(topic)
        assert reason in ("Success", "No matching subscribers", "Not authorized")
        return reason != "Not authorized"

    def subscribe(self, topic: str) -> None:
        mid = self.client.subscribe(topic, qos=1)[1]
        assert mid is not None
        self._wait(mid)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def handshake(port: int, context: ssl.SSLContext) -> None:
    """ssl.SSLError or ConnectionError unless a broker takes the client's certificate."""
    with (
        socket.create_connection(("localhost", port), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x0a\x00\x02hi")  # CONNECT
        if not connection.recv(4):  # with TLS 1.3 a refusal comes with the first read
            raise ConnectionError("closed by the broker")


def tls(authority: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
