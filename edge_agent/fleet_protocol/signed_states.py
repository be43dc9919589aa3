"""The state of a node, signed by the node's own key (docs/fleet-protocol.md). Pure.

    {"session": 7, "number": 3, "time": 1795600000, "fleet": "greenhouse", "node": "board-7", ...,
     "signed": {"key": "<base64 of 32 bytes>", "sig": "<base64 of 64 bytes>"}}

`signed` is the last member of the message, and what is signed are the bytes before it: nothing is
told twice, there is no canonical form to compute, and a reader of before passes over the member.
The key in it proves nothing; it lets an operator see a key that is to be enrolled. Which key
counts, the operator's folder says.
"""

import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.errors import CryptoError
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.envelope import pae
from edge_agent.fleet_protocol.keys import PublicKey

PAYLOAD_TYPE = "application/vnd.edge-agent.state+json"
SIGNED_BYTES = 200  # what `sealed` adds, at most
# A key and a signature of algorithms to come are larger (ML-DSA-65: 1952 and 3309 bytes).
_MEMBER = re.compile(
    rb',"signed":\{(?:"algorithm":"(?P<algorithm>[a-z0-9._-]{1,64})",)?'
    rb'"key":"(?P<key>[A-Za-z0-9+/]{1,8192}={0,2})","sig":"(?P<sig>[A-Za-z0-9+/]{1,8192}={0,2})"\}\}'
)
_BEGINS = b',"signed":{'


class UnprovenError(ValueError):
    """Why a state is not the word of the node whose key is known; `reason` is the protocol's word
    for it (docs/fleet-protocol.md)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SignedState(NamedTuple):
    """A message taken apart. Nothing in it is to be believed before `check`."""

    document: bytes  # the state without `signed`, which is what was signed
    algorithm: str
    key: bytes
    signature: bytes

    @property
    def public(self) -> PublicKey | None:
        """The key that the message names; None: none that is known here."""
        if self.algorithm != keys.ED25519 or len(self.key) != keys.KEY_BYTES:
            return None
        return keys.public_key(self.key)

    def check(self, key: PublicKey, payload_type: str = PAYLOAD_TYPE) -> None:
        """UnprovenError unless the owner of `key` signed it, as a message of this type."""
        if self.algorithm != key.algorithm:
            raise UnprovenError(
                "algorithm", f"it is signed by {self.algorithm}, its key is one of {key.algorithm}"
            )
        if self.key != key.raw:
            raise UnprovenError("key", "it is signed by another key than the enrolled one")
        try:
            good = keys.verify(key, to_sign(self.document, payload_type), self.signature)
        except CryptoError as error:
            raise UnprovenError("algorithm", f"it cannot be checked here: {error}") from None
        if not good:
            raise UnprovenError("signature", "its signature is wrong")


def check(
    message: bytes, values: Mapping[str, object], key: PublicKey, fleet: str, node: str
) -> tuple[int, int]:
    """Session and number of a state by the owner of `key`; a later state has higher ones.

    `values` are the message's. UnprovenError. Its time is not looked at: many boards have no clock.
    """
    read(message).check(key)
    for name, wanted in (("fleet", fleet), ("node", node)):
        if values.get(name) != wanted:
            told = ascii(values.get(name))[:80]
            raise UnprovenError(name, f"it is signed for the {name} {told}, not for {wanted}")
    session, number = values.get("session"), values.get("number")
    if type(session) is not int or type(number) is not int:
        raise UnprovenError("form", "it is signed without its session and number")
    return session, number


def sealed(document: bytes, public: bytes, signature: bytes) -> bytes:
    """The message of a JSON object in bytes, by Ed25519. `to_sign` says what is signed."""
    member = b'%b"key":"%b","sig":"%b"}}' % (_BEGINS, _base64(public), _base64(signature))
    return document.removesuffix(b"}") + member


def to_sign(document: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """What the signature of this JSON object covers."""
    return pae(payload_type, document)


def read(message: bytes) -> SignedState:
    """Take a message apart. UnprovenError: it is not signed, or not so that it can be read."""
    at = message.rfind(_BEGINS)
    if at < 0:
        raise UnprovenError("unsigned", "it is not signed")
    found = _MEMBER.fullmatch(message, at)
    if found is None:
        raise UnprovenError("form", "its signature cannot be read")
    try:
        key, signature = (
            binascii.a2b_base64(found[name], strict_mode=True) for name in ("key", "sig")
        )
    except binascii.Error:
        raise UnprovenError("form", "its signature cannot be read") from None
    algorithm = (found["algorithm"] or keys.ED25519.encode()).decode()
    return SignedState(message[:at] + b"}", algorithm, key, signature)


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
