"""Difficult CSV files as other projects' tests have them, made alike: what each gives.

docs/wild-files.md has the same table. `python -m tests.ingest.corpora` takes the files themselves.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recsys.errors import SourceError
from tests.ingest.test_sources import HEADER, Staging, con, stage

__all__ = ["con", "stage"]  # fixtures

ROW = "1,2,2026-01-02\n"
UTF8 = HEADER + ROW
PAGE = Path(__file__).parents[2] / "docs/wild-files.md"

FILES: dict[str, tuple[str | bytes, str]] = {
    "a NUL byte in a field": (HEADER + "1,a\0b,2026-01-02\n" + ROW, "2 rows"),
    "a quote inside a field": (HEADER + '1,say "x" now,2026-01-02\n', "1 row"),
    "text after a closing quote": (
        HEADER + '1,"x"y,2026-01-02\n' + ROW,
        "1 row, 1 quarantined: line is not CSV",
    ),
    "quotes escaped by a backslash": (
        HEADER + '1,"a \\" b",2026-01-02\n' + ROW,
        "1 row, 1 quarantined: line is not CSV",
    ),
    "a quote that is not closed": (
        HEADER + '1,"x,2026-01-02\n' + ROW,
        "refused: a quote is opened and not closed",
    ),
    "CR LF inside quotes": (HEADER + '1,"a\r\nb",2026-01-02\n', "1 row"),
    "line ends of both kinds": (
        HEADER + "1,2,2026-01-02\r\n" + ROW,
        "refused: use the same line end everywhere",
    ),
    "blank lines between rows": (HEADER + "\n" + ROW + "\n\n" + ROW, "2 rows"),
    "a line of blanks": (
        HEADER + "   \n" + ROW,
        "1 row, 1 quarantined: wrong number of fields",
    ),
    "a comma too many in each row": (HEADER + "1,2,2026-01-02,\n", "1 row"),
    "a comma too many in each line": ("user_id,item_id,timestamp,\n1,2,2026-01-02,\n", "1 row"),
    "a comment in the first line": ("# by hand\n" + UTF8, "refused: has no column 'user_id'"),
    "a comment between rows": (
        HEADER + "# more\n" + ROW,
        "1 row, 1 quarantined: wrong number of fields",
    ),
    "blanks after commas": (UTF8.replace(",", ", "), "refused: has no column 'item_id'"),
    "two header lines": (HEADER + UTF8, "1 row, 1 quarantined: user_id is not an integer"),
    "a total in the last line": (
        UTF8 + "Total: 1 row\n",
        "1 row, 1 quarantined: wrong number of fields",
    ),
    "no header": (ROW + ROW, "refused: has no column 'user_id'"),
    "a header alone": (HEADER, "refused: it holds no row"),
    "line ends alone": ("\n\n\n", "refused: it holds no row"),
    "UTF-16": (UTF8.encode("utf-16"), "refused: its first line is not UTF-8"),
    "Latin-1": (
        (UTF8 + "1,é,2026-01-02\n").encode("latin-1"),
        "1 row, 1 quarantined: line is not UTF-8",
    ),
    "a byte order mark and a quoted name": (
        "\ufeff" + UTF8.replace("user_id", '"user_id"'),
        "1 row",
    ),
    "a line sep=; of Excel": (
        "sep=;\n" + UTF8.replace(",", ";"),
        "refused: has no column 'user_id'",
    ),
    "single quotes around commas": (
        HEADER + "'1','a,b',2026-01-02\n" + ROW,
        "1 row, 1 quarantined: wrong number of fields",
    ),
    "a delimiter of two characters": (UTF8.replace(",", "||"), "1 row"),
    "a row number without a name": (",user_id,item_id,timestamp\n0,1,2,2026-01-02\n", "1 row"),
    "an ending .gz on plain text": (UTF8, "refused: is truncated or damaged"),
    "two gzip files as one": (gzip.compress(UTF8.encode()) + gzip.compress(ROW.encode()), "2 rows"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_difficult_file_gives_what_the_page_says(
    stage: Staging, tmp_path: Path, name: str
) -> None:
    content, told = FILES[name]
    file = tmp_path / ("a.csv.gz" if "gz" in name else "a.csv")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    if told.startswith("refused: "):
        with pytest.raises(SourceError) as refused:
            stage(file)
        assert told.removeprefix("refused: ") in str(refused.value)
        assert file.name in str(refused.value)
    else:
        faults = [row[4] for row in stage(file)]
        rows = faults.count(None)
        given = f"{rows} row{'s' * (rows > 1)}"
        if wrong := [fault for fault in faults if fault]:
            given += f", {len(wrong)} quarantined: {', '.join(wrong)}"
        assert given == told
    assert f"| {name} | {told} |" in PAGE.read_text().splitlines()
