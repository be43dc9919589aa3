"""What an operator is told when a connection ends."""

import pytest

from edge_agent.mqtt.client import ended, left, refused


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (refused("Not authorized"), "access list"),
        (refused("Bad user name or password"), "password_file"),
        (refused("Server busy"), "refuses the connection: Server busy"),
        (left("it floods"), "disconnected from the broker: it floods"),
        (ended("Session taken over", accepted=True, said=True), "another client uses this"),
        (ended("Protocol error", accepted=True, said=True), "ended the connection: Protocol"),
        (ended("Protocol error", accepted=False, said=False), "its answer is not MQTT"),
        (ended("Keep alive timeout", accepted=True, said=False), "stopped answering"),
        (ended("Unspecified error", accepted=True, said=False), "without a reason"),
        (ended("Unspecified error", accepted=False, said=False), "is TLS wanted there"),
    ],
)
def test_each_end_says_what_happened_and_what_to_do(told: str, words: str) -> None:
    assert words in told
