"""A node as the broker sees it: real MQTT, the node's own rules, no containers.

It takes deployments by fleet_protocol's `deployment` and `selection` and says at once that it runs
what they give it, or rejects what it was told not to like.
"""

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent import VERBS
from edge_agent.errors import RefusedError, RequestError
from edge_agent.fleet_protocol import libcrypto, requests, signed_requests, signed_states
from edge_agent.fleet_protocol.deployment import (
    Deployment,
    Offer,
    accept,
    matches,
    message_name,
    wanted,
)
from edge_agent.fleet_protocol.packing import MsgpackPacking, pack_json
from edge_agent.fleet_protocol.reported_state import Refusal
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.fleet_protocol.topics import fleet_topics, node_topics
from edge_agent.fleet_protocol.trust import TrustSet, rotated
from edge_agent.node.actions import Line
from edge_agent.store.catalogue import Known
from edge_agent.store.release import PluginId
from tests.support.wait import TIMEOUT_S, wait_until


class Peer:
    """One node on `port`; a context manager. Its death is its will."""

    def __init__(
        self,
        port: int,
        name: str,
        trust: TrustSet,
        labels: Mapping[str, str] | None = None,
        dislikes: frozenset[str] = frozenset(),
        form: int = 4,
        engine: Mapping[str, str] | None = None,
        architecture: str = "aarch64",
        compiled: str = "refuse",
        seed: bytes | None = None,
    ) -> None:
        """It rejects the versions that it `dislikes`; the others are what it says of itself.

        `seed` is the key that its states are signed with.
        """
        self._seed = seed
        self._number = 0
        self.name = name
        self.deployment: Deployment | None = None
        self.known = Known()
        self._told = (0, 0)  # its order, as far as the broker has taken a state that says so
        self._saying: dict[int, tuple[int, int]] = {}  # the same by packet id, on the way
        self.refused: Refusal | None = None
        self.requests: list[requests.Request] = []
        self._asked: signed_requests.Memory = {}
        self._current: dict[PluginId, Offer] = {}
        self._rejected: dict[str, str] = {}
        self._dislikes = dislikes
        self._form = form
        self._engine = dict(engine or {"name": "wasmtime", "version": "50.0.1"})
        self._architecture = architecture
        self._compiled = compiled
        self._labels = dict(labels or {})
        self._trust = trust
        self._port = port
        self._topics = node_topics(trust.fleet, name)
        self._fleet = fleet_topics(trust.fleet)
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.will_set(self._topics.status, self._status("lost"), qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def die(self) -> None:
        """Without a goodbye."""
        self._client.loop_stop()
        sock = self._client.socket()
        assert sock is not None
        sock.close()

    @property
    def generation(self) -> int:
        return self.deployment.generation if self.deployment else 0

    def runs(self) -> dict[str, str]:
        """Versions by plugin."""
        return {identity: offer.release.version for identity, offer in self._current.items()}

    def config_of(self, identity: str) -> str:
        """What a plugin is configured with."""
        return self._current[PluginId(identity)].release.config

    def wait_for(self, generation: int) -> None:
        """Until it runs what that says, and the broker has its word for it."""
        wait_until(
            lambda: self._told[1] >= generation, f"{self.name} takes generation {generation}"
        )

    def wait_for_order(self, order: tuple[int, int]) -> None:
        """The same by epoch and generation."""
        wait_until(lambda: self._told >= order, f"{self.name} takes {order}")

    def report(self, stream: str, *records: Mapping[str, object]) -> None:
        """One batch of results."""
        packing = MsgpackPacking()
        head = {"version": 1, "node": self.name, "stream": stream}
        payload = packing.batch(head, [packing.pack(record) for record in records])
        sent = self._client.publish(self._topics.results, payload, qos=1)
        sent.wait_for_publish(TIMEOUT_S)
        assert sent.is_published()

    def _on_connect(self, *_: object) -> None:
        self._client.publish(self._topics.status, self._status("online"), qos=1, retain=True)
        self._say_state()
        self._client.subscribe(
            [
                (self._fleet.trust, 1),
                (self._fleet.deployment, 1),
                *((self._topics.request(verb), 1) for verb in VERBS),
            ]
        )

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == self._fleet.deployment:
            self._deploy(bytes(message.payload))
        elif message.topic == self._fleet.trust:
            with suppress(RefusedError):
                self._trust = rotated(bytes(message.payload), self._trust) or self._trust
        else:
            self._answer(message.topic.rpartition("/")[2], bytes(message.payload))

    def _deploy(self, raw: bytes) -> None:
        try:
            deployment = accept(
                raw, fleet=self._trust.fleet, trust=self._trust, known=self.known, clock=0.0
            )
        except RefusedError as error:
            self.refused = {
                "reason": error.reason,
                "text": str(error),
                "count": 1,
                "since": 1_764_000_000,
                "generation": None,
                "message": message_name(raw),
            }
        else:
            self.refused = None
            if deployment is not None:
                self.deployment, self.known = deployment, deployment.known
        self._choose()
        self._say_state()

    def _choose(self) -> None:
        """As fleet/plan does: where no release is left, what runs stays."""
        deployment = self.deployment
        while deployment is not None:
            found = wanted(deployment, self.name, self._labels, self._rejected)
            proven = {each.release.digest for each in self._current.values()}
            bad = {
                offer.release.setup
                if offer.release.digest in proven
                else offer.release.digest: "trap: unreachable"
                for offer in found.values()
                if offer.release.version in self._dislikes
            }
            if not bad:
                for entry in deployment.plugins:
                    if matches(entry, self._labels) and entry.identity in self._current:
                        found.setdefault(entry.identity, self._current[entry.identity])
                self._current = found
                return
            self._rejected |= bad

    def _answer(self, verb: str, payload: bytes) -> None:
        topic = self._topics.response(verb)
        try:
            request = self._read(verb, payload)
        except RequestError as error:
            self._client.publish(
                topic, requests.answer(error.id, verb, "failed", reason=str(error)), qos=1
            )
            return
        self.requests.append(request)
        result = (
            {"lines": [Line(0.0, "info", "20-guard", "hello")._asdict()]}
            if verb == "logs"
            else None
        )
        for state, given in (("accepted", None), ("running", None), ("succeeded", result)):
            answer = requests.answer(request.id, verb, state, result=given)  # type: ignore[arg-type]
            self._client.publish(topic, answer, qos=1)

    def _read(self, verb: str, payload: bytes) -> requests.Request:
        found = requests.read(verb, payload)
        if isinstance(found, requests.Request):
            return found
        to = Addressed(self._trust.fleet, self.name, verb)
        request, self._asked = signed_requests.accept(
            found, to, self._trust.keys, time.time(), self._asked
        )
        return request

    def _say_state(self) -> None:
        self._number += 1
        payload = pack_json(self._state())
        if self._seed is not None:
            signature = libcrypto.sign(self._seed, signed_states.to_sign(payload))
            payload = signed_states.sealed(payload, libcrypto.public_of(self._seed), signature)
        # On the client's own thread, as the answer.
        sent = self._client.publish(self._topics.state, payload, qos=1, retain=True)
        self._saying[sent.mid] = self.known.order

    def _on_publish(self, _client: object, _data: object, packet_id: int, *_: object) -> None:
        self._told = max(self._told, self._saying.pop(packet_id, (0, 0)))

    def _state(self) -> dict[str, Any]:
        return {
            "agent": "0.1.0",
            "node": self.name,
            "session": 1,
            "number": self._number,
            "fleet": self._trust.fleet,
            "architecture": self._architecture,
            "engine": self._engine,
            "labels": self._labels,
            "plugins": [
                {
                    "name": offer.release.name,
                    "index": offer.release.index,
                    "version": offer.release.version,
                    "digest": offer.release.digest,
                    "status": "running",
                    "runtime": "/var/run/nri/nri.sock",
                    "events": 3,
                    **({"mode": "monitor"} if offer.release.settings.monitored else {}),
                }
                for offer in self._current.values()
            ],
            "updates": {
                "generation": self.generation,
                "accepted": self.known.generation,
                "epoch": self.known.epoch,
                "document": self.known.payload_sha256,
                "form": self._form,
                "compiled": self._compiled,
                "refused": self.refused,
                "rejected": self._rejected,
            },
        }

    @staticmethod
    def _status(word: str) -> str:
        return json.dumps({"status": word, "session": 1})
