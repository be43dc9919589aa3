"""The least that a plugin in Python can do: floor.c once more, in the interpreter of the agent.

    floor.py SOCKET REGISTER CONFIGURED CREATED

One recv, one sendmsg, a constant answer; arguments and frames as in floor.c. What lies between both
is Python's; what the agent takes above this one is its own. What is not as expected ends the
program.
"""

import socket
import struct
import sys

FRAME, HEADER = struct.Struct(">II"), struct.Struct(">IIBB")
PLUGIN, RUNTIME = 1, 2  # connections of the mux
REQUEST, RESPONSE = 1, 2  # types of ttRPC
RECEIVED = 64 << 10  # bytes at most, of one recv


def main(path: str, *bodies: str) -> None:
    """Serve until the runtime hangs up."""
    registered, configured, created = map(bytes.fromhex, bodies)
    runtime = socket.socket(socket.AF_UNIX)
    runtime.connect(path)

    def send(connection: int, stream: int, kind: int, body: bytes) -> None:
        head = FRAME.pack(connection, HEADER.size) + HEADER.pack(len(body), stream, kind, 0)
        whole = (head, FRAME.pack(connection, len(body)), body) if body else (head,)
        runtime.sendmsg(whole)

    send(RUNTIME, 1, REQUEST, registered)
    arriving = {PLUGIN: b"", RUNTIME: b""}
    have = b""
    while got := runtime.recv(RECEIVED):
        have += got
        while len(have) >= FRAME.size:
            connection, size = FRAME.unpack_from(have)
            end = FRAME.size + size
            if len(have) < end:
                break
            message = arriving[connection] + have[FRAME.size : end]
            have = have[end:]
            if len(message) >= HEADER.size:
                length, stream, kind, _ = HEADER.unpack_from(message)
                if len(message) >= HEADER.size + length:
                    if connection == PLUGIN and kind == REQUEST:
                        # ttRPC's Request begins with the service, then the method.
                        if b"\x12\x0fCreateContainer" in message[:64]:
                            answer = created
                        elif b"\x12\x09Configure" in message[:64]:
                            answer = configured
                        else:
                            answer = b""
                        send(PLUGIN, stream, RESPONSE, answer)
                    message = message[HEADER.size + length :]
            arriving[connection] = message


if __name__ == "__main__":
    main(*sys.argv[1:])
