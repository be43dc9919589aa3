"""A recording of events that one node makes and sends (docs/fleet-protocol.md, "A recording")."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import recorded_parts
from edge_agent.fleet_protocol.keys import Signer
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.enrolment import Enrolment
from edge_agent.operator.inbox import answers

VERB = "record"


class Recording(NamedTuple):
    """A file as the node made it, not looked into yet."""

    data: bytes
    proven: bool  # signed by the key of the enrolled node


def fetch(
    client: BrokerClient,
    enrolment: Enrolment,
    fleet: str,
    node: str,
    arguments: Mapping[str, object],
    timeout_s: float,
    signers: Sequence[Signer],
    told: Callable[[dict[str, Any]], None] = lambda _answer: None,
) -> Recording | None:
    """Ask a node to record, and gather the parts; None: it failed. `told` gets the answers that
    are no parts.

    OperatorError: no final answer in time, parts are missing or wrong, or the node is enrolled
    and did not sign.
    """
    gathered = recorded_parts.Gathered()
    key = enrolment.keys.get(node)
    for raw, answer in answers(client, fleet, node, VERB, arguments, timeout_s, signers):
        state, result = answer.get("state"), answer.get("result")
        try:
            if state == "running" and isinstance(result, Mapping):
                gathered.take(result)
                continue
            if state == "succeeded":
                gathered.end(result)
                data = gathered.joined()
                if key is not None:
                    recorded_parts.check(raw, answer, key, fleet, node)
        except UnprovenError as error:
            raise OperatorError(
                f"{node} is enrolled, and this recording is not proven to be its own: {error}"
                f" ({error.reason})"
            ) from error
        except ValueError as error:
            raise OperatorError(f"{node}: {error}") from error
        told(answer)
        if state == "succeeded":
            return Recording(data, key is not None)
    return None
