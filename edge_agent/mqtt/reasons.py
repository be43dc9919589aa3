"""Why a connection ended or never began, in an operator's words, with what to do. Pure."""

_HINTS = {
    "Bad user name or password": ": check username and password_file",
    "Not authorized": ": check username and password_file, and the broker's access list",
    "Client identifier not valid": ": every broker takes 1 to 23 letters and digits as client_id",
    "Session taken over": ": another client uses this client_id",
}


def refused(reason: str) -> str:
    """The broker's CONNACK says no, with MQTT's name for the reason."""
    return f"the broker refuses the connection: {reason}{_HINTS.get(reason, '')}"


def left(trouble: str) -> str:
    """It broke the rules."""
    return f"the broker is left: {trouble}"


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
