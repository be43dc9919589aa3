"""What a node remembers of its fleet: the trust, the generations, what runs and what may not. Pure.

The value is immutable, and its transitions are named as the protocol's steps. How it is kept on
disk: edge_agent.store.catalogue_store.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple, TypeVar

from edge_agent import strictjson
from edge_agent.config.model import PluginSettings
from edge_agent.store.digest import Digest, sha256_hex
from edge_agent.store.release import Code, PluginId

# What is remembered of digests that a node will hardly see again; the oldest go first.
MAX_REMEMBERED = 256

T = TypeVar("T")


class Known(NamedTuple):
    """Of the latest deployment ever accepted, by epoch and generation; generation 0: none yet."""

    generation: int = 0
    payload_sha256: str = ""  # hex
    issued: float = 0.0  # seconds since 1970
    epoch: int = 0  # the trust set's version that began this count; 0: the first count

    @property
    def order(self) -> tuple[int, int]:
        """What the next deployment must be above."""
        return self.epoch, self.generation


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class Running:
    """All that is needed to run one release again without any document."""

    name: str
    index: str
    version: str
    digest: Digest  # of the module
    size: int
    config: str
    settings: PluginSettings
    code: Code | None = None  # the fleet's, that is used where it is on the disk

    def by(self, code: Code | None) -> "Running":
        """The same release, run by this code of the fleet's, or by none."""
        return self if code == self.code else replace(self, code=code)

    @property
    def metered(self) -> bool:
        """Whether its code must count its fuel."""
        return self.settings.limits.fuel > 0

    @property
    def identity(self) -> PluginId:
        """As everywhere on a node."""
        return PluginId.of(self.index, self.name)

    @property
    def setup(self) -> str:
        """The digest together with how the module is set up, as `rejected` may hold it."""
        return setup_key(self.digest, self.config, self.settings)


@dataclass(frozen=True)
class Kept:
    """One plugin: what is to run, and the proven release to go back to.

    `probation`: `current` has not been kept yet.
    """

    current: Running
    previous: Running | None = None
    probation: bool = True


@dataclass(frozen=True)
class Catalogue:
    """Everything; the mappings are never changed in place."""

    known: Known = NOTHING_KNOWN
    trust: str = ""  # the payload of the newest trust set; "": the node's files count
    trust_root: str = ""  # what files `trust` began with, for when they are replaced by hand
    pending: str = ""  # the payload of a deployment of which something is still to be fetched
    active: str = ""  # the payload of the deployment that is being run
    plugins: Mapping[PluginId, Kept] = field(default_factory=dict)  # by identity
    rejected: Mapping[str, str] = field(default_factory=dict)  # digest or setup -> reason
    quarantined: Mapping[str, str] = field(default_factory=dict)  # digest -> reason

    @property
    def digests(self) -> frozenset[Digest]:
        """The modules that must stay on the disk."""
        return frozenset(
            running.digest
            for kept in self.plugins.values()
            for running in (kept.current, kept.previous)
            if running is not None
        )

    @property
    def codes(self) -> frozenset[Digest]:
        """The files of machine code that stay beside them."""
        return frozenset(
            running.code.digest
            for kept in self.plugins.values()
            for running in (kept.current, kept.previous)
            if running is not None and running.code is not None
        )


def setup_key(digest: Digest, config: str, settings: PluginSettings) -> str:
    """A name for one module with one configuration: "sha256:HEX+" and 16 digits."""
    values = asdict(settings)
    if settings.runtimes is None:  # as before there was such a key: what was rejected stays so
        del values["runtimes"]
    told = strictjson.dumps([config, values])
    return f"{digest}+{sha256_hex(told)[:16]}"


# The steps of the protocol. Each returns the catalogue as it is afterwards.


def trusted(catalogue: Catalogue, payload: bytes, root: str) -> Catalogue:
    """A trust set was accepted. `root` names the files that its chain began with."""
    return replace(catalogue, trust=payload.decode(), trust_root=root)


def accepted(catalogue: Catalogue, known: Known, payload: bytes) -> Catalogue:
    """A deployment passed all checks; whatever was pending is obsolete.

    ValueError: its epoch and generation are not above all before.
    """
    if known.order <= catalogue.known.order:
        raise ValueError(f"generation {known.order} after {catalogue.known.order} was accepted")
    return replace(catalogue, known=known, pending=payload.decode())


def activated(catalogue: Catalogue, running: Iterable[Running]) -> Catalogue:
    """Everything pending is here; these releases take the place of all that ran.

    One that ran already, set up alike, stays as it is, whatever code it is run by. A new one is
    on probation, and what is kept for going back to is the release before it that was proven.
    """
    plugins = {}
    for each in running:
        before = catalogue.plugins.get(each.identity)
        if before is None:
            plugins[each.identity] = Kept(each)
        elif before.current.by(each.code) == each:
            plugins[each.identity] = replace(before, current=each)
        else:
            proven = before.previous if before.probation else before.current
            plugins[each.identity] = Kept(each, proven)
    return replace(
        catalogue,
        active=catalogue.pending or catalogue.active,
        pending="",
        plugins=plugins,
    )


def kept(catalogue: Catalogue, identity: PluginId) -> Catalogue:
    """The current release has passed its probation."""
    found = catalogue.plugins[identity]
    return _with(catalogue, identity, replace(found, probation=False))


def rejected(catalogue: Catalogue, identity: PluginId, reason: str) -> Catalogue:
    """The current release failed its probation: the one before it runs, if there is one.

    If the module has proven itself with another configuration, or under another name, it is
    not to blame, and it is this configuration of it that is not tried again.
    """
    found = catalogue.plugins[identity]
    current, previous = found.current, found.previous
    proven = {
        running.digest
        for each in catalogue.plugins.values()
        for running in (each.previous, None if each.probation else each.current)
        if running is not None
    }
    refused = {current.setup if current.digest in proven else current.digest: reason}
    after = replace(catalogue, rejected=_remembered(catalogue.rejected, refused))
    return _with(after, identity, None if previous is None else Kept(previous, None, False))


def quarantined(catalogue: Catalogue, digest: Digest, reason: str) -> Catalogue:
    """This module is not run until the quarantine is lifted."""
    held = _remembered(catalogue.quarantined, {digest: reason})
    return replace(catalogue, quarantined=held)


def unquarantined(catalogue: Catalogue, digest: Digest) -> Catalogue:
    """An operator lets this module run again: nothing is held against it any more."""
    return replace(
        catalogue,
        rejected={
            key: reason
            for key, reason in catalogue.rejected.items()
            if key.partition("+")[0] != digest
        },
        quarantined=_without(catalogue.quarantined, digest),
    )


def settled(catalogue: Catalogue, named: Collection[str]) -> Catalogue:
    """No rejection is remembered of what no document names any more.

    `named` are the digests and setups of the documents; what runs here counts too.
    """
    runs = [
        running
        for kept in catalogue.plugins.values()
        for running in (kept.current, kept.previous)
        if running is not None
    ]
    here = {key for running in runs for key in (running.digest, running.setup)}
    left = {
        key: reason for key, reason in catalogue.rejected.items() if key in named or key in here
    }
    return catalogue if left == catalogue.rejected else replace(catalogue, rejected=left)


def _with(catalogue: Catalogue, identity: PluginId, plugin: Kept | None) -> Catalogue:
    plugins = dict(catalogue.plugins)
    if plugin is None:
        del plugins[identity]
    else:
        plugins[identity] = plugin
    return replace(catalogue, plugins=plugins)


def _remembered(before: Mapping[str, T], new: Mapping[str, T]) -> dict[str, T]:
    """With `new` at the end, and not more than MAX_REMEMBERED."""
    old = {key: value for key, value in before.items() if key not in new}
    return dict(list({**old, **new}.items())[-MAX_REMEMBERED:])


def _without(before: Mapping[str, T], gone: str) -> dict[str, T]:
    return {key: value for key, value in before.items() if key != gone}
