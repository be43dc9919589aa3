"""A link that reports without pause: `python -m tests.mqtt.streamer PORT STATE FIRST VERSION`.

Prints the number of the last item that is kept, which means: on disk. To be killed.
"""

import sys
import time
from pathlib import Path

from paho.mqtt.enums import MQTTProtocolVersion

from edge_agent.mqtt import connection
from tests.mqtt.harness import config_for, running

if __name__ == "__main__":
    port, state_dir, first, version = sys.argv[1:]
    if version == "3.1.1":
        setattr(connection, "VERSIONS", (MQTTProtocolVersion.MQTTv311,))  # noqa: B010
    with running(config_for(int(port)), state_dir=Path(state_dir)) as link:
        outbox = link._outgoing.results.outbox
        number = int(first)
        while True:
            for _ in range(50):
                link.report(number, important=number % 97 == 0)
                number += 1
            while outbox.unkept:
                time.sleep(0.005)
            if not outbox.disk_trouble:
                print(number - 1, flush=True)
