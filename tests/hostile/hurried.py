"""`edge-agent` whose tools wait for a broker for seconds where they would for a minute."""

import sys

from edge_agent.__main__ import main
from edge_agent.operator import broker, broker_check, broker_connection, deploy, inbox, tool_client

broker_connection.ANSWER_TIMEOUT_S = 6.0
broker_connection.CONNECT_TIMEOUT_S = 4.0
broker.MARK_TIMEOUT_S = 4.0
tool_client.LISTING_TIMEOUT_S = 15.0
broker_check.WAIT_S = 1.0
broker_check.SESSION_WAIT_S = 2.0
deploy.ECHO_TIMEOUT_S = 5.0
deploy.SETTLE_S = 3.0
inbox.READING_S = 10.0

if __name__ == "__main__":
    sys.exit(main())
