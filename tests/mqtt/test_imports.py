"""What the link costs before there is anything to connect to."""

import subprocess
import sys

SCRIPT = """
import sys
from edge_agent.config import Broker, MqttConfig
from edge_agent.mqtt.link import Link

config = MqttConfig((Broker("127.0.0.1", 1, False),), "board-7")
link = Link(config, "board-7", "greenhouse", lambda item: {}, dict, dict)
link.report("kept")
link.stop()
print(*sorted({"paho", "ssl", "asyncio", "urllib.request"} & set(sys.modules)))
"""


def test_a_link_that_was_not_started_loads_neither_paho_nor_tls() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
