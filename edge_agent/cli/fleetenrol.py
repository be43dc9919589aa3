"""`edge-agent fleet enrol`: which key a node signs its state with, as a person knows it."""

import argparse

from edge_agent.cli import OK
from edge_agent.cli.fleetdeploy import opened
from edge_agent.cli.fleetout import CHANGED, GOOD, QUIET, confirm, line, show_json
from edge_agent.errors import ConfigError, OperatorError
from edge_agent.fleet_protocol.keys import PublicKey
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator import enrolment
from edge_agent.operator.folder import FleetFolder, find
from edge_agent.operator.keyring import read_public


def enrol(arguments: argparse.Namespace) -> int:
    """Note a node's key in nodes.toml, or take it out. Nothing is asked of the node."""
    folder, node = find(arguments.folder), arguments.node
    fleet = folder.settings().name
    try:
        topics = node_topics(fleet, node)
    except ConfigError as error:
        raise OperatorError(str(error)) from error
    keys = enrolment.load(folder)
    before = keys.get(node)
    if arguments.remove:
        return _remove(folder, keys, node, arguments)
    if arguments.key is not None:
        key = read_public(arguments.key)
        enrolment.check_key(key)
    else:
        with opened(arguments) as connected:
            raw = connected.client.kept(topics.state)
        if not raw:
            raise OperatorError(
                f"no state of {node} is at the broker; name its key with --key FILE"
            )
        key = enrolment.key_in(raw, fleet, node)
    if arguments.id is not None and key.keyid != arguments.id:
        raise OperatorError(f"{node} signs with the key {key.keyid}, not with {arguments.id}")
    if key == before:
        return _done(node, key, "is enrolled already", arguments)
    if before is not None and not arguments.replace:
        raise OperatorError(
            f"{node} is enrolled with the key {before.keyid}, and this one is {key.keyid}: if the"
            " board was set up anew, say --replace; if not, somebody speaks in its name"
        )
    if not arguments.json:
        line(f"key of {node}  {key.keyid}")
        if before is not None:
            line(f"in the place of {before.keyid}", CHANGED)
    # A file or an id came by another way than the broker. A key that did not is a stranger's, until
    # somebody has looked at the board.
    if arguments.key is None and arguments.id is None:
        if not arguments.json:
            line(f"`edge-agent status` on {node} shows the key of the board itself", QUIET)
        confirm("is it the same there? Whoever has this key speaks for the node", arguments)
    enrolment.save(folder, {**keys, node: key})
    return _done(node, key, "is enrolled", arguments)


def _remove(
    folder: FleetFolder, keys: dict[str, PublicKey], node: str, arguments: argparse.Namespace
) -> int:
    if node not in keys:
        raise OperatorError(f"{node} is not enrolled")
    confirm(f"let {node} be a node whose word is not checked?", arguments)
    key = keys.pop(node)
    enrolment.save(folder, keys)
    return _done(node, key, "is not enrolled any more", arguments)


def _done(node: str, key: PublicKey, text: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json({"node": node, "key": key.keyid, "enrolled": not arguments.remove})
    else:
        line(f"{node} {text}", GOOD)
        line("  git: commit nodes.toml", QUIET)
    return OK
