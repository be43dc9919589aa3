"""`edge-agent fleet publish`, `plan`, `deploy` and `sign`.

The changes on nodes are shown, and confirmed on a terminal, before anything is changed.
"""

import argparse
import getpass
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_output import (
    BAD,
    CHANGED,
    GOOD,
    QUIET,
    confirm,
    line,
    progress,
    show_json,
    show_plan,
    size,
)
from edge_agent.errors import OperatorError, RefusedError
from edge_agent.fleet_protocol import deployment, trust
from edge_agent.fleet_protocol.keys import PublicKey
from edge_agent.operator import deploy as deploying
from edge_agent.operator import overview, plan, rotation
from edge_agent.operator.blobs import Published, read_module
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.deployment_file import Draft
from edge_agent.operator.fleet import Fleet, Prepared
from edge_agent.operator.folder import find
from edge_agent.operator.keyring import Keyring, Signed
from edge_agent.operator.releases import Kind, Made, Maker


def asker() -> Callable[[str], str] | None:
    """The function that asks for a passphrase at a terminal; None without a terminal."""
    return getpass.getpass if sys.stdin.isatty() else None


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Fleet]:
    """The fleet of the folder, connected."""
    folder = find(arguments.folder)
    mqtt = folder.settings().mqtt
    with BrokerClient(mqtt) as client:
        fleet = Fleet(folder, client, Keyring(arguments.keys, asker()))
        if not arguments.json:
            now = time.time()
            for told in (overview.of_trust(fleet.trust, now), overview.of_operator(mqtt, now)):
                if told:
                    line(told, BAD)
        yield fleet


def publish(arguments: argparse.Namespace) -> int:
    """Check, compress, split and upload a module; note the release in the folder."""
    name, version = arguments.name, arguments.version
    if not arguments.code and (arguments.target or arguments.fuel):
        raise OperatorError("--target and --fuel are for machine code: give --code too")
    wasm = read_module(arguments.plugin)  # what is wrong with it needs no broker to be told
    maker = Maker() if arguments.code else None
    codes: list[tuple[Made, Published]] = []
    with opened(arguments) as fleet:
        kinds = _kinds(fleet, maker, arguments) if maker is not None else []
        with progress(f"{name} {version}", arguments.json) as show:
            done = fleet.publish(arguments.plugin, name, version, show)
        for kind in kinds if maker is not None else ():
            if not arguments.json:
                line(f"compiling for {kind.target}", QUIET)
            made = maker.make(wasm, kind)  # type: ignore[union-attr]
            with progress(f"{name} {version} for {kind.target}", arguments.json) as show:
                codes.append((made, fleet.publish_code(name, version, made, show)))
    if arguments.json:
        facts = {"name": name, "version": version, "digest": done.blob.digest}
        facts |= {"size": done.blob.size, "packed": done.packed_bytes, "parts": done.parts}
        code = [
            {**made._asdict(), "data": None, "digest": put.blob.digest, "size": put.blob.size}
            for made, put in codes
        ]
        show_json({**facts, "parts_there": done.there, "sent": done.sent_bytes, "code": code})
        return OK
    there = f", {done.there} of them there before" if done.there else ""
    line(
        f"{name} {version} is at the broker: {size(done.blob.size)} as {size(done.packed_bytes)}"
        f" in {done.parts} part{'s' * (done.parts != 1)}{there}",
        GOOD,
    )
    line(f"  {done.blob.digest}", QUIET)
    for made, put in codes:
        assumed = ", ".join(made.features) or "nothing"
        line(
            f"machine code for {made.target}, {made.engine} {made.version}: {size(put.blob.size)}"
            f" as {size(put.packed_bytes)}; assumes {assumed}",
            GOOD,
        )
        line(f"  {put.blob.digest}", QUIET)
    first = "" if deploying.last_deployed(fleet.folder) else " --index NN --first"
    line(f"next: edge-agent fleet rollout {name} {version} --percent 10{first}")
    return OK


def _kinds(fleet: Fleet, maker: Maker, arguments: argparse.Namespace) -> list[Kind]:
    """The kinds of nodes to compile for."""
    nodes = fleet.view().sorted()
    if arguments.target is not None:
        return maker.named(arguments.target, nodes, arguments.fuel)
    return maker.reported(nodes, arguments.fuel)


def plan_command(arguments: argparse.Namespace) -> int:
    """Show what deployment.toml would change, and change nothing."""
    with opened(arguments) as fleet:
        show_plan(fleet.prepare(fleet.draft(), check_base=False), arguments.json)
    return OK


def deploy(arguments: argparse.Namespace) -> int:
    """Show, ask, sign, publish."""
    with opened(arguments) as fleet:
        if arguments.signed is not None:
            return _deploy_signed(fleet, arguments)
        return bring(fleet, prepare(fleet, fleet.draft(), arguments), arguments)


def prepare(fleet: Fleet, draft: Draft, arguments: argparse.Namespace) -> Prepared:
    """The deployment of `draft` and its changes, with the options of the command line."""
    return fleet.prepare(
        draft, onto=arguments.onto, generation=arguments.generation, first=arguments.first
    )


def sign(arguments: argparse.Namespace) -> int:
    """Add this operator's signatures to a file that another operator made."""
    path: Path = arguments.file
    with opened(arguments) as fleet:
        signed, trusted = read_signed(fleet, path)
        if signed.payload_type == deployment.PAYLOAD_TYPE:
            show_plan(_prepared(fleet, signed, arguments), arguments.json)
        elif not arguments.json:
            line(f"keys to be trusted: {_keys_of(fleet, signed)}")
        keys = fleet.keyring.at_hand(trusted)
        more = [key for key in keys if key.public not in signed.signers]
        if not more:
            raise OperatorError(f"{path}: no trusted key here that has not signed yet")
        confirm(f"sign it with {len(more)} key{'s' * (len(more) != 1)}?", arguments)
        signed = signed.add(trusted, more)
    path.write_bytes(signed.raw + b"\n")
    if arguments.json:
        show_json({"file": str(path), "signatures": len(signed.signers)})
        return OK
    line(f"{path}: {len(signed.signers)} signatures", GOOD)
    return OK


def bring(
    fleet: Fleet,
    prepared: Prepared,
    arguments: argparse.Namespace,
    question: str = "deploy it?",
) -> int:
    """Show, ask, sign, publish; or leave a file for others to sign."""
    show_plan(prepared, arguments.json)
    signed = fleet.sign(prepared)
    threshold, generation = fleet.trust.threshold, prepared.deployment.generation
    if not signed.enough(threshold):
        fleet.keep(prepared)
        problem = f"{len(signed.signers)} of {threshold} signatures"
        return for_others(fleet, signed, f"deployment-{generation}.dsse.json", [problem], arguments)
    confirm(question, arguments)
    fleet.put(prepared, signed)
    _deployed(fleet, generation, arguments.json)
    return OK


def _deployed(fleet: Fleet, generation: int, as_json: bool) -> None:
    commit = fleet.folder.commit()
    if as_json:
        show_json({"deployed": generation, "commit": commit})
        return
    line(f"deployed generation {generation}", GOOD)
    if commit is not None:
        line("  git: commit deployment.toml, deployed.toml and releases/", QUIET)
    line("next: edge-agent fleet watch")


def for_others(
    fleet: Fleet, signed: Signed, name: str, problems: list[str], arguments: argparse.Namespace
) -> int:
    """Not enough signatures: write a file for the next operator to sign."""
    path = fleet.folder.path / name
    path.write_bytes(signed.raw + b"\n")
    command = "trust rotate" if name.startswith("trust") else "deploy"
    # Which the set of keys does not say, and fleet.toml only once it is published.
    epoch = " --new-epoch" if getattr(arguments, "new_epoch", False) else ""
    if arguments.json:
        show_json({"file": str(path), "lacks": problems})
    else:
        line(f"nothing is published yet: only {' and '.join(problems)}", CHANGED)
        line(f"  others sign it with: edge-agent fleet sign {path}")
        line(f"  then: edge-agent fleet {command} --signed {path}{epoch}")
    return PROBLEM


def read_signed(fleet: Fleet, path: Path) -> tuple[Signed, Sequence[PublicKey]]:
    """Read a file of `for_others`; also the keys whose signatures count for it."""
    try:
        raw = path.read_bytes().strip()
        signed = Signed.read(raw, fleet.trust.keys)
        if signed.payload_type == trust.PAYLOAD_TYPE:
            new = trust.parse(signed.payload, fleet.trust.fleet)
            trusted = rotation.all_keys(fleet.trust, new)
            return Signed.read(raw, trusted), trusted
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}") from error
    except RefusedError as error:
        raise OperatorError(f"{path}: {error} ({error.reason})") from error
    return signed, fleet.trust.keys


def _prepared(fleet: Fleet, signed: Signed, arguments: argparse.Namespace) -> Prepared:
    try:
        document = deployment.parse(signed.payload, fleet=fleet.settings.name)
    except RefusedError as error:
        raise OperatorError(f"{error} ({error.reason})") from error
    now, view = fleet.current(), fleet.view()
    if document.order <= now.order:
        raise OperatorError(
            f"it is generation {document.generation}, and the broker has {now.generation} already:"
            " deploy anew"
        )
    fleet.check_trust()
    deploying.check_next(document, fleet.numbers(now), arguments.generation)
    ahead = tuple(node.name for node in deploying.ahead(view, *document.order))
    changes = plan.changes(view, now.deployment, document)
    return Prepared(document, now, changes, view, ahead=ahead)


def _deploy_signed(fleet: Fleet, arguments: argparse.Namespace) -> int:
    signed, _ = read_signed(fleet, arguments.signed)
    prepared = _prepared(fleet, signed, arguments)
    deploying.check_first(prepared.current, deploying.last_deployed(fleet.folder), arguments.first)
    show_plan(prepared, arguments.json)
    if not signed.enough(fleet.trust.threshold):
        raise OperatorError(
            f"{arguments.signed}: {len(signed.signers)} of {fleet.trust.threshold} signatures; more"
            f" have to sign: edge-agent fleet sign {arguments.signed}"
        )
    confirm("deploy it?", arguments)
    fleet.put(prepared, signed)
    _deployed(fleet, prepared.deployment.generation, arguments.json)
    return OK


def _keys_of(fleet: Fleet, signed: Signed) -> str:
    new = trust.parse(signed.payload, fleet.trust.fleet)
    names = fleet.folder.key_names(new.keys)
    return f"{', '.join(names)}; version {new.version}, {new.threshold} must sign"
