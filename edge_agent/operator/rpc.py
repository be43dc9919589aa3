"""Sends a request to one node, and waits for its answers (fleet_protocol/requests)."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_agent.errors import OperatorError, RequestError
from edge_agent.fleet_protocol import requests, signed_requests
from edge_agent.fleet_protocol.keys import Signer
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.untrusted import UnreadableError, read_object

# A node's clock may be ahead: the request is valid for this much longer than the wait.
SKEW_S = 300.0
FINAL = ("succeeded", "failed")


def ask(
    client: BrokerClient,
    fleet: str,
    node: str,
    verb: str,
    arguments: Mapping[str, object],
    timeout_s: float,
    signers: Sequence[Signer] = (),
) -> Iterator[dict[str, Any]]:
    """Yields each answer: `accepted`, `running`, then `succeeded` or `failed`.

    Without `signers` the request is unsigned, and nodes do little for it. OperatorError: an invalid
    request, or no final answer in time.
    """
    topics = node_topics(fleet, node)
    identity = os.urandom(8).hex()
    try:  # check by the node's own rules before sending
        requests.checked(verb, identity, arguments)
    except RequestError as error:
        raise OperatorError(f"{verb}: {error}") from error
    if signers:
        payload = signed_requests.seal(
            *(Addressed(fleet, node, verb), identity, arguments),
            issued=time.time(),
            valid_s=min(timeout_s + SKEW_S, signed_requests.MAX_VALID_S),
            signers=signers,
        )
    else:
        payload = json.dumps({"id": identity, "arguments": dict(arguments)}).encode()
    deadline = time.monotonic() + timeout_s
    last = "nothing"
    with client.subscribed((topics.response(verb),)) as subscription:
        client.publish(topics.request(verb), payload, retain=False)
        while (left := deadline - time.monotonic()) > 0:
            message = subscription.take(left)
            answer = read_answer(message.payload, identity) if message else None
            if answer is not None:
                last = str(answer.get("state"))
                yield answer
                if last in FINAL:
                    return
    raise OperatorError(
        f"{node}: no final answer to {verb} within {timeout_s:g} s (last: {last}); is it online?"
        f" `edge-agent fleet node {node}`"
    )


def read_answer(payload: bytes, identity: str) -> dict[str, Any] | None:
    """An answer to the request with this id; None for anything else."""
    try:
        answer = read_object(payload)
    except UnreadableError:
        return None  # not an answer to this request: its id cannot be read
    return answer if answer.get("id") == identity else None
