"""What was read of nodes' results, kept over calls, for as much writing as there was reading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.inbox import BATCH, ReadMarks


def batch(seq: int, stream: str = "s") -> bytes:
    return pack_json({"stream": stream, "records": [{"seq": seq}]})


def topic(node: int) -> str:
    return f"edge/v1/greenhouse/nodes/board-{node}/results"


def read(marks: ReadMarks, node: int, seq: int) -> int:
    """How many records are new."""
    return sum(item.kind == "record" for item in marks.merger.feed(topic(node), batch(seq)))


def written(folder: Path, marks: ReadMarks, nodes: int, rounds: int) -> int:
    """Bytes for so many rounds of one result from each node."""
    total, sizes = 0, dict[str, int]()
    for number in range(nodes * rounds):
        assert read(marks, number % nodes, number // nodes + 1) == 1
        if number % BATCH == BATCH - 1:
            marks.save()
            now = {each.name: each.stat().st_size for each in folder.iterdir()}
            for name, size in now.items():
                begun = 0 if name == "results.json" else sizes.get(name, 0)
                total += size - begun if size != sizes.get(name) else 0
            sizes = now
    return total


def test_what_is_written_grows_with_what_is_read_and_not_with_its_square(tmp_path: Path) -> None:
    costs = []
    for nodes in (1000, 4000):
        folder = FleetFolder(tmp_path / f"{nodes}")
        cost = written_of(folder, nodes)
        costs.append(cost / nodes)
    assert costs[1] < 2 * costs[0]


def written_of(folder: FleetFolder, nodes: int) -> int:
    folder.own_folder.mkdir(parents=True)
    marks = ReadMarks(folder)
    marks.save(whole=True)
    return written(folder.own_folder, marks, nodes, 4)


def test_what_was_noted_is_known_to_the_next_call(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path)
    folder.own_folder.mkdir()
    marks = ReadMarks(folder)
    marks.save(whole=True)
    for number in range(1000):
        assert read(marks, number % 100, number // 100 + 1) == 1
        if number % 7 == 0:
            marks.save()
            again = ReadMarks(folder)
            assert again.client_id == marks.client_id
            assert sorted(again.merger.as_json()) == sorted(marks.merger.as_json())
    assert len(list(folder.own_folder.iterdir())) <= 2


def test_half_a_line_at_the_end_is_what_was_not_noted(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path)
    folder.own_folder.mkdir()
    marks = ReadMarks(folder)
    marks.save(whole=True)
    read(marks, 1, 1)
    marks.save()
    (journal,) = folder.own_folder.glob("*.journal")
    before = journal.read_bytes()
    read(marks, 1, 2)
    marks.save()
    after = journal.read_bytes()
    for length in range(len(before), len(after)):
        journal.write_bytes(after[:length])
        again = ReadMarks(folder)
        assert read(again, 1, 1) == 0
        assert read(again, 1, 2) == 1
        again.save()
        assert read(ReadMarks(folder), 1, 2) == 0


def test_notes_from_before_there_was_a_journal_are_read(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path)
    folder.own_folder.mkdir()
    old = {"client_id": "edge-in-1", "streams": [["board-1", "s", [[1, 5]], [[1, 5]]]]}
    (folder.own_folder / "results.json").write_text(json.dumps(old))
    marks = ReadMarks(folder)
    assert marks.client_id == "edge-in-1"
    assert read(marks, 1, 5) == 0
    assert read(marks, 1, 6) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_id": "x", "streams": [1]}'])
def test_damaged_notes_are_told(tmp_path: Path, text: str) -> None:
    folder = FleetFolder(tmp_path)
    folder.own_folder.mkdir()
    (folder.own_folder / "results.json").write_text(text)
    with pytest.raises(OperatorError, match="results may come twice"):
        ReadMarks(folder)
