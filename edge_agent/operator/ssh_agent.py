"""Keys of an ssh-agent, which sign without leaving it.

The agent's protocol is draft-ietf-sshm-ssh-agent; an Ed25519 signature that it makes is that of
RFC 8032 over the bytes themselves (RFC 8709), and one of ECDSA is that of SHA-256 over them (RFC
5656), so nodes see no difference.
"""

import binascii
import os
import socket
import struct
from pathlib import Path

from edge_agent.errors import KeyFormatError, OperatorError
from edge_agent.fleet_protocol.keys import ED25519, P256, SIGNATURE_BYTES, PublicKey, public_key

KINDS = {b"ssh-ed25519": ED25519, b"ecdsa-sha2-nistp256": P256}
TIMEOUT_S = 60.0  # somebody may have to touch a token
MAX_MESSAGE_BYTES = 256 * 1024  # OpenSSH's own

_ASK_IDENTITIES, _IDENTITIES, _ASK_SIGN, _SIGNED = 11, 12, 13, 14


class AgentKey:
    """One key of an agent; signs as edge_agent.fleet_protocol.keys.SigningKey does."""

    def __init__(self, socket_path: str, blob: bytes, public: PublicKey) -> None:
        self.public = public
        self._socket_path = socket_path
        self._blob = blob

    def sign(self, message: bytes) -> bytes:
        """The signature of 64 bytes. OperatorError: the agent or the person refuses."""
        asked = _string(self._blob) + _string(message) + struct.pack(">I", 0)
        kind, body = _ask(self._socket_path, _ASK_SIGN, asked)
        if kind != _SIGNED:
            raise OperatorError(f"the ssh-agent does not sign with {self.public.keyid[:12]}")
        signature, _ = _take(body)
        name, rest = _take(signature)
        found, _ = _take(rest)
        if KINDS.get(name) == P256:
            found = _numbers(found)
        if KINDS.get(name) != self.public.algorithm or len(found) != SIGNATURE_BYTES:
            raise OperatorError(f"the ssh-agent's signature is none of {self.public.algorithm}")
        return found


def signers() -> list[AgentKey]:
    """The keys of the agent at SSH_AUTH_SOCK with an algorithm that nodes know; none without an
    agent. OperatorError."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        return []
    kind, body = _ask(path, _ASK_IDENTITIES, b"")
    if kind != _IDENTITIES or len(body) < 4:
        raise OperatorError(f"{path}: the ssh-agent does not say which keys it has")
    (count,), rest = struct.unpack(">I", body[:4]), body[4:]
    found = []
    for _ in range(min(count, MAX_MESSAGE_BYTES)):
        blob, rest = _take(rest)
        _comment, rest = _take(rest)
        if (public := _public(blob)) is not None:
            found.append(AgentKey(path, blob, public))
    return found


def parse_public(line: str) -> PublicKey:
    """The key in a line of an OpenSSH .pub file. KeyFormatError."""
    words = line.split()
    try:
        blob = binascii.a2b_base64(words[1], strict_mode=True)
        public = _public(blob) if _take(blob)[0] == words[0].encode() else None
    except (ValueError, IndexError, OperatorError):
        public = None
    if public is None:
        raise KeyFormatError(
            "no key of ssh that nodes know, Ed25519 or P-256; make one with: ssh-keygen -t ed25519"
        )
    return public


def _public(blob: bytes) -> PublicKey | None:
    """The key in a blob; None: of an algorithm that nodes do not know."""
    name, rest = _take(blob)
    algorithm = KINDS.get(name)
    if algorithm is None:
        return None
    if algorithm == P256:
        _curve, rest = _take(rest)
    try:
        return public_key(_take(rest)[0], algorithm)
    except KeyFormatError:
        return None


def _numbers(body: bytes) -> bytes:
    """r and s, 32 bytes each, of two mpint (RFC 4251, 5). OperatorError."""
    r, rest = _take(body)
    s, _ = _take(rest)
    return b"".join(each.lstrip(b"\0").rjust(SIGNATURE_BYTES // 2, b"\0") for each in (r, s))


def _ask(path: str, kind: int, body: bytes) -> tuple[int, bytes]:
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(TIMEOUT_S)
            agent.connect(path)
            agent.sendall(struct.pack(">IB", len(body) + 1, kind) + body)
            (size,) = struct.unpack(">I", _read(agent, 4))
            if not 1 <= size <= MAX_MESSAGE_BYTES:
                raise OperatorError(f"{Path(path)}: what answers there is no ssh-agent")
            answer = _read(agent, size)
    except OSError as error:
        raise OperatorError(f"{path}: the ssh-agent cannot be asked: {error}") from error
    return answer[0], answer[1:]


def _read(agent: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = agent.recv(size - len(data))
        if not more:
            raise ConnectionError("it ended the connection")
        data += more
    return data


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """The first string, and the rest. OperatorError: truncated."""
    if len(data) < 4 or len(data) - 4 < (size := struct.unpack(">I", data[:4])[0]):
        raise OperatorError("the ssh-agent's answer is cut")
    return data[4 : 4 + size], data[4 + size :]
