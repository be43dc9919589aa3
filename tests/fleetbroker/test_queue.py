"""What configs/mosquitto keeps for an operator who is away: what docs/fleet.md promises."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleetbroker import FLEET, FleetBroker, Peer
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [needs_mosquitto, needs_openssl]

BATCHES = 1000
BATCH_BYTES = 38_000  # 100 records of some 380 bytes


def test_a_thousand_batches_wait_for_who_is_away(tmp_path: Path) -> None:
    topic = f"edge/v1/{FLEET}/nodes/alice/results"
    with FleetBroker(tmp_path, "alice") as broker:
        reader = Peer(broker, "operator", client_id="edgein1", keep_s=3600)
        reader.subscribe(f"edge/v1/{FLEET}/nodes/+/results")
        reader.close()
        alice = Peer(broker, "alice")
        for number in range(BATCHES):
            payload = b"%06d" % number + bytes(BATCH_BYTES)
            assert alice.publish(topic, payload) == "Success"
        alice.close()
        reader = Peer(broker, "operator", client_id="edgein1", keep_s=3600)
        wait_until(lambda: len(reader.messages) >= BATCHES, "all are there")
        numbers = [int(payload[:6]) for _, payload in reader.messages]
        assert numbers == list(range(BATCHES))
        reader.close()
