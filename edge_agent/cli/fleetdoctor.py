"""`edge-agent fleet doctor`: what ends, and what the broker does not do that a fleet needs."""

import argparse
import time
from collections.abc import Iterator

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleetout import BAD, CHANGED, GOOD, line, show_json
from edge_agent.operator import expiry, signing
from edge_agent.operator.brokercheck import BrokerCheck, Found, Level
from edge_agent.operator.folder import FleetFolder, find

_STYLES = {"ok": GOOD, "warn": CHANGED, "fail": BAD}


def doctor(arguments: argparse.Namespace) -> int:
    """Try everything, and say it as it is found; 1 if something fails."""
    folder = find(arguments.folder)
    settings = folder.settings()
    failed = False
    for found in () if arguments.broker else _ending(folder, time.time()):
        failed |= _show(found, "", arguments.json)
    for broker in settings.mqtt.brokers:
        check = BrokerCheck(settings.for_broker(broker), settings.name)
        for found in check.run(restarted=arguments.restarted):
            failed |= _show(found, broker.url, arguments.json)
    return PROBLEM if failed else OK


def _ending(folder: FleetFolder, now: float) -> Iterator[Found]:
    """The fleet's keys and the operator's certificate."""
    trust = signing.trust_set(folder)
    over = trust.validity is not None and trust.validity.over(now)
    told = expiry.of_trust(trust, now)
    yield Found(_level(told, over), "trust", told or f"version {trust.version} of the keys counts")
    mqtt = folder.settings().mqtt
    if mqtt.cert_file is None:
        return
    found = expiry.certificate_of(mqtt)
    if found is None:
        yield Found("fail", "certificate", f"{mqtt.cert_file} cannot be read")
        return
    told = expiry.of_operator(mqtt, now)
    yield Found(_level(told, found.over(now)), "certificate", told or f"{mqtt.cert_file} counts")


def _level(told: str, over: bool) -> Level:
    if over:
        return "fail"
    return "warn" if told else "ok"


def _show(found: Found, broker: str, as_json: bool) -> bool:
    """Whether it fails."""
    if as_json:
        show_json({**({"broker": broker} if broker else {}), **found._asdict()})
    else:
        demand = f" (MQTT 5: {found.demand})" if found.demand and found.level != "ok" else ""
        line(f"{found.level:4}  {found.subject:18}  {found.text}{demand}", _STYLES[found.level])
    return found.level == "fail"
