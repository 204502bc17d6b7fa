"""CSV files: how one is split, and as what DuckDB reads it."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from codecs import BOM_UTF8
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.errors import SourceError
from sql import file_literal, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

CHUNK = 16 << 20
LONGEST_HEADER = 1 << 20  # bytes
_BLOCK = 8 << 20  # bytes


@dataclass(frozen=True)
class CsvDialect:
    """How a CSV file is written.

    Attributes:
        delimiter: what separates fields.
        names: the column names of its first line.
        has_bare_returns: whether lines end in CR alone.
        is_finished: whether the last line has an end; a zipped file has a sum that says so.
    """

    delimiter: str
    names: list[str]
    has_bare_returns: bool
    is_finished: bool


def is_zipped(path: Path) -> bool:
    """Say whether a file is read through gzip, by its name."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_text(path: Path, name: str) -> Iterator[Any]:
    """Open a text file, unzipped, for binary reading; its errors become ours."""
    try:
        with gzip.open(path) if is_zipped(path) else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is truncated or damaged, or can't be read: {error}") from error


def holds_no_row(path: Path, name: str, *, has_header: bool) -> bool:
    """Say whether a text file is blank, but for a first line of column names."""
    with open_text(path, name) as file:
        start = file.read(CHUNK)
    _, rows = _split_header(start) if has_header else (b"", start)
    return not rows.removeprefix(BOM_UTF8).strip()


def csv_dialect(path: Path, name: str) -> CsvDialect:
    """Return how a CSV file is written, as its first line and its end show.

    It is read to its end. DuckDB checks no sum of a zipped file, and would make up rows; and it
    loses a line of 31 MB and more without a word. (A line of more than 2 MB is quarantined.)

    Raises:
        SourceError: the first line can't be read as column names, or a line is far too long.
    """
    with open_text(path, name) as file:
        start = file.read(LONGEST_HEADER)
        at = len(start)
        while block := file.read(_BLOCK):
            if len(block) == _BLOCK and b"\n" not in block and b"\r" not in block:
                raise SourceError(
                    f"{name}: the line at byte {at:,} is longer than {_BLOCK:,} bytes, and no row "
                    "is that long; a line end or a quote may be missing before"
                )
            at += len(block)
    first_line, rest = _split_header(start)
    if len(start) == LONGEST_HEADER and not rest:
        raise SourceError(f"{name}: its first line is longer than {LONGEST_HEADER:,} bytes")
    try:
        head = first_line.removeprefix(BOM_UTF8).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SourceError(f"{name}: its first line is not UTF-8; save it as UTF-8") from None
    if not head.strip():
        raise SourceError(f"{name} is empty: it lacks even the line of column names")
    delimiter = max(",\t;|", key=head.count)
    csv.field_size_limit(LONGEST_HEADER)
    try:
        names = next(csv.reader([head], delimiter=delimiter))
    except csv.Error as error:
        raise SourceError(f"{name}: its first line can't be read as CSV: {error}") from error
    return CsvDialect(
        delimiter,
        names,
        has_bare_returns=first_line.endswith(b"\r"),
        is_finished=is_zipped(path) or _ends_a_line(path),
    )


@dataclass(frozen=True)
class JoinedFiles:
    """Files that `join_plain` wrote as one: the rows of each, and whether its last line has an end.

    Attributes:
        counts: rows.
        are_finished: as :attr:`CsvDialect.is_finished`.
    """

    counts: list[int]
    are_finished: list[bool]


def join_plain(paths: Sequence[Path], empty: Sequence[bool], joined: Path) -> JoinedFiles | None:
    """Write small files of one header as one file, from the first on; say what was joined.

    A file whose records may not be its lines is not joined, so that the one file has the rows of
    all of them: one with an empty line, a quote that a line leaves open, a return that ends no
    line, or bytes that are not UTF-8.

    Args:
        paths: the files, in order.
        empty: which of them hold no row, and are left out.
        joined: the file to write; none where fewer than two can be joined.
    """
    first_line, bodies, size = b"", list[bytes](), 0
    counts, are_finished = list[int](), list[bool]()
    for path, is_empty in zip(paths, empty, strict=True):
        if is_empty:
            counts.append(0)
            are_finished.append(True)
            continue
        header, body = _split_header(_start_of(path))
        size += len(body)
        if size > CHUNK or header != (first_line or header):
            break
        first_line, line_end = header, _line_end(header)
        is_finished = body.endswith(line_end)
        body += b"" if is_finished else line_end
        if not _is_plain(header, body):
            break
        bodies.append(body)
        counts.append(body.count(b"\n"))
        are_finished.append(is_finished or is_zipped(path))
    if len(bodies) < 2:
        return None
    joined.write_bytes(first_line + b"".join(bodies))
    return JoinedFiles(counts, are_finished)


def _start_of(path: Path) -> bytes:
    """Return a small file's content; of a larger one the start; nothing of a damaged one."""
    try:
        with gzip.open(path) if is_zipped(path) else path.open("rb") as file:
            return file.read(CHUNK + LONGEST_HEADER)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_plain(header: bytes, body: bytes) -> bool:
    """Say whether each line of a file is one record, which says the same wherever it stands."""
    line_end, lines = _line_end(header), body.count(b"\n")
    has_one_line_end = (
        header.endswith(b"\n")
        and body.count(line_end) == lines
        and (header + body).count(b"\r") == (lines + 1 if line_end == b"\r\n" else 0)
    )
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return (
        has_one_line_end
        and line_end * 2 not in body
        and not body.startswith(line_end)
        and not any(sign in body for sign in (b"\0", BOM_UTF8))
        and not any(line.count(b'"') % 2 for line in (header, *body.split(b"\n")) if b'"' in line)
    )


def _line_end(header: bytes) -> bytes:
    return b"\r\n" if header.endswith(b"\r\n") else b"\n"


def _split_header(start: bytes) -> tuple[bytes, bytes]:
    """Return the first line with its end, and what comes after; lines may end in CR alone."""
    end = start.find(b"\n") + 1 or start.find(b"\r") + 1 or len(start)
    return start[:end], start[end:]


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() in (b"\n", b"\r")


def csv_relation(path: Path, dialect: CsvDialect, names: Iterable[str], more: str = "") -> str:
    """Return a CSV file as something to select from: these columns, by position, all text.

    ``more`` is added to the arguments of DuckDB's ``read_csv``.
    """
    zipped = ", compression = 'gzip'" if is_zipped(path) else ""
    line_ends = r", new_line = '\r'" if dialect.has_bare_returns else ""
    typed = ", ".join(f"{literal(name)}: 'varchar'" for name in names)
    return (
        f"read_csv({file_literal(str(path))}{zipped}{line_ends}, auto_detect = false, "
        f"header = true, columns = {{{typed}}}, delim = {literal(dialect.delimiter)}, "
        f"quote = '\"', escape = '\"', nullstr = ''{more})"
    )
