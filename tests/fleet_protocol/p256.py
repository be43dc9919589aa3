"""ECDSA on P-256, written down as the standard has it (SEC 1, 4.1.3): signs for tests, the same
signature each time. Shares nothing with what checks (OpenSSL)."""

import hashlib

from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.keys import P256, PublicKey

# SEC 2, 2.4.2
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
A = P - 3
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

Point = tuple[int, int] | None


def added(one: Point, other: Point) -> Point:
    """The sum of two points; None is that at infinity."""
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 + A) * pow(2 * one[1], -1, P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope**2 - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def times(number: int, point: Point) -> Point:
    """The point so many times."""
    result: Point = None
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    return result


class P256Key:
    """A private key that signs as edge_agent.fleet_protocol.keys.SigningKey does."""

    def __init__(self, secret: int) -> None:
        point = times(secret, G)
        assert point is not None
        self._secret = secret
        raw = b"\4" + b"".join(each.to_bytes(32, "big") for each in point)
        self.public: PublicKey = keys.public_key(raw, P256)

    def sign(self, message: bytes) -> bytes:
        """r and s; the number that must be used once follows from the message and the key."""
        digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
        seed = self._secret.to_bytes(32, "big") + digest.to_bytes(32, "big")
        once = int.from_bytes(hashlib.sha256(seed).digest(), "big") % N
        point = times(once, G)
        assert point is not None
        r = point[0] % N
        s = pow(once, -1, N) * (digest + r * self._secret) % N
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


P256_KEYS = tuple(P256Key(number) for number in (1 << 200, (1 << 201) + 7))
