"""The operator's MQTT client with bounds on what a broker can send.

A tool reads as fast as it can and asks for much, so unlike a node (mqtt/bounded_client) it does not
limit the number of packets. It bounds their size and kinds, and the acknowledgements that the
broker does not read.
"""

import os
from dataclasses import replace

from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.bounded_client import BoundedClient
from edge_agent.mqtt.tls import tls_context

# Of one received message; the fleet's largest are a deployment and a part, with 64 KiB each.
MAX_PACKET_BYTES = 1 << 20
# An answer to a subscription has a byte for each of some hundred topics, and perhaps reasons.
MAX_ANSWER_BYTES = 64 << 10
# Acknowledgements that the broker has not read yet: more than all that one client may be sent
# without any (65,535), with 100 bytes each.
MAX_OWED_PACKETS = 100_000

_HINTS = {
    "Bad user name or password": ": check username and password_file in fleet.toml",
    "Not authorized": (
        ": check username, password_file and cert_file in fleet.toml, and the broker's access list"
    ),
}


class ToolClient(BoundedClient):
    """After a violation of MQTT by the broker, `last_error` describes it."""

    max_answer_bytes = MAX_ANSWER_BYTES
    max_publish_bytes = MAX_PACKET_BYTES
    skipped = 0  # messages that were too large for us, of brokers that could not be told

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.too_large = self._too_large
        self._accepted = False

    def _too_large(self, _topic: str, _size: int) -> str:
        self.skipped += 1
        return ""

    def reconnect(self) -> MQTTErrorCode:
        self.last_error, self._accepted = "", False
        return super().reconnect()

    def _packet_handle(self) -> MQTTErrorCode:
        self.credit += 1  # packets are not counted
        if len(self._out_packet) > MAX_OWED_PACKETS:
            self.last_error = "it does not read acknowledgements"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return super()._packet_handle()

    def _handle_connack(self) -> MQTTErrorCode:
        if self._accepted:
            self.last_error = "it accepts the same connection twice"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        found = super()._handle_connack()
        self._accepted = found == MQTTErrorCode.MQTT_ERR_SUCCESS
        return found


def tool_client(
    config: MqttConfig, version: MQTTProtocolVersion, *, tls: bool, clean: bool
) -> ToolClient:
    """A client that is not connected; `clean`: the broker keeps no session. LinkError."""
    client = ToolClient(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id,
        clean_session=None if version == MQTTProtocolVersion.MQTTv5 else clean,
        protocol=version,
        # Until the broker has accepted it once: a refusal ends the attempt.
        reconnect_on_failure=False,
    )
    if config.username is not None:
        client.username_pw_set(config.username, _password(config))
    if tls:
        client.tls_set_context(tls_context(config))
    return client


def _password(config: MqttConfig) -> str | None:
    path = config.password_file
    if path is None:
        return None
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise LinkError(f"password_file {path}: {error}") from error


def client_id() -> str:
    """An id that no other client has; every broker takes 23 letters and digits."""
    return f"edgeop{os.urandom(8).hex()}"


def with_client_id(mqtt: MqttConfig, name: str) -> MqttConfig:
    """The same broker under another client id, for a session that the broker keeps."""
    return replace(mqtt, client_id=name)


def hint(reason: str) -> str:
    """What to check after a refusal of the broker, or ""."""
    return _HINTS.get(reason, "")
