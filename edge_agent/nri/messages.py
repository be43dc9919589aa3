"""The bodies of ttRPC messages: which service and method, a payload or a status.

A payload is opaque here. What is decoded from the peer's bytes goes through `decode`,
which knows how each protobuf backend complains.
"""

from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from edge_agent import wire
from edge_agent.errors import GuestFault, ProtocolError
from edge_agent.nri import events
from edge_agent.pb import nri_pb2, ttrpc_pb2

MAX_STATUS_TEXT = 2048  # ours: what a person reads in an event of the orchestrator

# What is left for a reply: a response adds a tag and a length of four bytes.
MAX_REPLY_BYTES = wire.MAX_MESSAGE_BYTES - 5

DECODE_ERRORS = (DecodeError, UnicodeDecodeError)  # the latter: protobuf's pure Python

EMPTY = b""  # a response without status and payload

_PAYLOAD = b"\x12"  # field 2 of Response, a length and bytes follow

M = TypeVar("M", bound=Message)


def message_type(export: str, event: str) -> Any:
    """The request message behind an export of the guest ABI."""
    if export == events.EXPORTS[events.STATE_CHANGE]:
        return nri_pb2.StateChangeEvent
    return getattr(nri_pb2, f"{event}Request")


def decode(what: str, kind: type[M], body: bytes) -> M:
    """A message of the peer. ProtocolError: it is none.

    Never parse into a message that is kept: upb frees what a message ever held only
    together with the message, so an event's bytes would stay for the session's life.
    """
    try:
        return kind.FromString(body)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"{what}: bytes that are no {kind.__name__}") from error


def request(service: str, method: str, payload: bytes) -> bytes:
    """The body of a request. GuestFault: a guest's payload that no message can carry."""
    body = ttrpc_pb2.Request(service=service, method=method, payload=payload)
    return _bounded(method, body.SerializeToString())


def reply(payload: bytes) -> bytes:
    """The body of a response. GuestFault: a guest's reply that no message can carry."""
    if not payload:
        return EMPTY
    # Written out: this is the hot path, and building a message takes three times as long.
    return _bounded("reply", _PAYLOAD + _varint(len(payload)) + payload)


def status(code: int, text: str) -> bytes:
    """The body of a response that refuses, with a google.rpc.Code and a text for people."""
    readable = text[:MAX_STATUS_TEXT].encode(errors="replace").decode()  # no lone surrogates
    refusal = ttrpc_pb2.Status(code=code, message=readable)
    return ttrpc_pb2.Response(status=refusal).SerializeToString()


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    return bytes((value & 0x7F | 0x80,)) + _varint(value >> 7)


def _bounded(what: str, body: bytes) -> bytes:
    if len(body) > wire.MAX_MESSAGE_BYTES:
        raise GuestFault(
            "abi",
            f"its {what} is {len(body)} bytes with envelope; ttRPC has {wire.MAX_MESSAGE_BYTES}",
        )
    return body
