"""A process with a link, to be killed: `python -m tests.mqtt.agent PORT`."""

import signal
import sys

from tests.mqtt.harness import config_for, running

if __name__ == "__main__":
    with running(config_for(int(sys.argv[1]))):
        signal.pause()
