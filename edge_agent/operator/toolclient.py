"""The operator's MQTT client with bounds: what a broker can cost a tool is memory for its answers.

A tool reads as fast as it can and asks for much, so it counts no packets as a node does
(mqtt/bounded_client); it bounds how large each is, which kinds there are, and what the broker
leaves unread.
"""

from paho.mqtt.enums import MQTTErrorCode

from edge_agent.mqtt.bounded_client import BoundedClient

# Of one message to us; the largest of the fleet are a deployment and a part, with 64 KiB each.
MAX_PACKET_BYTES = 1 << 20
# An answer to a subscription has a byte for each of some hundred topics, and perhaps reasons.
MAX_ANSWER_BYTES = 64 << 10
# Acknowledgements that the broker has not read yet: more than all that one client may be sent
# without any (65,535), with 100 bytes each.
MAX_OWED_PACKETS = 100_000


class ToolClient(BoundedClient):
    """After anything that no broker of MQTT does, `last_error` says what it was."""

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
            self.last_error = "it reads no acknowledgements"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return super()._packet_handle()

    def _handle_connack(self) -> MQTTErrorCode:
        if self._accepted:
            self.last_error = "it accepts a connection that it has accepted"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        found = super()._handle_connack()
        self._accepted = found == MQTTErrorCode.MQTT_ERR_SUCCESS
        return found
