"""The catalogue of a node: trust, generations, releases that run, rejections, quarantines. Pure.

The value is immutable, and its transitions are named as the protocol's steps. How it is kept on
disk: edge_agent.store.catalogue_store.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId, Release

# What is remembered of digests that a node will hardly see again; the oldest go first.
MAX_REMEMBERED = 256

T = TypeVar("T")


class Known(NamedTuple):
    """The latest deployment ever accepted, by epoch and generation; generation 0: none yet."""

    generation: int = 0
    payload_sha256: str = ""  # hex
    issued: float = 0.0  # seconds since 1970
    epoch: int = 0  # the trust set's version that began this count; 0: the first count

    @property
    def order(self) -> tuple[int, int]:
        """Epoch and generation; the next deployment's must be higher."""
        return self.epoch, self.generation


NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class Kept:
    """One plugin: what is to run, and the proven release to go back to.

    `probation`: `current` has not been kept yet.
    """

    current: Release
    previous: Release | None = None
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
            release.digest
            for kept in self.plugins.values()
            for release in (kept.current, kept.previous)
            if release is not None
        )

    @property
    def codes(self) -> frozenset[Digest]:
        """The files of machine code that stay beside them."""
        return frozenset(
            release.code.digest
            for kept in self.plugins.values()
            for release in (kept.current, kept.previous)
            if release is not None and release.code is not None
        )


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


def activated(catalogue: Catalogue, releases: Iterable[Release]) -> Catalogue:
    """Everything pending is on the disk; these releases replace all that ran.

    One that ran already, set up alike, stays as it is, whatever code it is run by. A new one is
    on probation, and what is kept for going back to is the release before it that was proven.
    """
    plugins = {}
    for each in releases:
        before = catalogue.plugins.get(each.identity)
        if before is None:
            plugins[each.identity] = Kept(each)
        elif replace(before.current, code=each.code) == each:
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
        release.digest
        for each in catalogue.plugins.values()
        for release in (each.previous, None if each.probation else each.current)
        if release is not None
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
    here = {
        key
        for kept in catalogue.plugins.values()
        for release in (kept.current, kept.previous)
        if release is not None
        for key in (release.digest, release.setup)
    }
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
