"""What an ingest makes of other projects' difficult files: one line of a table for each.

`python -m tests.ingest.corpora FOLDER [FOLDER…]` takes every file that it can read in these
folders, such as unpacked source packages, and prints Markdown: docs/wild-files.md has its table.
The files have no users or items, so that their first columns stand for ours. Most rows are then
rejected, for they hold no time; what counts is that all of them are read, and that what is refused
is refused in words.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.columns import REQUIRED
from recsys.errors import RecsysError
from recsys.ingest import batch
from recsys.ingest.csv_files import csv_dialect
from recsys.ingest.sources import kind_of
from recsys.lake.tables import Lake
from recsys.markdown import markdown_table
from recsys.settings import Source
from tests.ingest.fuzz import NOW, lenient, make_cheap

_TIMES = re.compile(r"date|time|year|day|created", re.IGNORECASE)


def files_of(folder: Path) -> list[Path]:
    """Return the files below a folder whose ending names a kind of source."""
    endings = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".csv.gz", ".parq", ".json")
    return sorted(path for path in folder.rglob("*") if path.name.lower().endswith(endings))


def columns_of(path: Path) -> list[str]:
    """Return the names of a file's columns, or none where they can't be read."""
    try:
        if path.suffix in (".parquet", ".parq"):
            return list(pq.read_schema(path).names)
        if "json" in path.suffix:
            first = json.loads(path.read_text().splitlines()[0])
            return list(first) if isinstance(first, dict) else []
        return csv_dialect(path, path.name).names
    except Exception:  # an ingest says in its own words what is wrong
        return []


def rows_of(path: Path) -> int | None:
    """Count a file's rows by another reader than an ingest's; None where that can't read it."""
    try:
        if path.suffix in (".parquet", ".parq"):
            return pq.read_metadata(path).num_rows
        if "json" in path.suffix:
            return sum(1 for line in path.read_text().split("\n") if line.strip())
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:  # type: ignore[operator]
            delimiter = csv_dialect(path, path.name).delimiter
            return sum(1 for row in csv.reader(file, delimiter=delimiter) if row) - 1
    except Exception:  # whatever another reader raises
        return None


def take(path: Path) -> tuple[str, str]:
    """Ingest a file into a new lake; return how that ended, and a few words on it."""
    names = list(dict.fromkeys(columns_of(path)))
    times = [name for name in names if _TIMES.search(name)] or names[2:3]
    ids = [name for name in names if name not in times[:1]]
    mapping = dict(zip(REQUIRED, [*ids[:2], *times[:1]], strict=False))
    with tempfile.TemporaryDirectory(prefix="recsys-corpora-") as folder:
        settings = lenient(Path(folder))
        try:
            columns = mapping if len(mapping) == 3 else {}
            source = Source(uri=str(path), columns=columns, timestamp_unit="s")
            lake = Lake.from_settings(settings)
            with lake.write_lock("corpora"):
                result = batch.ingest(lake, settings, source, now=NOW)
        except RecsysError as error:
            words = str(error).replace(str(path), path.name).replace(str(path.resolve()), path.name)
            return "refused", words.splitlines()[0]
        except Exception as error:  # a defect, whatever it is
            return "broken", f"{type(error).__name__}: {error}".splitlines()[0]
    told = f"{result.accepted:,} accepted, {result.quarantined:,} quarantined"
    held = result.rows_in - result.accepted - result.quarantined
    if held:
        told += f", {held:,} held"
    rows = rows_of(path)
    if rows is not None and rows != result.rows_in:
        told += f"; {result.rows_in:,} rows read, {rows:,} by another reader"
    return "read", told


def main(folders: list[str]) -> int:
    """Print the table of all files; return how many broke a promise."""
    ends: Counter[str] = Counter()
    lines = []
    with tempfile.TemporaryDirectory(), pytest.MonkeyPatch.context() as patch:
        make_cheap(patch)
        for folder in map(Path, folders):
            for path in files_of(folder):
                uri = path
                if path.suffix == ".parq":
                    uri = path.with_suffix(".parquet")
                    uri.write_bytes(path.read_bytes())
                end, words = take(uri)
                ends[end] += 1
                kind = kind_of(Source(uri=str(uri)))
                lines.append([folder.name, str(path.relative_to(folder)), kind, end, words])
                print(path, end, words, file=sys.stderr, flush=True)
    print("\n".join(markdown_table(["package", "file", "kind", "end", "in words"], lines)))
    print(dict(ends))
    return ends["broken"]


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
