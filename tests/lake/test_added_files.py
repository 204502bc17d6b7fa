"""Files that several processes write, and that one commit adds to a table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from recsys import columns
from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.added_files import AddedFile, write_file
from recsys.lake.power_cuts import take_back_damaged
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes, servers

DAY = date(2026, 1, 2)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    if request.param == "local":
        yield Lake(str(tmp_path / "lake"), ObjectStorage())
        return
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        yield Lake("s3://lake/nightly", ObjectStorage(endpoint_url=endpoint))


def write(lake: Lake, user: int) -> AddedFile:
    lists = lakes.lists(DAY, {user: [7, 8]})
    rows = pa.Table.from_pylist(lists, schema=lake.schema(columns.RECOMMENDATIONS))
    day = {"run_date": DAY.isoformat()}
    return write_file(
        lake, columns.RECOMMENDATIONS, rows.drop_columns(["run_date"]).to_reader(), day
    )


def users(lake: Lake) -> list[int]:
    return sorted(set(lake.rows(columns.RECOMMENDATIONS)["user_id"].to_pylist()))


def test_one_commit_adds_them_all_and_none_is_seen_before(made: Lake) -> None:
    lakes.fill(made, {1: [7]})
    with made.write_lock("a test"):
        before = made.version(columns.RECOMMENDATIONS)
        files = [write(made, user) for user in (1, 2, 3)]
        assert users(made) == []
        assert made.add(columns.RECOMMENDATIONS, files) == before + 1
        assert users(made) == [1, 2, 3], "the same run sees them"
        made.delete(columns.RECOMMENDATIONS, f"run_date = '{DAY}' and user_id = 2")
    assert users(made) == [1, 3]
    log = made.open(columns.RECOMMENDATIONS).get_add_actions(flatten=True)
    spans = pa.table(log).select(["num_records", "min.user_id", "max.user_id"]).to_pylist()
    assert {tuple(span.values()) for span in spans} == {(2, 1, 1), (2, 3, 3)}
    if made.is_local:
        take_back_damaged(Path(made.root))
        assert users(made) == [1, 3], "no commit is taken for damaged"


def test_a_file_that_is_gone_or_cut_off_is_not_committed(made: Lake) -> None:
    lakes.fill(made, {1: [7]})
    kept, gone = write(made, 1), write(made, 2)
    if made.is_local:
        Path(gone.uri).write_bytes(Path(gone.uri).read_bytes()[:-1])
    else:
        object_store.delete([gone.uri], made.storage)
    with pytest.raises(LakeError, match=r"is gone or of another size since it was written"):
        made.add(columns.RECOMMENDATIONS, [kept, gone])
    assert users(made) == []
