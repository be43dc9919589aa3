import math
from pathlib import Path

import pytest

from edge_agent.errors import StoreError
from edge_agent.store import catalogue as catalogues
from edge_agent.store.catalogue_store import DISK_PAUSE_S, CatalogueStore
from edge_agent.store.digest import Digest
from tests.support.smalldisk import small_disk

DIGEST = Digest.of_hex("0" * 64)


def test_committed_and_noted_are_on_the_disk(tmp_path: Path) -> None:
    store = CatalogueStore(tmp_path / "catalogue.json")
    assert store.commit(catalogues.quarantined(store.catalogue, DIGEST, "x"), 0.0)
    store.note(catalogues.quarantined(store.catalogue, DIGEST, "died"), 0.0)
    assert store.due == math.inf
    assert CatalogueStore(tmp_path / "catalogue.json").catalogue == store.catalogue


@pytest.mark.system
def test_disk_that_refuses_keeps_the_old_word_and_the_news_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        store = CatalogueStore(disk / "catalogue.json")
        before = store.catalogue
        (disk / "other").write_bytes(bytes(64 * 1024))
        assert not store.commit(catalogues.quarantined(before, DIGEST, "x"), 5.0)
        assert store.catalogue == before
        store.note(catalogues.quarantined(before, DIGEST, "died"), 5.0)
        assert store.catalogue.quarantined
        assert "free some space" in store.last_error
        assert store.due == 5.0 + DISK_PAUSE_S
        store.write(6.0)
        assert len(caplog.records) == 1, "told once"
        (disk / "other").unlink()
        store.write(6.0)
        assert not CatalogueStore(disk / "catalogue.json").catalogue.quarantined, "it is left alone"
        store.write(store.due)
        assert (store.last_error, store.due) == ("", math.inf)
        assert CatalogueStore(disk / "catalogue.json").catalogue == store.catalogue


def test_record_that_is_damaged_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "catalogue.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="is damaged"):
        CatalogueStore(tmp_path / "catalogue.json")
