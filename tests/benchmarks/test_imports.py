"""Memory by import: what the benchmark prints."""

from pathlib import Path

import pytest

from scripts.benchmarks import imports, report


@pytest.mark.not_emulated("QEMU's own memory is not the program's")
def test_each_import_has_its_row_and_all_of_them_grow_the_process(tmp_path: Path) -> None:
    pytest.importorskip("edge_agent_engines")
    found = imports.measure(tmp_path, True, lambda _: None)
    shown = report.part("imports", found)
    names = [name for name, _ in imports.IMPORTS]
    assert list(found["imports"])[1:] == names
    assert all(name in shown for name in names)
    for name in ("SSL", "paho", "protobuf", "the rest of the agent"):
        assert found["imports"][name]["rss"] > 256 << 10
