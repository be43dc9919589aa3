"""Containers created without pause in the background, and what became of each."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.cri import Cri, CriError, Pod
from tests.support.wait import wait_until


@dataclass
class Made:
    """One container's annotations, or why it could not be made."""

    annotations: dict[str, str] = field(default_factory=dict)
    error: str = ""


class Burst:
    """Two threads: one creates and removes, one lets each container live too.

    `stop`, or the end of the block, ends both; `made` has one list for each, in order.
    """

    def __init__(self, cri: Cri) -> None:
        self.made: tuple[list[Made], list[Made]] = ([], [])
        self._cri = cri
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._make, args=(into, lives), name=f"burst {lives}")
            for into, lives in zip(self.made, (False, True), strict=True)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> tuple[list[Made], list[Made]]:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        return self.made

    def wait_for_more(self, count: int = 5) -> None:
        """Wait until each thread has made so many more."""
        wanted = [len(each) + count for each in self.made]
        wait_until(
            lambda: all(
                len(each) >= number for each, number in zip(self.made, wanted, strict=True)
            ),
            f"{count} more containers of each kind",
        )

    def _make(self, into: list[Made], lives: bool) -> None:
        pod = self._cri.run_pod("burst")
        number = 0
        while not self._ending.is_set():
            number += 1
            try:
                into.append(self._one(pod, f"c{number}", lives))
            except CriError as error:
                into.append(Made(error=str(error)))

    def _one(self, pod: Pod, name: str, lives: bool) -> Made:
        container = self._cri.create(pod, name)
        made = Made(self._cri.spec(container)["annotations"])
        if lives:
            self._cri.start(container)
            self._cri.stop(container)
        self._cri.remove(container)
        return made
