"""A link with short waits, and what to give it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.config import Broker, MqttConfig
from edge_agent.mqtt.inbound import Received
from edge_agent.mqtt.link import STOP_TIMEOUT_S, Link
from tests.support.wait import wait_until

NODE, FLEET = "board-7", "greenhouse"
TOPIC = f"edge/v1/{FLEET}/nodes/{NODE}"


def config_for(*ports: int, tls: bool = False, **changes: Any) -> MqttConfig:
    """For brokers on these loopback ports, with waits that suit a test."""
    brokers = tuple(Broker("127.0.0.1", port, tls) for port in ports)
    quick = MqttConfig(brokers, NODE, batch_ms=20, reconnect_min_s=0.05, reconnect_max_s=0.5)
    return replace(quick, **changes)


def describe(item: object) -> Mapping[str, object]:
    """The record of an item."""
    return {"item": item}


@contextmanager
def running(
    config: MqttConfig,
    state: Callable[[], Mapping[str, object]] = lambda: {"plugins": []},
    metrics: Callable[[], Mapping[str, object]] = lambda: {"events": 3},
    stop_s: float = STOP_TIMEOUT_S,
    received: Received | None = None,
    subscribed: Iterable[str] = (),
    state_dir: Path | None = None,
) -> Iterator[Link]:
    """A started link, stopped at the end."""
    link = Link(
        config, NODE, FLEET, describe, state, metrics, received=received, state_dir=state_dir
    )
    if received is not None:
        link.subscribe(subscribed)
    link.start()
    try:
        yield link
    finally:
        link.stop(stop_s)


def wait_for_error(link: Link, *words: str) -> None:
    """Wait until the link's last error holds all the words."""
    wait_until(
        lambda: all(word in str(link.status()["last_error"]) for word in words),
        f"the error says {words}",
    )


def wait_until_connected(link: Link) -> None:
    """Wait for the broker's CONNACK."""
    wait_until(lambda: link.status()["state"] == "connected", "the link is connected")


def wait_until_subscribed(link: Link) -> None:
    """Wait until the broker has heard of what was subscribed to: it takes a result sent later."""
    before = link.status()["sent"]
    link.report("subscribed")
    wait_until(lambda: link.status()["sent"] > before, "the broker takes what was sent later")
