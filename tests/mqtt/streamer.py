"""A link that reports without pause, for a process of its own that is killed:

    python -m tests.mqtt.streamer PORT STATE FIRST VERSION DURABILITY

Prints the number of the last item that is kept, which means: on disk, or acknowledged.
"""

import sys
import time
from pathlib import Path

from paho.mqtt.enums import MQTTProtocolVersion

from edge_agent.mqtt import connection
from tests.mqtt.harness import config_for, running

if __name__ == "__main__":
    port, state_dir, first, version, durability = sys.argv[1:]
    if version == "3.1.1":
        setattr(connection, "VERSIONS", (MQTTProtocolVersion.MQTTv311,))  # noqa: B010
    config = config_for(int(port), durability=durability)
    with running(config, state_dir=Path(state_dir)) as link:
        outbox = link.outbound.results.outbox
        number = int(first)
        while True:
            for _ in range(50):
                link.report(number, important=number % 97 == 0)
                number += 1
            while outbox.unkept:
                time.sleep(0.005)
            if not outbox.disk_trouble:
                print(number - 1, flush=True)
