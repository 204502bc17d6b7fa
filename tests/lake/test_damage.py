"""Damaged files of a lake are told by their names, with what to do, however they are read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.errors import DamagedError, LakeError
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def scribble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4:60] = b"\x99" * 56
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def by_duckdb(lake: Lake) -> None:
    with open_duckdb(lake.limits) as con:
        lake.view(con, "interactions")
        con.sql("select sum(item_id), max(user_id) from interactions").fetchall()


READS: dict[str, Callable[[Lake], object]] = {
    "rows": lambda lake: lake.rows("interactions"),
    "duckdb": by_duckdb,
    "delete": lambda lake: lake.delete("interactions", "user_id = 1"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "lake"
    lakes.fill(Lake(str(root), ObjectStorage()), {1: [7], 2: [8]})
    return root


@pytest.fixture
def lake(lake: Lake, whole: Path) -> Lake:
    shutil.copytree(whole, lake.root)
    return lake


def check(told: str, lake: Lake) -> None:
    assert lake.root in told
    assert "Put it back from a copy" in told
    assert not re.search(r"\^|disk|<unknown>|\n", told)


@pytest.mark.parametrize(
    ("read", "damage"),
    [(read, damage) for read in READS for damage in (cut, empty, Path.unlink)]
    + [("rows", scribble), ("delete", scribble)],
)
def test_a_damaged_data_file_is_told(
    lake: Lake, read: str, damage: Callable[[Path], object]
) -> None:
    (file,) = Path(lake.root).glob("interactions/*.parquet")
    damage(file)
    with pytest.raises(DamagedError, match=r"interactions\b") as error:
        READS[read](lake)
    check(str(error.value), lake)
    if damage in (cut, Path.unlink):
        assert file.name in str(error.value)


@pytest.mark.parametrize("damage", [cut, scribble])
def test_a_torn_entry_of_a_log_is_told_without_a_backtrace(
    lake: Lake, damage: Callable[[Path], object]
) -> None:
    damage(max(Path(lake.root).glob("interactions/_delta_log/*.json")))
    with pytest.raises(DamagedError, match=r"could not open .*interactions") as error:
        lake.rows("interactions")
    check(str(error.value), lake)


def test_a_damaged_page_that_duckdb_reads_is_told(lake: Lake) -> None:
    (file,) = Path(lake.root).glob("interactions/*.parquet")
    scribble(file)
    with pytest.raises(DamagedError, match=r"a Parquet file is damaged: .* Put it back") as error:
        by_duckdb(lake)
    assert "\n" not in str(error.value)


def test_a_catalog_over_a_damaged_file_is_not_published(lake: Lake) -> None:
    (file,) = Path(lake.root).glob("interactions/*.parquet")
    cut(file)
    with lake.write_lock(), pytest.raises(DamagedError, match=file.name) as error:
        publish_catalog(lake)
    check(str(error.value), lake)
    assert not (Path(lake.root) / "catalog.duckdb").exists()


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping"])
def test_a_feature_that_is_not_read_is_refused_by_name(lake: Lake, feature: str) -> None:
    """Else rows that Spark has deleted by a vector would come back, and their users be served."""
    lakes.fill(lake, {1: [7], 2: [8]})
    protocol: dict[str, object] = {"minReaderVersion": 3, "minWriterVersion": 7}
    features = [feature, "timestampNtz"]
    protocol |= {"readerFeatures": features, "writerFeatures": features}
    newest = lake.version(columns.INTERACTIONS)
    entry = Path(lake.uri(columns.INTERACTIONS, "_delta_log", f"{newest + 1:020}.json"))
    entry.write_text(json.dumps({"protocol": protocol}) + "\n")
    with duckdb.connect() as con, pytest.raises(LakeError, match=f"interactions has {feature}, by"):
        lake.view(con, columns.INTERACTIONS)
    with pytest.raises(LakeError, match=f"has {feature}, by another tool"):
        publish_catalog(lake)
