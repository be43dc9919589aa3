"""`edge-agent fleet console`: the fleet in a browser, on this machine alone."""

import argparse
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager

from edge_agent.cli import OK
from edge_agent.cli.fleet_output import line, show_json
from edge_agent.errors import OperatorError
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.folder import find
from edge_agent.operator.keyring import Keyring

HOST = "127.0.0.1"
MAX_CONNECTIONS = 200
LAST_ANSWERS_S = 2  # at the end, for pages that are being sent


def console(arguments: argparse.Namespace) -> int:
    """Serve the pages until interrupted. OperatorError."""
    try:
        import uvicorn

        from edge_agent.console.live import LiveFleet
        from edge_agent.console.web import Console, new_token
    except ImportError as error:
        raise OperatorError(
            f"the console needs {error.name}: pip install 'edge-agent[console]'"
        ) from None
    folder = find(arguments.folder)
    folder.settings()  # what is wrong with it is told before a browser opens

    @contextmanager
    def connect() -> Iterator[Fleet]:
        with BrokerClient(folder.settings().mqtt) as client:
            yield Fleet(folder, client, Keyring(arguments.keys, None))

    with _listening(arguments.port) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        token = new_token()
        address = f"{url}/?token={token}"
        with LiveFleet(connect) as live:
            pages = Console(live)
            config = uvicorn.Config(
                pages.app(token, url),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
            )
            if arguments.json:
                show_json({"url": address})
            else:
                line(f"the console of {folder.settings().name}: {address}")
                line("the address has the key: whoever opens it sees the fleet. Ctrl+C ends it.")
            if arguments.browser:
                webbrowser.open(address)
            server = uvicorn.Server(config)
            pages.ending = lambda: server.should_exit
            server.run(sockets=[listener])
    return OK


def _listening(port: int) -> socket.socket:
    """A socket on this machine's own address. OperatorError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # before the address is printed
    except OSError as error:
        listener.close()
        raise OperatorError(
            f"{HOST}:{port}: {error.strerror}; --port 0 takes a free one"
        ) from error
    return listener
