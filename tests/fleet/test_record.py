import math
from pathlib import Path

import pytest

from edge_agent.errors import StoreError
from edge_agent.fleet.record import DISK_PAUSE_S, Record
from edge_agent.store import catalogue as catalogues
from edge_agent.store.digest import Digest
from tests.support.smalldisk import small_disk

DIGEST = Digest.of_hex("0" * 64)


def test_committed_and_noted_are_on_the_disk(tmp_path: Path) -> None:
    record = Record(tmp_path / "catalogue.json")
    assert record.commit(catalogues.quarantined(record.catalogue, DIGEST, "x"), 0.0)
    record.note(catalogues.quarantined(record.catalogue, DIGEST, "died"), 0.0)
    assert record.due == math.inf
    assert Record(tmp_path / "catalogue.json").catalogue == record.catalogue


@pytest.mark.system
def test_disk_that_refuses_keeps_the_old_word_and_the_news_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        record = Record(disk / "catalogue.json")
        before = record.catalogue
        (disk / "other").write_bytes(bytes(64 * 1024))
        assert not record.commit(catalogues.quarantined(before, DIGEST, "x"), 5.0)
        assert record.catalogue == before
        record.note(catalogues.quarantined(before, DIGEST, "died"), 5.0)
        assert record.catalogue.quarantined
        assert "free some space" in record.trouble
        assert record.due == 5.0 + DISK_PAUSE_S
        record.write(6.0)
        assert len(caplog.records) == 1, "told once"
        (disk / "other").unlink()
        record.write(6.0)
        assert not Record(disk / "catalogue.json").catalogue.quarantined, "it is left alone"
        record.write(record.due)
        assert (record.trouble, record.due) == ("", math.inf)
        assert Record(disk / "catalogue.json").catalogue == record.catalogue


def test_record_that_is_damaged_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "catalogue.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="is damaged"):
        Record(tmp_path / "catalogue.json")
