"""What could not be compiled rests for many times as long as that took.

Plugins are tried again and again (edge_agent.host.backoff); one that makes a compiler work until
it is stopped would keep a core busy for ever.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_agent.errors import EdgeAgentError, SupersededError

REST_FACTOR = 10  # ours: a tenth of one core at most

Key = tuple[str, bool]
"""Digest of the module, whether it was to count its fuel."""


class CompileBackoff:
    """Used by the threads of the loader; nothing in it waits."""

    def __init__(self) -> None:
        self._resting: dict[Key, tuple[float, EdgeAgentError]] = {}

    def check(self, key: Key) -> None:
        """Raise what was wrong the last time, if that was a short while ago."""
        until, error = self._resting.get(key, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise type(error)(str(error))

    @contextmanager
    def noted(self, key: Key) -> Iterator[None]:
        """Within it, the module is compiled."""
        began = time.monotonic()
        try:
            yield
        except SupersededError:
            raise  # says nothing of what has this digest
        except EdgeAgentError as error:
            now = time.monotonic()
            resting = {of: each for of, each in self._resting.items() if each[0] > now}
            # A new one: what was raised would keep frames.
            resting[key] = (now + REST_FACTOR * (now - began), type(error)(str(error)))
            self._resting = resting
            raise
