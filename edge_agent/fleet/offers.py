"""The machine code that documents offer beside modules, and why a node does without it. Pure.

A node can do without any of it: it compiles the module itself. So nothing here keeps a deployment
from running: what does not come in one round through its sources is given up.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from edge_agent.fleet.plan import Target
from edge_agent.store.catalogue import Running
from edge_agent.store.digest import Digest

log = logging.getLogger(__name__)

MAX_TOLD = 200  # characters of a reason


class Offers:
    """By digest of the code: what was tried in vain. One thread."""

    def __init__(self) -> None:
        self._refused: dict[Digest, str] = {}

    def refuse(self, digest: Digest, reason: str) -> None:
        """Do without this file; it is logged."""
        if digest not in self._refused:
            log.warning("machine code %s: %s; its module is compiled here", digest, reason)
            self._refused[digest] = reason

    def clear(self) -> None:
        """Try all of it anew, as for each new document, which bounds what is remembered."""
        self._refused = {}

    def lacking(self, target: Target, has: Callable[[Digest], bool]) -> Collection[Digest]:
        """Digests of what is still to be tried."""
        return [each for each in target.codes if each not in self._refused and not has(each)]

    def told(self, target: Target, has: Callable[[Digest], bool]) -> dict[str, str]:
        """By identity: "" where the fleet's code is here, or why the node does without."""
        found = dict(target.misfits)
        for running in target.running:
            if running.code is not None:
                digest = running.code.digest
                missing = self._refused.get(digest, "it is not here")
                found[running.identity] = "" if has(digest) else missing
        return {identity: reason[:MAX_TOLD] for identity, reason in found.items()}


def here(running: Iterable[Running], has: Callable[[Digest], bool]) -> list[Running]:
    """The same, naming the code only that is on the disk."""
    return [each.by(each.code if each.code and has(each.code.digest) else None) for each in running]


def merged(targets: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What the first says of a plugin counts."""
    found: dict[str, str] = {}
    for each in targets:
        found = {**each, **found}
    return found
