"""What the operator changes on the board: the plugin folder, looked at each second, and the
configuration, read again on SIGHUP."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_agent.config import AgentConfig, load_agent_config
from edge_agent.errors import ConfigError
from edge_agent.host.plugin_folder import PluginFolder, Scan
from edge_agent.loop import Loop, Timer

log = logging.getLogger(__name__)

SCAN_S = 1.0  # between two looks at the plugin folder; a file is taken after two equal ones
# Keys of the configuration that are read at the start only.
NEEDS_RESTART = (
    *("node", "fleet", "state_dir", "control_socket"),
    *("engine", "nri", "mqtt", "updates", "requests"),
)


def _nothing() -> None:
    pass


class LocalFiles:
    """All methods belong to the loop's thread; `run` has something done on a thread that may wait
    for the disk."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        config: AgentConfig,
        config_path: Path,
        scanned: Callable[[Scan], None],
        configured: Callable[[AgentConfig], None],
    ) -> None:
        """`scanned` gets what is in the folder, `configured` each later configuration."""
        self.config = config
        self._loop = loop
        self._run = run
        self._config_path = config_path
        self._scanned = scanned
        self._configured = configured
        self._folder = PluginFolder(config.plugin_dir, config.limits, config.report)
        self._timer: Timer | None = None
        self._with_fleet = config.updates is not None  # deployments choose by labels

    def scan(self, then: Callable[[], None] = _nothing) -> None:
        """Look at the folder, now and each second from then on; `then` is called once what was
        found there is applied."""
        self._run(partial(self._look, then))

    def reload(self, done: Callable[[], None]) -> None:
        """Read the configuration again, and the folder with it; `done` is called once both are
        applied, or the configuration was refused."""
        log.info("reading the configuration again")
        self._run(partial(self._read, done))

    def _look(self, then: Callable[[], None]) -> None:
        """On the other thread."""
        scan = None
        try:
            scan = self._folder.scan()
        finally:  # whatever happens there, the next scan comes
            self._loop.call_soon(partial(self._looked, scan, then))

    def _looked(self, scan: Scan | None, then: Callable[[], None]) -> None:
        if scan is not None:
            self._scanned(scan)
        then()
        if self._timer is None or not self._timer.pending:
            self._timer = self._loop.call_later(SCAN_S, self.scan)

    def _read(self, done: Callable[[], None]) -> None:
        """On the other thread."""
        try:
            config = load_agent_config(self._config_path)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
            self._loop.call_soon(done)
            return
        self._loop.call_soon(partial(self._apply, config, done))

    def _apply(self, config: AgentConfig, done: Callable[[], None]) -> None:
        before, self.config = self.config, config
        # Read anew with the new defaults; releases that come out equal are not touched.
        self._run(partial(self._folder.configure, config.plugin_dir, config.limits, config.report))
        self.scan(done)
        self._configured(config)
        chosen_by = ("labels",) if self._with_fleet else ()
        for name in (*NEEDS_RESTART, *chosen_by):
            if getattr(before, name) != getattr(config, name):
                log.warning("%s changed in the configuration: restart the agent to use it", name)
