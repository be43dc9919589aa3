"""`edge-agent plugin`: make a plugin (`new`, `build`, `dev`), examine it before a node runs it
(`check`, `inspect`, `run`, `test`, `bench`), or lift its quarantine (`unquarantine`)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM, add_config_option
from edge_agent.text import printable

if TYPE_CHECKING:
    from edge_agent.authors.tryout import PluginFile, Runtime
    from edge_agent.cli import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "plugin", help="make, check, test and measure plugins, or lift a quarantine"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser(
        "new", help="make a folder with the source of a plugin and its tests"
    )
    action.add_argument("name", metavar="NAME", help="such as gpio-guard; also the folder's name")
    action.add_argument(
        "--lang", default="c", choices=("c", "go", "rust", "zig"), help="default: c"
    )
    action.set_defaults(command=new)

    action = actions.add_parser(
        "build", help="compile the plugin of a folder, with its plugin.toml"
    )
    action.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: this one"
    )
    action.add_argument(
        "--debug",
        action="store_true",
        help="keep debug information, so that a trap shows lines of the source; of Go only names",
    )
    action.set_defaults(command=build)

    action = actions.add_parser(
        "dev", help="build and test a folder's plugin at each change, until interrupted"
    )
    action.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: this one"
    )
    action.add_argument("--once", action="store_true", help="once; 1 if it fails")
    action.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="also copy a plugin that passed into this folder, which a running agent looks at",
    )
    action.add_argument(
        "--engine", default="auto", metavar="NAME", help="wasmer, wasmtime or wasmi (default: auto)"
    )
    action.set_defaults(command=dev)

    action = actions.add_parser(
        "check",
        help="check ABI, imports, memory, start and events of a plugin; 1 if it cannot work",
    )
    _add_plugin_options(action)
    action.set_defaults(command=check)

    action = actions.add_parser(
        "inspect", help="show a plugin's parts and their sizes, without running it"
    )
    action.add_argument("file", type=Path, metavar="FILE", help="the plugin, NN-name.wasm")
    action.add_argument("--json", action="store_true", help="for tools")
    action.set_defaults(command=inspect)

    action = actions.add_parser(
        "run",
        help="call a plugin once and show what its reply changes; 1 if the request would fail",
    )
    _add_plugin_options(action)
    action.add_argument(
        "--event",
        action="append",
        metavar="EVENT[=FILE]",
        help="several are called one after the other, each with the request of its FILE"
        " (default: create_container, or another of the plugin's events)",
    )
    action.add_argument(
        "--request",
        type=Path,
        metavar="FILE",
        help="serialized or as JSON (default: a built-in request that containerd 2.1 sent)",
    )
    action.add_argument(
        "--sync", type=Path, metavar="FILE", help="a SynchronizeRequest first (default: empty)"
    )
    action.add_argument(
        "--fuel", action="store_true", help="also count the instructions, for limits.fuel"
    )
    action.add_argument(
        "--show-request", action="store_true", help="print the request as JSON and do nothing else"
    )
    action.set_defaults(command=run)

    action = actions.add_parser(
        "bench", help="measure a plugin's events: time and fuel, on one engine or on all"
    )
    _add_bench_options(action)
    action.set_defaults(command=bench)

    action = actions.add_parser(
        "replay", help="call a plugin with recorded events; 1 if it does something unexpected"
    )
    _add_replay_options(action)
    action.set_defaults(command=replay)

    action = actions.add_parser(
        "test", help="run the cases beside a plugin; 1 if one fails (docs/plugin-test.md)"
    )
    _add_test_options(action)
    action.set_defaults(command=test)

    action = actions.add_parser(
        "unquarantine",
        aliases=["release"],  # as it was called first
        help="lift a plugin's quarantine and the rejections of its releases; 1 if there are none",
    )
    action.add_argument("plugin", metavar="NN-name", help="as `edge-agent status` names it")
    add_config_option(action)
    action.set_defaults(command=unquarantine)


def _add_engine_and_files(action: argparse.ArgumentParser, more: str = "") -> None:
    action.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"wasmer, wasmtime or wasmi{more} (default: auto)",
    )
    action.add_argument(
        "--config", type=Path, metavar="FILE", help="text for Configure (default: FILE's .conf)"
    )
    action.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="limits and permissions (default: FILE's .toml)",
    )
    action.add_argument("--json", action="store_true", help="for tools")


def _add_plugin_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("file", type=Path, metavar="FILE", help="the plugin, NN-name.wasm")
    action.add_argument(
        "--runtime",
        metavar="NAME@VERSION",
        help="such as containerd@1.7.24: as --runtime-name and --runtime-version",
    )
    action.add_argument("--runtime-name", metavar="NAME", help="default: containerd")
    action.add_argument("--runtime-version", metavar="VERSION", help="default: v2.3.0")
    _add_engine_and_files(action)


def _add_bench_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("file", type=Path, metavar="FILE", help="the plugin, NN-name.wasm")
    action.add_argument(
        "--against", type=Path, metavar="FILE", help="another version, whose calls take turns"
    )
    action.add_argument(
        "--event",
        action="append",
        metavar="EVENT[=FILE]",
        help="also several (default: create_container, or another of the plugin's events)",
    )
    action.add_argument(
        "--calls", type=int, default=1000, metavar="N", help="of each event (default: 1000)"
    )
    _add_engine_and_files(action, ", or all")


def _add_replay_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("file", type=Path, metavar="FILE", help="the new version, NN-name.wasm")
    action.add_argument("recording", type=Path, metavar="FILE.edgerec", help="of edge-agent record")
    action.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="the version to compare with (default: the recorded answers)",
    )
    action.add_argument(
        "--expect",
        action="append",
        metavar="GLOB",
        help="a difference that is wanted, such as 'now: + annotation team*'; repeatable",
    )
    action.add_argument("--plugin", metavar="NN-name", help="of a recording of several plugins")
    _add_engine_and_files(action)


def _add_test_options(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="the plugin, NN-name.wasm (default: the one in this folder)",
    )
    action.add_argument(
        "--cases",
        type=Path,
        action="append",
        metavar="FILE",
        help="a file of cases, also several (default: FILE's .cases.toml)",
    )
    action.add_argument("--only", metavar="TEXT", help="cases with this text in their names")
    action.add_argument(
        "--update",
        action="store_true",
        help="accept what cases without an [expect] table give, into FILE's .accepted.json",
    )
    action.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    _add_engine_and_files(action, ", or all")


def new(arguments: argparse.Namespace) -> int:
    """Make the folder of a plugin. ConfigError."""
    from edge_agent.authors import project

    written = project.create(Path(arguments.name), arguments.name, arguments.lang)
    for path in written:
        print(path)
    print(f"next: cd {arguments.name}; edge-agent plugin build; edge-agent plugin test")
    return OK


def build(arguments: argparse.Namespace) -> int:
    """Compile a plugin. ConfigError, ModuleError, StoreError."""
    from edge_agent.authors import project

    made = project.build(arguments.folder, debug=arguments.debug)
    print(f"{printable(str(made))}: {made.stat().st_size} bytes")
    return OK


def dev(arguments: argparse.Namespace) -> int:
    """Build and test again at each change."""
    from edge_agent.cli import plugindev

    return plugindev.run(arguments)


def check(arguments: argparse.Namespace) -> int:
    """Print findings; the exit code is 1 if one of them keeps the plugin from working."""
    import json
    from dataclasses import asdict

    from edge_agent.cli.doctor import render
    from edge_agent.cli.plugincheck import Check

    look = Check(_plugin(arguments), _runtime(arguments), arguments.engine)
    look.run()
    if arguments.json:
        findings = [asdict(finding) for finding in look.findings]
        print(json.dumps({**look.facts, "ok": not look.failed, "findings": findings}, indent=2))
    else:
        print(render(look.findings))
    return PROBLEM if look.failed else OK


def inspect(arguments: argparse.Namespace) -> int:
    """Print the parts of the module. ModuleError: not a plugin."""
    import json

    from edge_agent.authors import inspection
    from edge_agent.authors.tryout import read_plugin
    from edge_agent.errors import ModuleError

    plugin = read_plugin(arguments.file, None, None)
    try:
        if arguments.json:
            print(json.dumps(inspection.facts(plugin), indent=2))
            return OK
        for subject, text in inspection.as_text(plugin):
            print(f"{printable(subject):14}{printable(text)}")
    except ModuleError as error:
        raise ModuleError(printable(f"{plugin.path}: {error}")) from error
    return OK


def run(arguments: argparse.Namespace) -> int:
    """Print the result of the event; the exit code is 1 if the runtime's request would fail."""
    from edge_agent.errors import EngineError, ModuleError

    plugin = _plugin(arguments)
    try:
        return _run(arguments, plugin)
    except (ModuleError, EngineError) as error:
        # It may quote the module, whose names are anybody's.
        raise type(error)(printable(f"{plugin.path}: {' '.join(str(error).split())}")) from error


def bench(arguments: argparse.Namespace) -> int:
    """Print what the plugin's events take."""
    from edge_agent.cli import pluginbench

    return pluginbench.run(arguments)


def replay(arguments: argparse.Namespace) -> int:
    """Print what a new version does otherwise."""
    from edge_agent.cli import pluginreplay

    return pluginreplay.run(arguments)


def test(arguments: argparse.Namespace) -> int:
    """Run the cases beside a plugin; the exit code is 1 if one of them failed."""
    from edge_agent.cli import plugintest

    return plugintest.test(arguments)


def unquarantine(arguments: argparse.Namespace) -> int:
    """Ask the running agent. ControlError: no agent answers."""
    from edge_agent.cli.status import control_socket
    from edge_agent.control import ask

    answer = ask(control_socket(arguments.config), "unquarantine", plugin=arguments.plugin)
    name, modules = printable(arguments.plugin), answer.get("modules")
    if not answer.get("released"):
        print(f"{name}: {printable(str(answer.get('problem')))}")
        return PROBLEM
    lifted = ["its crashes are forgotten"] if answer.get("crashes") else []
    if modules:
        lifted.append(f"{modules} of its modules may run again that did not")
    print(f"{name} runs again: {', '.join(lifted)}")
    return OK


def _run(arguments: argparse.Namespace, plugin: "PluginFile") -> int:
    import json

    from google.protobuf import json_format

    from edge_agent.authors import trial, tryout
    from edge_agent.errors import ConfigError
    from edge_agent.nri.events import SYNCHRONIZE

    if arguments.request and len(arguments.event or ()) > 1:
        raise ConfigError("--request is for one event; of several write --event EVENT=FILE")
    asked = tryout.asked_events(plugin, arguments.event or [], arguments.request)
    if arguments.show_request:
        for _, request, _ in asked:
            print(json_format.MessageToJson(request, preserving_proto_field_name=True))
        return OK
    sync = tryout.message(SYNCHRONIZE)
    if arguments.sync:
        sync = tryout.read_request(arguments.sync, SYNCHRONIZE)
    with trial.Trial(
        plugin, _runtime(arguments), engine=arguments.engine, count_fuel=arguments.fuel
    ) as running:
        for method, request, _ in asked:
            running.check(method, request)
        begun = running.begin(sync)
        outcomes: list[trial.Outcome] = []
        for method, request, source in asked:
            outcome = running.event(method, request)
            outcomes.append(outcome if outcomes else outcome.after(begun))
            if not arguments.json:
                for subject, text in trial.as_text(outcomes[-1], f"{method}, {source}"):
                    print(f"{subject:10}{printable(text)}")
            if outcome.kind not in ("ok", "error", "rejected", "denied"):
                break  # there is no instance any more
    if arguments.json:
        told = [trial.as_json(outcome) for outcome in outcomes]
        print(json.dumps(told if len(asked) > 1 else told[0], indent=2))
    return OK if all(outcome.kind == "ok" for outcome in outcomes) else PROBLEM


def _plugin(arguments: argparse.Namespace) -> "PluginFile":
    from edge_agent.authors.tryout import read_plugin

    return read_plugin(arguments.file, arguments.config, arguments.settings)


def _runtime(arguments: argparse.Namespace) -> "Runtime":
    from edge_agent.authors.tryout import Runtime
    from edge_agent.errors import ConfigError

    name, version = arguments.runtime_name, arguments.runtime_version
    if arguments.runtime is not None:
        if name or version:
            raise ConfigError("--runtime says what --runtime-name and --runtime-version say")
        name, at, version = arguments.runtime.partition("@")
        if not (name and at and version):
            raise ConfigError(f"--runtime wants NAME@VERSION, not {printable(arguments.runtime)}")
    return Runtime(name or Runtime.name, version or Runtime.version)
