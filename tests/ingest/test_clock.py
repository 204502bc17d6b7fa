"""A clock that goes back between two nights: nothing is lost, doubled or taken again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from recsys import columns
from recsys.ingest.batch import ingest
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import Settings, Source
from tests.ingest.test_batch import NOW, rows_of

AWAY = timedelta(days=400)  # the clock of the first night was wrong by so much


@pytest.mark.slow
def test_a_batch_whose_clock_is_behind_the_one_before_is_taken_once(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    source = Source(uri=str(tmp_path / "*.csv"), on_change="replace")
    head = "user_id,item_id,timestamp,value\n"

    def take(now: object, name: str, *rows: str) -> tuple[int, int]:
        (tmp_path / name).write_text(head + "".join(f"{row}\n" for row in rows))
        result = ingest(lake, settings, source, now=now)  # type: ignore[arg-type]
        check_row_counts(lake)
        return result.accepted, result.replaced

    first = [f"{user},7,2026-01-01,1" for user in range(20)]
    assert take(NOW + AWAY, "1.csv", *first) == (20, 0)
    assert take(NOW, "2.csv", *(f"{user},8,2026-01-02,1" for user in range(20))) == (20, 0)
    assert take(NOW, "1.csv", *first[:-1], first[-1][:-1] + "5") == (0, 1)
    assert take(NOW + timedelta(days=1), "2.csv", "0,8,2026-01-02,1") == (0, 0)
    rows = rows_of(lake, columns.INTERACTIONS)
    assert len(rows) == 40
    assert [row["value"] for row in rows if row["user_id"] == 19] == [5, 1]
