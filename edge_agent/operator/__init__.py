"""The fleet operator's side: publish plugins, sign deployments, watch what nodes say.

Usable without the command line: nothing here prints, asks, or imports argparse or rich.
`edge-agent run` loads none of it.
"""

from edge_agent.lazy_import import import_later

# paho imports it for websockets, which no fleet uses; with http, email and ssl it is a fifth of the
# start of each command.
import_later("urllib.request")
