"""Where plugins come from, as one set: the board's own folder and the fleet's deployments."""

from collections.abc import Callable, Collection, Mapping

from edge_agent.host.plugin_folder import Scan
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

Apply = Callable[[Mapping[PluginId, Release], Mapping[str, str]], None]
"""(what is to run, what is wrong), both by identity."""
Keep = Callable[[Collection[tuple[Digest, bool]]], None]
"""The (digest, metered) of which compiled code is to be kept; all else may go."""


class PluginSources:
    """`apply` is called with the whole once both halves are known, and at each change.

    With one half alone the plugins of the other would end, and forget their state.
    """

    def __init__(self, apply: Apply, keep: Keep, with_fleet: bool) -> None:
        self._apply = apply
        self._keep = keep
        self._folder: Scan | None = None
        self._fleet: Mapping[PluginId, Release] | None = None if with_fleet else {}
        self._fleet_keeps: Collection[Digest] = ()

    def folder(self, scan: Scan) -> None:
        """What the folder holds; nothing happens if that is what it held before."""
        if scan != self._folder:
            self._folder = scan
            self._tell()

    def fleet(self, releases: Mapping[PluginId, Release], keeps: Collection[Digest]) -> None:
        """What the fleet deploys here, and digests of what may have to run again."""
        self._fleet, self._fleet_keeps = releases, keeps
        self._tell()

    def fleet_begun(self) -> None:
        """The deployments that the disk remembers are known by now, if there are any."""
        if self._fleet is None:
            self.fleet({}, ())

    def deployed(self, identity: PluginId, digest: Digest) -> Release | None:
        """The release, if it is the fleet's."""
        found = (self._fleet or {}).get(identity)
        return found if found is not None and found.digest == digest else None

    def _tell(self) -> None:
        if self._folder is None or self._fleet is None:
            return
        own, fleet = self._folder.releases, self._fleet
        twice: dict[str, str] = {
            identity: f"{identity}: {own[identity].path} runs in place of what the fleet deploys; "
            "remove it to go with the fleet"
            for identity in own.keys() & fleet.keys()
        }
        self._apply({**self._folder.unusable, **fleet, **own}, {**twice, **self._folder.errors})
        if not any(map(self._unread, self._folder.errors)):  # its code will be wanted once it is
            running = {(each.digest, each.metered) for each in (*own.values(), *fleet.values())}
            again = {(digest, metered) for digest in self._fleet_keeps for metered in (False, True)}
            self._keep(running | again)

    def _unread(self, name: str) -> bool:
        """Whether an error is about a plugin of which no release is known, or the whole folder."""
        assert self._folder is not None
        plugin = PluginId.parse(name) is not None or "/" in name  # not just a file's name
        return plugin and name not in self._folder.releases
