"""The keys of enrolled nodes, in the fleet's folder.

    # nodes.toml
    [keys]
    "board-1" = "ed25519:<base64 of 32 bytes>"

The keys come from the boards by another way than the broker, or a person compared their ids. A
state of an enrolled node counts if its key signed it (docs/fleet-protocol.md, "Signed states").
"""

import binascii
import json
import re
import tomllib
from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.config.agent import NAME_PATTERN
from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet_protocol import signed_states
from edge_agent.fleet_protocol.keys import ED25519, PublicKey, public_key
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.untrusted import read_object

MAX_FILE_BYTES = 16 << 20  # of 100,000 nodes: 10 MB
_HEAD = """\
# The keys of enrolled nodes, by name. Written by `edge-agent fleet enrol`; no secret.
[keys]
"""


class Enrolment(NamedTuple):
    """`strict`: states of nodes that are not enrolled do not advance a rollout."""

    fleet: str = ""
    keys: Mapping[str, PublicKey] = {}
    strict: bool = False


NOBODY = Enrolment()


def of_fleet(folder: FleetFolder) -> Enrolment:
    """The enrolment in nodes.toml and fleet.toml. ConfigError, OperatorError."""
    settings, keys = folder.settings(), load(folder)
    required = settings.require_signed_states
    # An operator who enrols nodes wants proof; without enrolled nodes no rollout could advance.
    strict = bool(keys) if required is None else required
    return Enrolment(settings.name, keys, strict)


def load(folder: FleetFolder) -> dict[str, PublicKey]:
    """The keys by node. OperatorError."""
    path = folder.nodes_file
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise OperatorError(f"{path}: more than {MAX_FILE_BYTES} bytes")
        values = tomllib.loads(raw.decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"{path}: no TOML: {error}") from error
    keys = values.get("keys", {})
    if not isinstance(keys, dict):
        raise OperatorError(f"{path}: [keys] must be a table of node names and keys")
    found = {}
    for name, text in keys.items():
        if not re.fullmatch(NAME_PATTERN, name):
            raise OperatorError(f"{path}: {ascii(name)[:80]} is no node's name")
        try:
            found[name] = _parse(text)
        except KeyFormatError as error:
            raise OperatorError(f"{path}: {name}: {error}") from None
    return found


def save(folder: FleetFolder, keys: Mapping[str, PublicKey]) -> None:
    """Write nodes.toml. OperatorError."""
    lines = [
        f"{json.dumps(name)} = {json.dumps(_written(key))}\n" for name, key in sorted(keys.items())
    ]
    folder.write(folder.nodes_file, _HEAD + "".join(lines))


def check_key(key: PublicKey) -> None:
    """OperatorError for a key of an algorithm that no node uses."""
    if key.algorithm != ED25519:
        raise OperatorError(f"a key of {key.algorithm}; nodes sign with {ED25519}")


def key_in(message: bytes, fleet: str, node: str) -> PublicKey:
    """The key in a node's state, if that key signed the state. OperatorError."""
    try:
        public = signed_states.read(message).public
        if public is None:
            raise UnprovenError("algorithm", "it is signed by an algorithm that is not known here")
        signed_states.check(message, read_object(message), public, fleet, node)
    except ValueError as error:
        raise OperatorError(f"the state of {node} gives no key: {error}") from None
    return public


def _parse(text: object) -> PublicKey:
    algorithm, colon, body = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon:
        raise KeyFormatError('a key is written "ed25519:..."')
    if algorithm != ED25519:
        raise KeyFormatError(f"a key of {ascii(algorithm)[:80]}, which is not known here")
    try:
        return public_key(binascii.a2b_base64(body, strict_mode=True))
    except ValueError as error:
        raise KeyFormatError(f"no base64: {error}") from None


def _written(key: PublicKey) -> str:
    return f"{key.algorithm}:{binascii.b2a_base64(key.raw, newline=False).decode()}"
