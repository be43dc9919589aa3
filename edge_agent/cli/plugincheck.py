"""`edge-agent plugin check`: each step of a plugin's start, as findings."""

from difflib import get_close_matches
from typing import Any

from edge_agent.authors import manifest
from edge_agent.authors.tryout import PluginFile, Runtime, Tryout, sample
from edge_agent.cli.checks import Finding, Level
from edge_agent.config import PERMISSIONS
from edge_agent.config.units import format_size
from edge_agent.errors import EdgeAgentError, GuestError, GuestFault
from edge_agent.nri import events, permissions
from edge_agent.nri.applied import asked_fields
from edge_agent.nri.capabilities import carrier
from edge_agent.nri.difference import changes
from edge_agent.nri.events import DECODE_ERRORS
from edge_agent.pb import nri_pb2
from edge_agent.wasm import wasi
from edge_agent.wasm.engine_selection import AUTO
from edge_agent.wasm.guestlog import WARN
from edge_agent.wasm.imports import check_imports

# Methods that every generation of NRI calls by their own name.
_ALWAYS_OWN = frozenset(("CreateContainer", "UpdateContainer", "StopContainer"))
_ALIKE = 0.85  # of difflib: two letters wrong of the shortest name, "plugin_configure"
_EDGE = "edge"  # the module of the imports that only this agent offers
_FAULTS = {
    "memory": "let it use less, or raise limits.memory in NN-name.toml",
    "timeout": "let it do less at once, or raise limits.start or limits.deadline in NN-name.toml",
    "fuel": "let it do less, or raise limits.fuel in NN-name.toml (plugin run --fuel counts)",
    "calls": "let it call its host less often for one event (docs/plugins.md)",
    "trap": "it crashed; its own log lines and a debug build tell where",
    "abi": "it does not keep to the guest ABI (docs/plugins.md)",
}


_BUILD = (
    "Go: build with -buildmode=c-shared, a program has none of these; C: NRI_PLUGIN of"
    " plugins/sdk makes them (docs/plugins.md)"
)
CREATE = "CreateContainer"
_DROPS = "docs/runtimes.md, What a runtime drops; another build of that version may differ"


class Check:
    """Takes the steps up to the first failure. `findings` are for people, `facts` for tools."""

    def __init__(self, plugin: PluginFile, runtime: Runtime, engine: str = AUTO) -> None:
        self.plugin = plugin
        self.runtime = runtime
        self._engine = engine
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {}
        # (step, what it is about, whether those after it make no sense without it)
        self._steps = (
            (self._module, "module", True),
            (self._abi, "abi", False),
            (self._imports, "imports", False),
            (self._memory, "memory", False),
            (self._said, "plugin.toml", False),
            (self._compile, "compile", True),
            (self._start, "start", True),
            (self._configure, "configure", True),
            (self._synchronize, "synchronize", True),
            (self._carried, "runtime", False),
        )

    @property
    def failed(self) -> bool:
        return any(finding.level == "fail" for finding in self.findings)

    def run(self) -> None:
        """Take all steps that are possible."""
        with Tryout(self.plugin, self._engine) as tryout:
            for step, subject, needed in self._steps:
                if subject == "start" and self.failed:
                    break  # what is wrong already would only be said again
                try:
                    step(tryout)
                except EdgeAgentError as error:
                    self._failed(subject, error)
                    if needed:
                        break
            self._lines(tryout)

    def _add(self, level: Level, subject: str, text: str, todo: str = "") -> None:
        self.findings.append(Finding(level, subject, text, todo))

    def _failed(self, subject: str, error: EdgeAgentError) -> None:
        text, todo = " ".join(str(error).split()), ""
        if isinstance(error, GuestFault):
            todo = _FAULTS.get(error.kind, "")
            text = f"{error.kind}: {text}"
        elif isinstance(error, GuestError):
            text = f"the plugin refuses: {text}"
        elif subject == "abi":
            todo = _BUILD
        self._add("fail", subject, text, todo)

    def _module(self, tryout: Tryout) -> None:
        size, digest = len(self.plugin.wasm), self.plugin.digest
        self.facts |= {"file": str(self.plugin.path), "size": size, "sha256": digest.hex}
        assert tryout.info.size == size
        self._add("ok", "module", f"{size} bytes, {digest}")

    def _abi(self, tryout: Tryout) -> None:
        exports = tryout.exports
        by_export = {export: method for method, export in events.ALL_EXPORTS.items()}
        methods = [method for method, export in events.ALL_EXPORTS.items() if export in exports]
        generation, text = _generation(frozenset(methods))
        self.facts |= {"generation": generation, "methods": methods}
        self._add("ok", "abi", text)
        self._add("ok", "methods", _list(methods))
        if strange := sorted(exports - by_export.keys()):
            self.facts["unknown_methods"] = strange
            todo = _meant(strange) or "a spelling mistake, or of a newer NRI than this agent's"
            self._add("warn", "methods", f"{', '.join(strange)}: no runtime calls these", todo)
        if not events.servable(exports):
            todo = "export one of the methods in docs/plugins.md, such as plugin_create_container"
            self._add("fail", "methods", "it can serve no event", todo)

    def _imports(self, tryout: Tryout) -> None:
        functions = tryout.functions
        found = []
        for each in tryout.info.imports:
            function = functions.get((each.module, each.name))
            granted = function is not None and function.type == each.type
            found.append({"module": each.module, "name": each.name, "granted": granted})
        self.facts["imports"] = found
        shown = [str(each) for each in tryout.info.imports if each.module != wasi.MODULE]
        if count := len(found) - len(shown):
            shown.append(f"{count} of WASI")
        check_imports(tryout.info, functions)
        self._add("ok", "imports", f"{', '.join(shown) or 'none'}: all granted")
        if any(each.module == _EDGE for each in tryout.info.imports):
            todo = "a runtime's own Wasm host does not offer them"
            self._add("ok", "imports", "with those of edge it runs in edge-agent only", todo)

    def _memory(self, tryout: Tryout) -> None:
        limit = self.plugin.settings.limits.memory_bytes
        begins, most = tryout.info.memory_bytes, tryout.info.memory_max_bytes
        self.facts["memory"] = {"start": begins, "max": most, "limit": limit}
        grows = "grows as it likes" if most is None else f"grows to {format_size(most)} at most"
        text = f"begins with {format_size(begins)}, {grows}; limit {format_size(limit)}"
        if begins > limit:
            todo = f'raise limits.memory in NN-name.toml to "{format_size(begins)}" or more'
            self._add("fail", "memory", text, todo)
        else:
            self._add("ok", "memory", text)

    def _said(self, tryout: Tryout) -> None:
        """The module's own plugin.toml, against its exports and the agent's settings."""
        said = manifest.embedded(self.plugin.path, self.plugin.wasm)
        if said is None:
            return
        self._add("ok", "plugin.toml", f"{said.name} {said.version}: {said.description}")
        absent = [each for each in said.events if f"plugin_{each}" not in tryout.exports]
        if absent:
            text = f"it says that it takes {', '.join(absent)}, and exports no such method"
            self._add("warn", "plugin.toml", text, "correct its events, and build again")
        granted = self.plugin.settings.permissions
        denied = [each for each in said.permissions if granted is not None and each not in granted]
        if denied:
            where = self.plugin.settings_path or "NN-name.toml"
            text = f"it needs {', '.join(denied)}, which {where} does not permit"
            self._add("warn", "plugin.toml", text, f"add them to permissions in {where}")

    def _compile(self, tryout: Tryout) -> None:
        tryout.compile()
        milliseconds = round(tryout.compile_s * 1000)
        self.facts |= {
            "compile_ms": None if tryout.was_kept else milliseconds,
            "artifact_bytes": tryout.artifact_bytes,
        }
        size = format_size(-(-tryout.artifact_bytes // 1024) * 1024)
        took = "as compiled before" if tryout.was_kept else f"{milliseconds} ms here, once"
        self._add("ok", "compile", f"{took}; {size} on disk")

    def _start(self, tryout: Tryout) -> None:
        tryout.start()
        self.facts["memory"]["started"] = tryout.memory_bytes
        text = f"answers plugin_api_version with 1; {format_size(tryout.memory_bytes)} in use"
        self._add("ok", "start", text)

    def _configure(self, tryout: Tryout) -> None:
        tryout.configure(self.runtime)
        exports = tryout.exports
        sent = tryout.subscribed(self.runtime)
        cut = events.names(tryout.wanted & ~sent)
        self.facts |= {"events": events.names(sent), "events_not_sent": cut}
        source = self.plugin.config_path or "no configuration"
        about = f"with {source}, {self.runtime.name} {self.runtime.version}"
        if events.EXPORTS[events.CONFIGURE] not in exports:
            about = "it takes no configuration"
        self._add("ok", "configure", about)
        self._add("ok", "events", _list(events.names(sent)))
        if cut:
            unserved = events.names(tryout.wanted & ~events.servable(exports))
            todo = "export their methods" if unserved else "a newer runtime sends them"
            self._add("warn", "events", f"{', '.join(cut)}: asked for, not sent", todo)

    def _synchronize(self, tryout: Tryout) -> None:
        reply = tryout.synchronize(b"")
        permissions.check(events.SYNCHRONIZE, reply, self.plugin.settings.permissions)
        told = nri_pb2.SynchronizeResponse.FromString(reply)
        for change in changes(nri_pb2.SynchronizeRequest(), told):
            self._add("warn", "synchronize", f"with nothing running it asks for: {change}")
        if events.EXPORTS[events.SYNCHRONIZE] in tryout.exports:
            self._add("ok", "synchronize", "takes the state of a runtime with nothing running")

    def _carried(self, tryout: Tryout) -> None:
        """The fields that the runtime would drop, by the table in docs/runtimes.md."""
        runtime = self.runtime
        known = carrier(runtime.name, runtime.version, "")
        about = f"{runtime.name} {runtime.version} (NRI {known})"
        granted = self.plugin.settings.permissions
        lost = known.missing(PERMISSIONS if granted is None else granted)
        used = _asked_of(tryout)
        dropped = [
            field for field in used if known.carries(field) is False and not known.fails(field)
        ]
        fails = [field for field in used if known.fails(field)]
        self.facts["runtime"] = {"name": runtime.name, "version": runtime.version}
        self.facts["runtime"] |= {"nri": str(known), "drops": lost}
        self.facts["runtime"] |= {"asked": used, "asked_dropped": dropped, "asked_fails": fails}
        if dropped:
            text = f"{about} drops {', '.join(dropped)}, which it asks for in the built-in request"
            self._add("warn", "runtime", text, _DROPS)
        if fails:
            text = f"{about} fails a creation over {', '.join(fails)}, which it asks for"
            self._add("warn", "runtime", f"{text} in the built-in request", _DROPS)
        if lost and granted is not None:
            text = f"{about} does not carry {', '.join(lost)}, for which it has permission"
            self._add("warn", "runtime", text, _DROPS)
        elif lost:
            text = f"{about} does not carry {', '.join(lost)}; without permissions it may use them"
            self._add("ok", "runtime", text, "what it asks for other containers is not known here")
        elif not dropped and not fails:
            self._add("ok", "runtime", f"{about} carries what it may touch")

    def _lines(self, tryout: Tryout) -> None:
        self.facts["log"] = [{"level": level, "text": text} for level, text in tryout.lines]
        for level, text in tryout.lines:
            self._add("warn" if level >= WARN else "ok", "log", text)


def _meant(exports: list[str]) -> str:
    """The events that these exports are nearly named after, as a question, or ""."""
    known = {export.replace("_", ""): export for export in events.EXPORTS.values()}
    asked = []
    for export in exports:
        near = get_close_matches(export.replace("_", "").lower(), known, 1, _ALIKE)
        asked += [f"{export}: did you mean {known[name]}?" for name in near]
    return "; ".join(asked)


def _asked_of(tryout: Tryout) -> list[str]:
    """The fields that it adjusts in the built-in CreateContainer request; [] if it fails there."""
    export = events.EXPORTS[CREATE]
    if export not in tryout.exports:
        return []
    request = sample(CREATE)
    assert isinstance(request, nri_pb2.CreateContainerRequest)
    try:
        reply = tryout.call(export, request.SerializeToString())
        return asked_fields(nri_pb2.CreateContainerResponse.FromString(reply).adjust)
    except (EdgeAgentError, *DECODE_ERRORS):
        return []  # `plugin run` tells why; the request may be none for it


def _list(methods: list[str]) -> str:
    """Methods by name, but not all 14 events one by one."""
    others = [method for method in methods if method not in events.BY_METHOD]
    if len(methods) - len(others) == len(events.BY_METHOD):
        return ", ".join([*others, f"all {len(events.BY_METHOD)} events"])
    return ", ".join(methods) or "none"


def _generation(methods: frozenset[str]) -> tuple[str, str]:
    """("old", "new" or "both", the same for people), by the pod and container methods."""
    own = methods & events.BY_METHOD.keys() - _ALWAYS_OWN - {events.VALIDATE.method}
    old = events.STATE_CHANGE in methods
    more = "; validates what others adjust" * (events.VALIDATE.method in methods)
    if own and old:
        return "both", f"both generations of NRI: own methods and StateChange{more}"
    if old:
        return "old", f"older generation of NRI: StateChange, which the agent translates{more}"
    if own:
        return "new", f"newer generation of NRI: own methods; the agent translates{more}"
    return "both", f"any generation of NRI: no pod or container event differs{more}"
