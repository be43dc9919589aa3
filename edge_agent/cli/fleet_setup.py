"""`edge-agent fleet keygen`, `init` and `enrol`: keys of operators and nodes, and the folder."""

import argparse
import getpass
import sys
import time
from pathlib import Path

from edge_agent.cli import OK
from edge_agent.cli.fleet_deploy import asker, opened
from edge_agent.cli.fleet_output import CHANGED, GOOD, QUIET, confirm, line, show_json
from edge_agent.config.units import written
from edge_agent.errors import ConfigError, OperatorError
from edge_agent.fleet_protocol.keys import ED25519, PublicKey
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator import enrolment, folder, rotation
from edge_agent.operator.folder import FleetFolder, find
from edge_agent.operator.keyring import Keyring, read_public
from edge_agent.operator.overview import RENEW_TRUST

_MQTT = ("ca_file", "cert_file", "key_file", "username", "password_file")


def keygen(arguments: argparse.Namespace) -> int:
    """Make a key pair, or note the key in a token; the private key stays there."""
    keyring = Keyring(arguments.keys, asker())
    name = arguments.name or getpass.getuser()
    if arguments.token is not None:
        public = keyring.adopt(name, arguments.token)
        private_file = keyring.token_file(name)
    else:
        public = keyring.generate(name, _new_passphrase() if arguments.encrypt else "")
        private_file = keyring.private_file(name)
    public_file = keyring.public_file(name)
    if arguments.json:
        facts = {"name": name, "keyid": public.keyid, "algorithm": public.algorithm}
        show_json({**facts, "private": str(private_file), "public": str(public_file)})
        return OK
    if arguments.token is not None:
        line(f"token        {private_file} says where the key is; a trial signature was good")
    else:
        line(f"private key  {private_file}   share it with nobody, and keep a copy offline")
    line(f"public key   {public_file}   for the boards: /etc/edge-agent/trust/{name}.pem")
    line(f"key id       {public.keyid}")
    if public.algorithm != ED25519:
        line(f"algorithm    {public.algorithm}, which agents up to 0.1.0 do not know")
    return OK


def init(arguments: argparse.Namespace) -> int:
    """Make a fleet's folder, which holds no secrets."""
    path: Path = arguments.path
    keys = _trusted(Keyring(arguments.keys), arguments.key)
    threshold = arguments.threshold or min(2, len(keys))
    # Paths on the command line are relative to the current folder, those in the file to its folder.
    mqtt = {
        key: value if key == "username" else _below_home(Path(value).expanduser().absolute())
        for key in _MQTT
        if (value := getattr(arguments, key)) is not None
    }
    made = folder.create(
        path,
        name=arguments.name or path.absolute().name,
        url=arguments.broker,
        keys=keys,
        threshold=threshold,
        validity=rotation.validity(arguments.valid_for, time.time()),
        **mqtt,
    )
    name = made.settings().name
    if arguments.json:
        keyids = {key: public.keyid for key, public in keys.items()}
        show_json({"fleet": name, "folder": str(path.absolute()), "keys": keyids})
        return OK
    line(f"made {path}/ for the fleet {name}, which trusts {', '.join(sorted(keys))}")
    if threshold == 1:
        line("one key alone deploys; with two people, name two keys with --key: then two must sign")
    line("next")
    if (validity := made.settings().validity) is not None:
        line(f"  the keys are valid until {written(validity.expires)}; renewed with: {RENEW_TRUST}")
    line(f'  on each board: fleet = "{name}" and [updates] in /etc/edge-agent/agent.toml,')
    line(f"  and what is in {path}/trust/ in /etc/edge-agent/trust/")
    line(f"  here: cd {path}; edge-agent fleet publish FILE.wasm --name NAME --version 1.0.0")
    return OK


def _new_passphrase() -> str:
    if not sys.stdin.isatty():
        raise OperatorError("--encrypt asks for a passphrase, and this is no terminal")
    passphrase = getpass.getpass("passphrase: ")
    if not passphrase or getpass.getpass("once more: ") != passphrase:
        raise OperatorError("the passphrase is empty, or was not the same twice; no key was made")
    return passphrase


def _below_home(path: Path) -> str:
    """The path below "~", since fleet.toml is shared and certificates are not."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _trusted(keyring: Keyring, names: list[str] | None) -> dict[str, PublicKey]:
    if not names:
        names = keyring.names()
        if not names:
            raise OperatorError(f"{keyring.folder}: no key; make one with: edge-agent fleet keygen")
        if len(names) > 1:
            raise OperatorError(
                f"{keyring.folder}: several keys ({', '.join(names)}); say with --key NAME which"
                " the fleet trusts"
            )
    keys = {}
    for name in names:
        path = Path(name) if name.endswith((".pem", ".pub")) else keyring.public_file(name)
        keys[path.stem] = read_public(path)
    return keys


# --- enrol: the key that a node signs its state with, as a person knows it


def enrol(arguments: argparse.Namespace) -> int:
    """Note a node's key in nodes.toml, or remove it. No request is sent to the node."""
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
            " board was set up anew, give --replace; if not, another board uses its name"
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
        confirm("is it the same there? The holder of this key speaks for the node", arguments)
    enrolment.save(folder, {**keys, node: key})
    return _done(node, key, "is enrolled", arguments)


def _remove(
    folder: FleetFolder, keys: dict[str, PublicKey], node: str, arguments: argparse.Namespace
) -> int:
    if node not in keys:
        raise OperatorError(f"{node} is not enrolled")
    confirm(f"remove {node}, so that its state is no longer checked?", arguments)
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
