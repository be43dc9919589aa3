"""`edge-agent` whose tools wait for a broker for seconds where they would for a minute."""

import sys

from edge_agent.__main__ import main
from edge_agent.operator import broker, brokercheck, deploy, inbox

broker.ANSWER_TIMEOUT_S = 6.0
broker.CONNECT_TIMEOUT_S = 4.0
broker.MARK_TIMEOUT_S = 4.0
broker.LISTING_TIMEOUT_S = 15.0
brokercheck.WAIT_S = 1.0
deploy.ECHO_TIMEOUT_S = 5.0
inbox.READING_S = 10.0

if __name__ == "__main__":
    sys.exit(main())
