"""`edge-agent fleet trust rotate`, `trust renew`, `gc` and `doctor`: a fleet's upkeep."""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_deploy import for_others, opened, read_signed
from edge_agent.cli.fleet_output import (
    BAD,
    CHANGED,
    GOOD,
    QUIET,
    confirm,
    line,
    show_json,
    show_table,
    size,
    some,
)
from edge_agent.config.units import written
from edge_agent.errors import OperatorError, RefusedError
from edge_agent.fleet_protocol import trust
from edge_agent.fleet_protocol.keys import ED25519, PublicKey
from edge_agent.operator import blobs, overview, rotation
from edge_agent.operator.broker_check import BrokerCheck, Found, Level
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.folder import FleetFolder, find
from edge_agent.operator.keyring import Signed, read_public


def trust_rotate(arguments: argparse.Namespace) -> int:
    """Replace the set of keys, or extend its validity."""
    with opened(arguments) as fleet:
        if arguments.signed is not None:
            signed, _ = read_signed(fleet, arguments.signed)
            new, names = _new_set(fleet, signed, arguments)
        else:
            added = {Path(name).stem: _public(fleet, name) for name in arguments.add}
            new, names = rotation.following(
                *(fleet, added, arguments.remove, arguments.threshold, arguments.new_epoch),
                validity=rotation.validity(arguments.valid_for, time.time()),
                renew=arguments.renew,
            )
            signed = rotation.sign(fleet, new)
        if not arguments.json:
            line(
                f"trust version {new.version}: {', '.join(names)}; {new.threshold} must sign"
                f" (now {', '.join(fleet.settings.keys)}; {fleet.trust.threshold})"
            )
            line(_until(new), QUIET)
            for text in _needs_agents(new):
                line(text, CHANGED)
        if problems := rotation.lacking(signed, fleet.trust, new):
            return for_others(fleet, signed, f"trust-{new.version}.dsse.json", problems, arguments)
        confirm("publish it? Nodes then refuse what removed keys sign", arguments)
        rotation.put(fleet, signed, new, names, arguments.new_epoch)
    if arguments.json:
        show_json({"version": new.version, "keys": names, "threshold": new.threshold})
        return OK
    line(f"the fleet trusts version {new.version}: {', '.join(names)}", GOOD)
    if not arguments.renew:
        line("next: edge-agent fleet deploy, so that the deployment is signed by these keys")
    return OK


def gc_command(arguments: argparse.Namespace) -> int:
    """Clear the blobs that neither the broker's deployment nor deployment.toml names."""
    with opened(arguments) as fleet:
        now = fleet.current()
        if now.problem:
            raise OperatorError(
                f"the broker's deployment cannot be believed ({now.problem}), so the blobs that"
                " nodes need are not known; deploy first"
            )
        mine = fleet.draft().document(fleet.settings.name, 1, 0.0)
        stale, foreign = blobs.stale(fleet.client, fleet.topics, blobs.named(now.deployment, mine))
        if not arguments.json:
            _show_stale(stale)
            if foreign:
                named = some(foreign, "topic")
                line(f"{named} below {fleet.topics.blobs} without a part of a blob, left alone")
        if stale:
            confirm(f"clear {some(len(stale), 'blob')} from the broker?", arguments)
        parts = blobs.clear(fleet.client, stale)
    if arguments.json:
        cleared = [blob.digest for blob in stale]
        show_json({"cleared": cleared, "parts": parts, "foreign": foreign})
    elif stale:
        line(f"cleared {some(parts, 'part')}", GOOD)
    return OK


def _new_set(
    fleet: Fleet, signed: Signed, arguments: argparse.Namespace
) -> tuple[trust.TrustSet, list[str]]:
    try:
        new = trust.parse(signed.payload, fleet.trust.fleet)
    except RefusedError as error:
        raise OperatorError(f"{arguments.signed}: {error} ({error.reason})") from error
    added = {Path(name).stem: _public(fleet, name) for name in arguments.add}
    known = {key: name for name, key in added.items()}
    known |= dict(zip(fleet.trust.keys, fleet.settings.keys, strict=True))
    missing = [key.keyid[:12] for key in new.keys if key not in known]
    if missing:
        raise OperatorError(f"name these keys with --add NAME.pem: {', '.join(missing)}")
    return new, [known[key] for key in new.keys]


def _until(new: trust.TrustSet) -> str:
    if new.validity is None:
        return "they do not expire"
    return (
        f"they expire on {written(new.validity.expires)}; before that: edge-agent fleet trust renew"
    )


def _needs_agents(new: trust.TrustSet) -> list[str]:
    """Warnings about older agents that refuse the set."""
    others = sorted({key.algorithm for key in new.keys} - {ED25519})
    if not others:
        return []
    named = ", ".join(others)
    return [f"agents up to 0.1.0 refuse it (malformed), since they know no {named}: update them"]


def _public(fleet: Fleet, name: str) -> PublicKey:
    return read_public(
        Path(name) if name.endswith((".pem", ".pub")) else fleet.keyring.public_file(name)
    )


def _show_stale(stale: Sequence[blobs.Stale]) -> None:
    if not stale:
        line("a deployment names every blob at the broker", QUIET)
        return
    show_table(
        ("blob", "parts", "size"),
        [(blob.digest.hex[:16], str(len(blob.topics)), size(blob.bytes)) for blob in stale],
    )


# --- doctor: what expires, and what the broker cannot do that a fleet needs


_STYLES = {"ok": GOOD, "warn": CHANGED, "fail": BAD}


def doctor(arguments: argparse.Namespace) -> int:
    """Run all checks and print each result at once; 1 if a check fails."""
    folder = find(arguments.folder)
    settings = folder.settings()
    failed = False
    for found in () if arguments.broker else ending(folder, time.time()):
        failed |= _show(found, "", arguments.json)
    for broker in settings.mqtt.brokers:
        check = BrokerCheck(settings.for_broker(broker), settings.name)
        for found in check.run(restarted=arguments.restarted):
            failed |= _show(found, broker.url, arguments.json)
    return PROBLEM if failed else OK


def ending(folder: FleetFolder, now: float) -> Iterator[Found]:
    """The validity of the fleet's keys and of the operator's certificate."""
    trust = folder.trust_set()
    over = trust.validity is not None and trust.validity.over(now)
    told = overview.of_trust(trust, now)
    yield Found(
        _level(told, over), "trust", told or f"version {trust.version} of the keys is valid"
    )
    mqtt = folder.settings().mqtt
    if mqtt.cert_file is None:
        return
    found = overview.certificate_of(mqtt)
    if found is None:
        yield Found("fail", "certificate", f"{mqtt.cert_file} cannot be read")
        return
    told = overview.of_operator(mqtt, now)
    yield Found(_level(told, found.over(now)), "certificate", told or f"{mqtt.cert_file} is valid")


def _level(told: str, over: bool) -> Level:
    if over:
        return "fail"
    return "warn" if told else "ok"


def _show(found: Found, broker: str, as_json: bool) -> bool:
    """Print a result; whether the check failed."""
    if as_json:
        show_json({**({"broker": broker} if broker else {}), **found._asdict()})
    else:
        demand = f" (MQTT 5: {found.demand})" if found.demand and found.level != "ok" else ""
        line(f"{found.level:4}  {found.subject:18}  {found.text}{demand}", _STYLES[found.level])
    return found.level == "fail"
