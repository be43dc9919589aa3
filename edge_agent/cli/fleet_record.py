"""`edge-agent fleet request NODE record`, and `fleet rollout --replay`, which compares two releases
over recorded events before anything is deployed."""

import argparse
import tempfile
from pathlib import Path

from edge_agent.authors import recording
from edge_agent.authors.tryout import PluginFile
from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_output import GOOD, QUIET, line, show_json, size
from edge_agent.cli.fleet_results import show_answer
from edge_agent.cli.pluginreplay import as_json, differences, fits, show, summary
from edge_agent.cli.record import chosen_events, chosen_rules
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.deployment import Deployment, Offer
from edge_agent.fleet_protocol.keys import Signer
from edge_agent.operator import blobs, recordings
from edge_agent.operator.fleet import Fleet, Prepared
from edge_agent.store import files
from edge_agent.wasm.engine_selection import AUTO

DEFAULT_SECONDS = 60  # a node's own
# Beyond the recorded time: a slow board's start of the recorder, and the way of the parts.
SPARE_S = 120.0


def record(
    fleet: Fleet,
    arguments: argparse.Namespace,
    given: dict[str, object],
    signers: list[Signer],
) -> int:
    """Have a node record, check what comes as what a stranger sent, and write the file.

    OperatorError, ConfigError: nothing is written.
    """
    output: Path = arguments.output
    wanted = {**given, **_wanted(arguments)}
    seconds = wanted.get("seconds", DEFAULT_SECONDS)
    timeout_s = arguments.timeout
    if timeout_s is None:
        timeout_s = SPARE_S + (seconds if isinstance(seconds, int) else 0)

    def told(answer: dict[str, object]) -> None:
        if arguments.json:
            show_json(answer)
        elif answer.get("state") != "succeeded":
            show_answer(arguments.node, arguments.verb, answer)

    found = recordings.fetch(
        *(fleet.client, fleet.enrolment, fleet.settings.name, arguments.node),
        *(wanted, timeout_s, signers, told),
    )
    if found is None:
        return PROBLEM
    head, count = recording.looked_at(f"the recording of {arguments.node}", found.data)
    files.write(output, found.data)
    if arguments.json:
        facts = {"file": str(output), "size": len(found.data), "events": count}
        show_json({**facts, **head._asdict(), "proven": found.proven})
        return OK
    lost = f", {head.dropped} were lost" if head.dropped else ""
    ended = f"; it ended by {head.ended}" if head.ended else ""
    line(f"{count} events in {output}, {size(len(found.data))}{lost}{ended}", GOOD)
    line(f"  hidden: {', '.join(head.redacted) or 'nothing'}", QUIET)
    if not found.proven:
        line(f"  {arguments.node} is not enrolled: nothing proves that it made this", QUIET)
    return OK


def _wanted(arguments: argparse.Namespace) -> dict[str, object]:
    """What the options say, in the request's words. ConfigError."""
    wanted = {
        "plugin": arguments.plugin,
        "events": chosen_events(arguments) or None,
        "count": arguments.count,
        "seconds": arguments.seconds,
        "redact": None if arguments.redact is None else chosen_rules(arguments),
    }
    return {name: value for name, value in wanted.items() if value is not None}


# --- before a rollout


def replayed(
    fleet: Fleet, prepared: Prepared, name: str, version: str, arguments: argparse.Namespace
) -> None:
    """Compare the release with the one before it over the events of --replay.

    OperatorError unless the differences are those that --expect declares, all of them; also where
    there is nothing to compare. ConfigError, ModuleError, EngineError, StoreError.
    """
    path: Path = arguments.replay
    running = prepared.current.deployment
    new, old = _offer(prepared.deployment, name, version), _before(running, name, version)
    identity = new.release.identity
    events = [each for each in recording.read(path) if each.plugin == identity]
    if not events:
        raise OperatorError(f"{path}: has no event of {identity}; nothing is compared or deployed")
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        ours, theirs = (_plugin(fleet, offer, Path(folder)) for offer in (new, old))
        found = []
        for each in differences(events, ours, theirs, AUTO, arguments.expect):
            found.append(each)
            if not arguments.json:
                show(each, bool(arguments.expect))
    between = f"{name} {old.release.version} and {version}"
    if arguments.json:
        told = {"file": str(path), "against": old.release.version, **as_json(len(events), found)}
        show_json({"replay": told})
    else:
        line(f"{between}: {summary(len(events), found)}")
    lines = {line for each in found for line in each.event.lines}
    unmet = [glob for glob in arguments.expect if not any(fits(each, glob) for each in lines)]
    if unexpected := sum(bool(each.unexpected) for each in found):
        raise OperatorError(
            f"{between} differ otherwise than --expect declares, at {unexpected} of {len(events)}"
            " events; nothing is deployed"
        )
    if unmet:
        raise OperatorError(
            f"no event of {path} shows the declared difference {unmet[0]!r} between {between};"
            " nothing is deployed"
        )


def _offer(deployment: Deployment, name: str, version: str) -> Offer:
    """OperatorError: the plugin is not enabled."""
    for entry in deployment.plugins:
        for offer in entry.offers if entry.name == name else ():
            if offer.release.version == version:
                return offer
    raise OperatorError(f"{name} {version} would not be deployed: the plugin is not enabled")


def _before(deployment: Deployment | None, name: str, version: str) -> Offer:
    """The newest other release that is deployed. OperatorError: none is."""
    for entry in deployment.plugins if deployment else ():
        for offer in entry.offers if entry.name == name else ():
            if offer.release.version != version:
                return offer
    raise OperatorError(
        f"no other release of {name} is deployed, so there is nothing to compare {version} with;"
        " leave --replay out"
    )


def _plugin(fleet: Fleet, offer: Offer, folder: Path) -> PluginFile:
    """The release as a plugin's files. OperatorError: its module is not at the broker."""
    release = offer.release
    try:
        wasm = blobs.download(fleet.client, fleet.topics, offer.blob)
    except OperatorError as error:
        raise OperatorError(f"{release.name} {release.version}: {error}") from error
    path = folder / f"{release.identity}-{offer.blob.digest.short}.wasm"
    path.write_bytes(wasm)
    return PluginFile(path, wasm, release.config, None, release.settings, None)
