"""`edge-agent store`: the modules and documents that a node keeps of its fleet."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import DEFAULT_CONFIG, OK, PROBLEM, add_config_option
from edge_agent.text import printable

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.store.catalogue import Catalogue
    from edge_agent.store.layout import Layout

COLUMNS = ("plugin", "version", "size", "digest", "used")


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("store", help="the fleet's plugins that this node keeps on disk")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = actions.add_parser("ls", help="list the stored releases")
    action.add_argument("--json", action="store_true", help="for tools")
    _finish(action, list_releases)

    action = actions.add_parser(
        "check",
        help="compare all blobs with their digests and remove damaged ones; 1 if there are any",
    )
    _finish(action, check)

    action = actions.add_parser(
        "import",
        help="import plugins from an OCI image layout, as oras and skopeo make it; "
        "the fleet's deployment still decides what runs",
    )
    action.add_argument("path", type=Path, metavar="PATH", help="a folder, or a tar of one")
    _finish(action, import_layout)

    action = actions.add_parser(
        "forget",
        help="forget the fleet's documents: the trusted keys are those of the files again, and any "
        "deployment that they signed is accepted",
    )
    _finish(action, forget)


def _finish(action: argparse.ArgumentParser, command: object) -> None:
    add_config_option(action)
    action.set_defaults(command=command)


def list_releases(arguments: argparse.Namespace) -> int:
    """Print the content of the store and its purpose."""
    from edge_agent.cli.status import table

    layout, catalogue_path = _store(arguments)
    from edge_agent.store.catalogue_store import load

    catalogue = load(catalogue_path)
    releases = sorted(layout.releases())
    if arguments.json:
        import json

        found = [{**each._asdict(), "used": _uses(catalogue, each.digest)} for each in releases]
        print(json.dumps({"generation": catalogue.known.generation, "releases": found}, indent=2))
        return OK
    rows = [
        (
            each.name,
            each.version,
            f"{each.size / 1024:.0f} KiB",
            each.digest.short,
            ", ".join(_uses(catalogue, each.digest)) or "-",
        )
        for each in releases
    ]
    print(f"{layout.root}: generation {catalogue.known.generation} of the deployment\n")
    print(printable_lines(table(COLUMNS, rows)) if rows else "no release is here")
    return OK


def check(arguments: argparse.Namespace) -> int:
    """Check the store and print what was removed; the exit code is 1 if something was."""
    from edge_agent.store.catalogue_store import load

    layout, catalogue_path = _store(arguments)
    damaged = layout.check()
    for digest in damaged:
        print(f"{digest}: was damaged and is removed; the agent fetches it when it starts")
    catalogue = load(catalogue_path)
    missing = sorted(digest for digest in catalogue.digests if not layout.has(digest))
    for digest in sorted(set(missing) - set(damaged)):
        print(f"{digest}: is missing; the agent fetches it when it starts")
    if damaged or missing:
        return PROBLEM
    print(f"{layout.root}: {len(layout.releases())} releases, all in order")
    return OK


def import_layout(arguments: argparse.Namespace) -> int:
    """Import modules and print them; the exit code is 1 if one was refused, or there was none."""
    from edge_agent.store.seeding import import_layout

    layout, _ = _store(arguments)
    taken = failed = 0
    for found in import_layout(arguments.path, layout):
        if found.release is None:
            failed += 1
            print(printable(f"{found.entry}: not taken: {found.problem}"))
        else:
            taken += 1
            release = found.release
            said = "taken" if found.fresh else "was here already"
            print(printable(f"{release.name} {release.version}: {said}, {release.digest}"))
    if not taken and not failed:
        print(f"{arguments.path}: no Wasm artifact is in this layout")
    return OK if taken and not failed else PROBLEM


def forget(arguments: argparse.Namespace) -> int:
    """Remove the catalogue; the modules stay until the next deployment."""
    from edge_agent.cli.status import control_socket
    from edge_agent.control import ask
    from edge_agent.errors import NotRunningError, StoreError
    from edge_agent.store.catalogue_store import remove

    try:
        ask(control_socket(arguments.config), "status")
    except NotRunningError:
        pass
    else:
        raise StoreError("the agent is running and would write it again; stop it first")
    _, catalogue_path = _store(arguments)
    gone = remove(catalogue_path)
    print("forgotten" if gone else f"{catalogue_path}: nothing is there to be forgotten")
    return OK


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def _uses(catalogue: "Catalogue", digest: str) -> list[str]:
    """The state of this module in the catalogue."""
    uses = []
    for identity, kept in sorted(catalogue.plugins.items()):
        if kept.current.digest == digest:
            uses.append(f"{identity} on probation" if kept.probation else identity)
        elif kept.previous is not None and kept.previous.digest == digest:
            uses.append(f"{identity} before")
    uses += ["rejected"] if digest in catalogue.rejected else []
    uses += ["quarantined"] if digest in catalogue.quarantined else []
    return uses


def _store(arguments: argparse.Namespace) -> "tuple[Layout, Path]":
    from edge_agent.store.layout import Layout

    root = _state_dir(arguments.config) / "store"
    return Layout(root), root / "catalogue.json"


def _state_dir(config: Path) -> Path:
    """The state folder of this configuration; the default one without a file."""
    from edge_agent.config import AgentConfig, load_agent_config

    if config == DEFAULT_CONFIG and not config.exists():
        return AgentConfig.state_dir
    return load_agent_config(config).state_dir
