"""A runtime and a broker for an agent whose instructions are counted; nobody counts theirs.

python -m scripts.benchmarks.counted_peer SOCKET     `broker PORT` is the first line it prints
plugin                                               `done` once a plugin is there
events 100                                           `done` after so many containers
"""

import sys
from pathlib import Path

from edge_agent.sim.broker import Broker
from edge_agent.sim.nri_service import NriService
from scripts.benchmarks import guests

WAIT_S = 600.0  # valgrind makes everything some 50 times slower, and the machine may be busy


def main(socket: str) -> None:
    """Serve until stdin ends."""
    request = guests.request()
    with Broker() as broker, NriService(Path(socket), request_timeout_s=WAIT_S) as runtime:
        print(f"broker {broker.port}", flush=True)
        for line in sys.stdin:
            [plugin] = runtime.wait_for_plugins(1, WAIT_S)
            for _ in range(int(line.removeprefix("events ")) if line != "plugin\n" else 0):
                reply = plugin.connection.call("CreateContainer", request, WAIT_S)
                if reply.code:
                    raise RuntimeError(f"the plugin fails: {reply.text}")
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
