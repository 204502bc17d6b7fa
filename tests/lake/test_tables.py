from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from recsys.errors import LakeError, MissingError
from recsys.lake import commits
from recsys.lake.engine import open_duckdb
from recsys.lake.schemas import schemas
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage, Settings
from tests import lakes


def versions(lake: Lake) -> dict[str, int]:
    return {name: lake.version(name) for name in schemas(pa.int64(), pa.int64())}


def test_creating_twice_changes_nothing(lake: Lake) -> None:
    lake.create(pa.int64(), pa.string())
    before = versions(lake)
    lake.create(pa.int64(), pa.string())
    assert versions(lake) == before == dict.fromkeys(before, 0)
    assert lake.schema("recommendations").field("item_id").type == pa.string()


def test_an_append_with_a_transaction_happens_once(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [1]})
    rows = lake.open("interactions").to_pyarrow_table()
    first = lake.append("interactions", rows, transaction="b7", note={"batch": {"rows": 1}})
    assert lake.append("interactions", rows, transaction="b7", note={"batch": {"rows": 1}}) == first
    noted = {"batch": {"rows": 1}}
    found = list(lake.commits("interactions"))
    assert found == [(2, "WRITE", noted), (1, "WRITE", {}), (0, "CREATE TABLE", {})]
    assert first == 2
    assert [lake.has("interactions", name) for name in ("b7", "b8")] == [True, False]
    with open_duckdb(settings) as con:
        lake.view(con, "interactions")
        assert con.sql("select count(*) from interactions").fetchall() == [(2,)]


def test_replacing_a_run_date_leaves_the_others(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [1]})
    one, two = date(2026, 1, 1), date(2026, 1, 2)
    lakes.write(lake, "recommendations", lakes.lists(one, {1: [1, 2]}))
    lakes.write(lake, "recommendations", lakes.lists(two, {1: [3]}))
    new = pa.Table.from_pylist(lakes.lists(two, {1: [9]}), schema=lake.schema("recommendations"))
    lake.replace("recommendations", new, where=f"run_date = '{two}'")
    with open_duckdb(settings) as con:
        lake.view(con, "recommendations")
        found = con.sql("select run_date, item_id from recommendations order by all").fetchall()
    assert found == [(one, 1), (one, 2), (two, 9)]


def test_a_missing_table_or_version_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"interactions does not exist yet: run `recsys ingest`"):
        lake.version("interactions")
    lakes.fill(lake, {1: [1]})
    with pytest.raises(LakeError, match="interactions"):
        lake.open("interactions", 99)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lake = Lake(str(tmp_path / "file" / "lake"), ObjectStorage())
    with pytest.raises(LakeError, match=r"file/lake.*this user may write there"):
        lake.create(pa.int64(), pa.int64())


@pytest.mark.slow
def test_a_second_writer_waits_for_the_first_and_a_killed_one_lets_go(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    hold = (
        "import sys, time; from recsys.lake.tables import Lake;"
        "from recsys.settings import ObjectStorage;"
        "held = Lake(sys.argv[1], ObjectStorage()).write_lock(); held.__enter__();"
        "print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, lake.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "in\n"
        threading.Timer(0.5, other.kill).start()
        started = time.monotonic()
        with lake.write_lock():
            assert time.monotonic() - started > 0.3
    assert "another run (a run without a name, process" in caplog.text


@pytest.mark.parametrize("root", ["gs://bucket/lake", "http://somewhere"])
def test_a_root_that_is_neither_folder_nor_s3_is_refused(root: str) -> None:
    with pytest.raises(LakeError, match="a lake is a folder or s3://"):
        Lake(root, ObjectStorage())


@pytest.mark.parametrize(
    ("folder", "unfit"),
    [
        ("[lake]", r"\[ \]"),
        ("la*ke", r"\*"),
        ("la?ke", r"\?"),
        ("run_date=2020-01-01", "run_date="),
    ],
)
def test_a_folder_under_which_tables_are_not_themselves_is_refused(
    tmp_path: Path, folder: str, unfit: str
) -> None:
    with pytest.raises(LakeError, match=rf"can't work under a path with {unfit};"):
        Lake(str(tmp_path / folder), ObjectStorage())


@pytest.mark.parametrize("name", ["it's; a 'lake'", "séjour 🙂", 'a "b" #'])
def test_tables_under_awkward_paths_can_be_viewed(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    lake = Lake(str(tmp_path / name), ObjectStorage())
    lakes.fill(lake, {1: [1, 2]})
    with open_duckdb(settings) as con:
        lake.view(con, "interactions")
        assert con.sql("select count(*) from interactions").fetchall() == [(2,)]


def look_as_nobody(root: str) -> None:
    """Exit with 3 where the lake can't be read, as somebody who owns no file."""
    lake = Lake(root, ObjectStorage())
    if os.getuid() == 0:
        os.setgroups([])
        os.setuid(65534)
    for look in (lake.exists, lake.version):
        try:
            look("models")
        except MissingError:
            sys.exit(2)
        except LakeError:
            continue
        sys.exit(1)
    sys.exit(3)


def test_a_folder_that_may_not_be_entered_is_not_an_empty_lake(tmp_path: Path) -> None:
    root = tmp_path / "closed"
    lakes.fill(Lake(str(root / "lake"), ObjectStorage()), {1: [1]})
    root.chmod(0)
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["recsys.lake.tables", "tests.lakes"])
        child = context.Process(target=look_as_nobody, args=(str(root / "lake"),))
        child.start()
        child.join(60)
        assert child.exitcode == 3
    finally:
        root.chmod(0o755)


@pytest.mark.parametrize("error", [OSError("reset"), CommitFailedError("Commit failed")])
def test_a_commit_whose_answer_is_lost_is_looked_up(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    lakes.fill(lake, {1: [1]})
    write = commits.write

    def lose_the_answer(target: DeltaTable, *arguments: Any, **options: Any) -> None:
        write(DeltaTable(target.table_uri), *arguments, **options)
        raise error

    with lake.write_lock():
        before = lake.version("interactions")
        rows = lake.open("interactions").to_pyarrow_table()
        monkeypatch.setattr(commits, "write", lose_the_answer)
        assert lake.append("interactions", rows, transaction="batch-2") == before + 1
        assert lake.replace("interactions", rows, where="user_id = 1") == before + 2
        monkeypatch.undo()
        assert lake.version("interactions") == before + 2
        assert lake.has("interactions", "batch-2")
        assert len(lake.rows("interactions")) == 1


def test_a_commit_that_failed_is_not_taken_for_another_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.fill(lake, {1: [1]})
    rows = lake.rows("interactions")

    def fail(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        lakes.fill(Lake(lake.root, lake.storage), {2: [2]})
        raise OSError("connection reset")

    with lake.write_lock():
        monkeypatch.setattr(commits, "write", fail)
        with pytest.raises(LakeError, match="connection reset"):
            lake.append("interactions", rows)
        assert len(lake.rows("interactions")) == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_lake_is_moved_away_or_replaced_writes_nothing_more(
    lake: Lake, tmp_path: Path, replaced: bool
) -> None:
    lakes.fill(lake, {1: [7]})
    root, moved = Path(lake.root), tmp_path / "moved"
    gone = rf"{root} was removed or replaced while this run wrote .* Put it back"
    with lake.write_lock():
        rows = lake.rows("interactions")
        root.rename(moved)
        if replaced:
            shutil.copytree(moved, root)
        with pytest.raises(LakeError, match=gone):
            lake.append("interactions", rows)
    assert root.exists() == replaced, "no table is begun anew"
    for found in (moved, root) if replaced else (moved,):
        assert Lake(str(found), lake.storage).version("interactions") == 1
    with lake.write_lock():
        assert lake.is_local
