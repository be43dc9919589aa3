"""The composition root: makes every room, connects them, and ends them in order.

folder ──scan──┐
               ├─► supervisor ─► slots ─► plugins ─result─► MQTT link
updates ─plan──┘
   (loader and worker threads)  (the loop's thread)    (its own thread)
"""

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent import __version__, process
from edge_agent.config import AgentConfig, UpdatesConfig
from edge_agent.control import ControlServer, Deferred, Verb
from edge_agent.fleet_protocol.event_result import EventResult
from edge_agent.host.crash_marker import CrashMarker, look_back
from edge_agent.host.crash_policy import CrashPolicy, Quarantine
from edge_agent.host.loader import Loader
from edge_agent.host.pluginstates import PluginStates
from edge_agent.host.supervisor import Supervisor
from edge_agent.logs import set_level
from edge_agent.loop import Loop
from edge_agent.node.exposure import Exposure
from edge_agent.node.plugin_sources import LocalFiles, PluginSources
from edge_agent.node.state_publisher import State, StatePublisher, summary
from edge_agent.notify import Notifier, Readiness
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release
from edge_agent.wasm.artifacts import Artifacts, machine_of
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.guestlog import AgentLog

if TYPE_CHECKING:
    from edge_agent.mqtt.certificate import CertificateWatch
    from edge_agent.node.recorder import Recorder
    from edge_agent.node.remote import Remote
    from edge_agent.node.requests import Job
    from edge_agent.node.updates import Updates
    from edge_agent.store.release import Machine

log = logging.getLogger(__name__)

# How long a thread keeps the interpreter while the answering thread wants it; the
# default of 5 ms would be the worst delay of an answer.
SWITCH_INTERVAL_S = 0.0005
# Of `run`, no exit codes: the caller starts the program anew; or ends it at once, because a
# thread is still within an engine, which crashes in an interpreter that ends.
AGAIN, BUSY = -1, -2


def run(config: AgentConfig, config_path: Path, notifier: Notifier) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. `notifier` tells the service manager.

    AGAIN: the fleet asked for a restart. BUSY: all is closed, but threads.
    EngineError: no Wasm engine. ControlError: another agent runs. Nothing was done then.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with Loop() as loop:
        agent = Agent(loop, config, config_path, notifier)
        agent.start()
        with _signals(loop, agent):
            loop.run()
        agent.stop()
        notifier.close()
    if agent.restarts:
        return AGAIN
    return BUSY if agent.busy else 0


class Agent:
    """Everything of one process. All methods belong to the loop's thread."""

    def __init__(
        self, loop: Loop, config: AgentConfig, config_path: Path, notifier: Notifier
    ) -> None:
        self._loop = loop
        self._notifier = notifier
        self._config_path = config_path
        self._began = time.monotonic()  # boards without a clock of their own jump by years
        self._engine, self._engine_why = select_engine(config.engine)
        self._artifacts = Artifacts(config.state_dir)
        self._crash_marker = CrashMarker()
        self._loader = Loader(
            loop,
            partial(self._artifacts.stored, self._engine),
            partial(self._artifacts.module, self._engine),
            AgentLog,
            self._crash_marker,
            lambda release: self._crash_policy.refuses_code(release),
        )
        run = self._loader.run
        self._state_publisher = StatePublisher(loop, run, self._make_state, self._tell)
        self._states = PluginStates(loop, config.state_dir / "plugin-state", run)
        self._crash_policy = CrashPolicy(config.state_dir / "crashes", run)
        self._recorder: Recorder | None = None  # from the first `edge-agent record` on
        self._supervisor = Supervisor(
            loop,
            config.nri,
            self._loader,
            self._report,
            self._state_publisher.changed,
            self._judged,
            self._crash_policy,
            self._states,
        )
        self._readiness = Readiness(loop, notifier, config.ready_wait_s, self._supervisor.unsettled)
        self._updates: Updates | None = None
        self._quarantine = Quarantine(self._supervisor.unquarantine, lambda: self._updates)
        self._remote = self._make_remote(config)
        self._plugin_sources = PluginSources(self._apply, self._keep, config.updates is not None)
        self._updates = self._make_updates(config)
        self._local = LocalFiles(
            loop, run, config, config_path, self._plugin_sources.folder, self._configured
        )
        # "release" was the word for it before.
        verbs: dict[str, Verb] = {
            "status": self._status,
            "unquarantine": self._unquarantine,
            "release": self._unquarantine,
            "record": self._record,
        }
        self._control = ControlServer(loop, config.control_socket, verbs)
        self._exposure = Exposure(loop, run, self._state_publisher.changed)
        self._certificate: CertificateWatch | None = None

    @property
    def _config(self) -> AgentConfig:
        """The one that counts at present."""
        return self._local.config

    def start(self) -> None:
        """Open the control socket, read the plugins, connect to runtimes and broker."""
        self._control.open()
        log.info("edge-agent %s as %s; engine %s", __version__, self._config.node, self._engine_why)
        self._states.begin()
        # Only now: no other agent is there.
        self._crash_policy.begin(
            *look_back(
                self._crash_marker, self._config.control_socket, self._artifacts.remove_damaged
            )
        )
        self._state_publisher.start()
        if self._remote is not None:
            self._remote.key.begin()
            self._remote.answer_kept()
            self._remote.link.start()
        if self._updates is not None:
            self._updates.start()
        self._notifier.start(self._loop)
        self._local.scan(self._readiness.begin)
        self._exposure.watch(self._config, self._config_path)
        self._watch_certificate(self._config)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again

    def stop(self) -> None:
        """Close every session, say `offline`, leave nothing behind."""
        log.info("ending")
        self._notifier.stopping()
        self._control.close()
        self._supervisor.close()
        if self._updates is not None:
            self._updates.stop()
        self._states.close()
        self._loader.stop()
        self._crash_marker.close()
        if self._remote is not None:
            self._remote.link.stop()

    @property
    def restarts(self) -> bool:
        """Whether the process is to be started again, as the fleet asked."""
        return self._remote is not None and self._remote.restart.due

    @property
    def busy(self) -> bool:
        """After `stop`: whether a guest or its code is still being made."""
        return self._loader.busy

    def reload(self) -> None:
        """Read the configuration and the folder again (SIGHUP)."""
        self._readiness.reloading()
        self._local.reload(self._readiness.reloaded)

    # --- from the rooms

    def _apply(self, releases: Mapping[PluginId, Release], errors: Mapping[str, str]) -> None:
        self._supervisor.apply(releases, errors)
        limits = [each.settings.limits.deadline_ms for each in releases.values()]
        # At each runtime at once an answer and, in a handover, what the successor is shown.
        self._notifier.expect_absence(
            2 * len(self._config.nri.sockets) * max(limits, default=0) / 1000
        )
        self._loader.run(process.trim)  # after what was asked to be loaded

    def _keep(self, code: Collection[tuple[Digest, bool]]) -> None:
        keys = {self._artifacts.key(self._engine, *each) for each in code}

        def collect() -> None:
            """On the compiler's thread: no artifact goes while one is made."""
            self._artifacts.collect(keys)

        self._loader.run_apart(collect)

    def _judged(self, identity: PluginId, digest: Digest, kept: bool, reason: str) -> None:
        release = self._plugin_sources.deployed(identity, digest)
        if self._updates is not None and release is not None:
            self._updates.verdict(release, kept, reason)

    def _configured(self, config: AgentConfig) -> None:
        set_level(config.log)
        self._exposure.watch(config, self._config_path)
        self._watch_certificate(config)

    def _report(self, result: EventResult) -> None:
        self._crash_policy.answered(result)
        if self._recorder is not None:
            self._recorder.answered(result)
        if self._remote is not None:
            self._remote.report(result)

    def _tell(self, state: State) -> None:
        self._notifier.status(summary(state))
        if self._remote is not None:
            self._remote.link.state_changed()

    def _make_state(self) -> State:
        return {
            "agent": __version__,
            "node": self._config.node,
            "labels": dict(self._config.labels),
            "architecture": os.uname().machine,
            "engine": {
                "name": self._engine.name,
                "version": self._engine.version,
                "settings": self._engine.settings(),
                "why": self._engine_why,
            },
            "runtimes": self._supervisor.runtimes(),
            "plugins": self._supervisor.plugins(),
            **({"updates": self._updates.status()} if self._updates is not None else {}),
            **self._certificate_state(),
            **({"writable_by_others": told} if (told := self._exposure.reported()) else {}),
            "uptime_s": round(time.monotonic() - self._began),
        }

    def _certificate_state(self) -> State:
        told = self._certificate.reported() if self._certificate is not None else None
        return {} if told is None else {"certificate": told}

    def _watch_certificate(self, config: AgentConfig) -> None:
        mqtt = config.mqtt
        if mqtt is None or mqtt.cert_file is None:
            return
        if self._certificate is None:
            from edge_agent.mqtt.certificate import CertificateWatch

            self._certificate = CertificateWatch(
                self._loop, self._loader.run, self._state_publisher.changed
            )
        self._certificate.watch(mqtt.cert_file)

    def _status(self, _arguments: dict[str, object]) -> dict[str, object]:
        status = self._state_publisher.now()
        if self._remote is not None:
            status["mqtt"] = dict(self._remote.link.status())
            status["key"] = dict(self._remote.key.status())
        return status

    def _unquarantine(self, arguments: dict[str, object]) -> Deferred:
        answer = Deferred(self._loop)
        identity = str(arguments.get("plugin", ""))
        self._quarantine.lift(identity, lambda lifted: answer.give(lifted.answer))
        return answer

    def _record(self, arguments: dict[str, object]) -> dict[str, object]:
        from edge_agent.node.recorder import Recorder

        self._recorder = self._recorder or Recorder(self._loop)
        return self._recorder.verb(arguments)

    def _make_updates(self, config: AgentConfig) -> "Updates | None":
        if config.updates is None:
            return None
        from edge_agent.node.updates import Updates

        link = self._remote.link if self._remote is not None else None
        updates = Updates(
            self._loop,
            config,
            link,
            self._plugin_sources.fleet,
            self._plugin_sources.fleet_begun,
            self._state_publisher.changed,
            self._machine(config.updates),
        )
        if self._remote is not None:
            self._remote.fleet(updates)
        return updates

    def _machine(self, config: UpdatesConfig) -> "Machine | None":
        """The machine that the fleet's machine code must be made for; None: such code is
        refused."""
        if config.compiled != "accept":
            return None
        found = machine_of(self._engine)
        if found is None:
            log.warning(
                "the engine %s %s loads no code from elsewhere: plugins are compiled here",
                self._engine.name,
                self._engine.version,
            )
        return found

    def _make_remote(self, config: AgentConfig) -> "Remote | None":
        if config.mqtt is None:
            return None
        # Only a node with a broker pays for what this takes.
        from edge_agent.node.actions import Actions, LogBuffer
        from edge_agent.node.nodekey import NodeKey
        from edge_agent.node.remote import Remote
        from edge_agent.node.requests import Restart

        log_buffer = LogBuffer()
        run, loop = self._loader.run, self._loop
        restart = Restart(loop, run, loop.stop, config.state_dir)
        key = NodeKey(loop, run, self._state_publisher.changed, config.state_dir)

        def record(job: "Job") -> Callable[[], None]:
            """On a thread of its own, which may read files."""
            from edge_agent.node import fleet_recording

            return fleet_recording.record(job, config, self._config_path, key.seal, remote.offer)

        actions = Actions(
            self._supervisor,
            log_buffer,
            self._config_path,
            restart.perform,
            lambda: self._updates,
            self._quarantine,
            record,
        )
        remote = Remote(
            loop,
            config,
            lambda: self._state_publisher.state,
            actions.by_verb,
            log_buffer,
            key,
            restart,
        )
        return remote


class _signals:
    """SIGTERM and SIGINT stop the loop, SIGHUP re-reads; as it was afterwards."""

    def __init__(self, loop: Loop, agent: Agent) -> None:
        self._wake_fd = loop.wake_fd
        stop: Callable[[], None] = partial(loop.call_soon, loop.stop)
        reload: Callable[[], None] = partial(loop.call_soon, agent.reload)
        self._actions = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)
        for number, action in self._actions.items():
            self._before[number] = signal.signal(number, lambda *_, action=action: action())

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
