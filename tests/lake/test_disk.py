"""A disk that is full, or can only be read: told by its place, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import query_catalog
from recsys.errors import LakeError
from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.model.recommender import Recommender
from recsys.registry.models import save_model
from recsys.settings import ObjectStorage
from tests import lakes, worlds
from tests.small_disk import full, read_only, small_disk


def save_a_model(lake: Lake) -> None:
    model = Recommender(worlds.small("best").model, 1)
    save_model(lake, "m-a", model, ItemIds(pa.array([7])), {}, "# m-a")


WRITES: dict[str, Callable[[Lake], object]] = {
    "a table": lambda lake: lake.append("interactions", lake.rows("interactions")),
    "the catalog": publish_catalog,
    "a model": save_a_model,
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
def lake(disk: Path) -> Lake:
    lake = Lake(str(disk / "lake"), ObjectStorage())
    lakes.fill(lake, {1: [7]})
    with lake.write_lock():
        publish_catalog(lake)
    return lake


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_what_does_not_fit_on_a_disk_is_told_and_leaves_all_as_it_was(
    lake: Lake, disk: Path, write: str
) -> None:
    with (
        full(disk, room=5000),
        lake.write_lock(),
        pytest.raises(LakeError, match=f"{lake.root}.* the disk has room"),
    ):
        WRITES[write](lake)
    assert query_catalog(lake, "select count(*) as n from interactions")["n"].to_pylist() == [1]
    assert lake.rows("interactions").num_rows == 1
    assert not list(disk.rglob(".recsys*"))
    with lake.write_lock():
        WRITES[write](lake)


@pytest.mark.slow
def test_a_lake_that_can_only_be_read_is_read_and_refuses_writers(lake: Lake, disk: Path) -> None:
    with read_only(disk):
        assert lake.rows("interactions").num_rows == 1
        counted = query_catalog(lake, "select count(*) as n from interactions")
        assert counted["n"].to_pylist() == [1]
        with (
            pytest.raises(LakeError, match=rf"{lake.root}.* Read-only .* may write there"),
            lake.write_lock(),
        ):
            pass
        with pytest.raises(LakeError, match=r"interactions.* may write there"):
            lake.append("interactions", lake.rows("interactions"))
