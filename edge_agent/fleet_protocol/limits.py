"""The sizes that the fleet protocol sets (docs/fleet-protocol.md), each once."""

from edge_agent.store.digest import SHORT_DIGITS

# A whole message but for its topic: a document, an answer, a batch of results, a part of a blob.
# One of this size passes every broker that was looked at (AWS IoT Core: 128 KiB).
MAX_MESSAGE_BYTES = 64 << 10
MAX_REQUEST_BYTES = 4096  # ours: an id, a verb's few arguments, an envelope around them
MIN_PART_BYTES, MAX_PART_BYTES = 256, MAX_MESSAGE_BYTES
# MQTT allows 65,535 bytes; AWS IoT Core, the narrowest of the common brokers, 256.
MAX_TOPIC_BYTES = 256
MAX_CLIENT_ID_CHARS = 23  # that a broker must take, of 0-9 a-z A-Z (MQTT 5, 3.1.3-5)
# Of a digest that had to be cut: "sha256:" and the digits that `edge-agent status` shows.
CUT_DIGEST_CHARS = len("sha256:") + SHORT_DIGITS
