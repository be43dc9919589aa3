"""`edge-agent fleet doctor`: what the broker does not do that a fleet needs."""

import argparse

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleetout import BAD, CHANGED, GOOD, line, show_json
from edge_agent.operator.brokercheck import BrokerCheck
from edge_agent.operator.folder import find

_STYLES = {"ok": GOOD, "warn": CHANGED, "fail": BAD}


def doctor(arguments: argparse.Namespace) -> int:
    """Try everything, and say it as it is found; 1 if something fails."""
    settings = find(arguments.folder).settings()
    failed = False
    for broker in settings.mqtt.brokers:
        check = BrokerCheck(settings.for_broker(broker), settings.name)
        for found in check.run(restarted=arguments.restarted):
            failed |= found.level == "fail"
            if arguments.json:
                show_json({"broker": broker.url, **found._asdict()})
                continue
            demand = f" (MQTT 5: {found.demand})" if found.demand and found.level != "ok" else ""
            line(f"{found.level:4}  {found.subject:18}  {found.text}{demand}", _STYLES[found.level])
    return PROBLEM if failed else OK
