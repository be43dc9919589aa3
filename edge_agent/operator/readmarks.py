"""Which results were read, on the disk: as much is written as came, however many streams there are.

`results.json` has all streams as they once were, and names the journal of what changed since; once
that has grown as large, all is written anew. A journal that no `results.json` names is none.
"""

import json
import os
from pathlib import Path

from edge_agent.errors import OperatorError
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.results import Merger

MIN_JOURNAL_BYTES = 64 * 1024


class ReadMarks:
    """The notes of one fleet's folder. OperatorError from all of it: the disk."""

    def __init__(self, folder: FleetFolder) -> None:
        """OperatorError: what was noted here is damaged."""
        self._folder = folder
        self._file = folder.own_folder / "results.json"
        self.client_id, self.merger = f"edgein{os.urandom(8).hex()}", Merger()
        self._number = 0  # of the journal
        self._whole_bytes = self._journal_bytes = 0
        try:
            text = self._file.read_text("utf-8")
            values = json.loads(text)
            self.client_id = str(values["client_id"])
            self.merger = Merger.from_json(values["streams"])
            self._number = int(values.get("journal", 0))
            self._whole_bytes = len(text)
            self._replay()
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorError(
                f"{self._file}: cannot be read: {error}; remove it, and results may come twice"
            ) from error

    def save(self, *, whole: bool = False) -> None:
        """Note what was read since. What it returned from is on the disk."""
        changed = self.merger.take_changed()
        lines = "".join(f"{json.dumps(each)}\n" for each in changed).encode()
        room = max(MIN_JOURNAL_BYTES, self._whole_bytes)
        if whole or self._journal_bytes + len(lines) > room:
            self._write_whole()
        elif lines:
            self._append(lines)

    def forget(self) -> None:
        """Nothing was read."""
        self._file.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    @property
    def _journal(self) -> Path:
        return self._file.with_name(f"results-{self._number}.journal")

    def _write_whole(self) -> None:
        before = self._journal
        self._number += 1
        self._journal.unlink(missing_ok=True)  # of a life that ended before it was named
        head = {"client_id": self.client_id, "journal": self._number}
        text = json.dumps({**head, "streams": self.merger.as_json()})
        self._folder.write(self._file, text)
        self._whole_bytes, self._journal_bytes = len(text), 0
        before.unlink(missing_ok=True)

    def _append(self, lines: bytes) -> None:
        try:
            with self._journal.open("ab") as file:
                file.truncate(self._journal_bytes)  # half a line of a life that was cut off
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OperatorError(f"{self._journal}: cannot be written: {error}") from error
        self._journal_bytes += len(lines)

    def _replay(self) -> None:
        try:
            data = self._journal.read_bytes()
        except FileNotFoundError:
            return
        whole, _, _ = data.rpartition(b"\n")
        for line in whole.splitlines():
            self.merger.replace(json.loads(line))
        self._journal_bytes = len(whole) + bool(whole)
