"""TLS towards a broker, and why a connection ended or never began, in an operator's words."""

import socket
import ssl

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError

_HINTS = {
    "Bad user name or password": ": check username and password_file",
    "Not authorized": ": check username and password_file, and the broker's access list",
    "Client identifier not valid": ": every broker takes 1 to 23 letters and digits as client_id",
    "Session taken over": ": another client uses this client_id",
}


class _NamedContext(ssl.SSLContext):
    """A context that expects `server_name` in the certificate, whatever the host's name."""

    server_name: str | None = None

    # The only way to tell paho: it hands over the host that it connects to.
    def wrap_socket(  # type: ignore[override]
        self,
        sock: socket.socket,
        server_hostname: str | None = None,
        do_handshake_on_connect: bool = True,
    ) -> ssl.SSLSocket:
        name = self.server_name or server_hostname
        return super().wrap_socket(
            sock,
            server_hostname=plain(name) if name is not None else None,
            do_handshake_on_connect=do_handshake_on_connect,
        )


def plain(host: str) -> str | bytes:
    """A host's name for Python's sockets. Of a str they would look at each letter, also where
    all are ASCII, with tables of 0.5 MB."""
    return host.encode() if host.isascii() else host


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """TLS 1.2 or later with the broker's certificate and name checked. Raises LinkError.

    Made for each connection, so that renewed files are taken up.
    """
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = config.tls_server_name
    if config.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(config.ca_file)
        except OSError as error:
            raise LinkError(f"ca_file {config.ca_file}: {explain(error)}") from error
    if config.cert_file is not None:
        try:
            # Without a password here OpenSSL would ask for one on the terminal.
            context.load_cert_chain(config.cert_file, config.key_file, password="")
        except (OSError, ValueError) as error:
            raise LinkError(
                f"cert_file {config.cert_file} with key_file {config.key_file}:"
                f" {explain(error)}; PEM files without a password are needed"
            ) from error
    return context


def explain(error: Exception) -> str:
    """What happened, in an operator's words, and what to do where that is known."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is refused: {error.verify_message}; ca_file must hold the"
                " authority that signed it, and url or tls_server_name its name"
            )
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"the host's name has no address: {error.strerror}"
        case ConnectionRefusedError():
            return "connection refused: nothing listens on that port"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


def refused(reason: str) -> str:
    """The broker's CONNACK says no, with MQTT's name for the reason."""
    return f"the broker refuses the connection: {reason}{_HINTS.get(reason, '')}"


def left(trouble: str) -> str:
    """It broke the rules."""
    return f"disconnected from the broker: {trouble}"


def ended(reason: str, *, accepted: bool, said: bool) -> str:
    """The connection is gone. `said`: the broker gave the `reason`, else paho has found it."""
    if reason == "Protocol error" and not said:
        return left("its answer is not MQTT")
    if said:
        return f"the broker ended the connection: {reason}{_HINTS.get(reason, '')}"
    if reason == "Keep alive timeout":
        return "the broker stopped answering"
    if accepted:
        return (
            "the broker closed the connection without a reason; if that repeats, another"
            " client uses this client_id, or the broker's access list is against it"
        )
    return (
        "the broker closed the connection without accepting it; is this the right"
        " port, and is TLS wanted there (mqtts)?"
    )
