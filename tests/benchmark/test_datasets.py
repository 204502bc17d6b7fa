from __future__ import annotations

import http.server
import io
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from recsys.benchmark import datasets
from recsys.benchmark.datasets import movielens_100k

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "http://127.0.0.1:9/ml-100k.zip"


def tables(path: Path) -> tuple[object, ...]:
    with duckdb.connect(str(path), read_only=True) as con:
        count = con.execute("select count(*), count(distinct user_id) from ratings").fetchall()[0]
        title = con.execute("select title, genres from movies where movie_id = 1").fetchall()[0]
        return (*count, *title)


@pytest.fixture(scope="module")
def from_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return movielens_100k(tmp_path_factory.mktemp("ml") / "source.duckdb", address=NOWHERE)


@pytest.mark.slow
def test_the_package_serves_where_grouplens_cannot_be_reached(from_wheel: Path) -> None:
    assert tables(from_wheel) == (
        100_000,
        943,
        "Toy Story (1995)",
        "Animation Children's Comedy",
    )


@pytest.fixture
def archive(from_wheel: Path) -> bytes:
    """GroupLens' archive, as it is laid out there."""
    with duckdb.connect(str(from_wheel), read_only=True) as con:
        ratings = con.execute("select user_id, movie_id, rating::int, rated_at from ratings")
        data = "".join("\t".join(map(str, row)) + "\n" for row in ratings.fetchall())
        movies = con.execute("select movie_id, title from movies").fetchall()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("ml-100k/u.data", data)
        made.writestr("ml-100k/u.genre", "unknown|0\nAction|1\nAnimation|2\n\n")
        lines = [f"{number}|{title}|01-Jan-1995||http://x|0|0|1" for number, title in movies]
        made.writestr("ml-100k/u.item", "\n".join(lines).encode("latin-1"))
    return content.getvalue()


@pytest.fixture
def grouplens(archive: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server on this machine that gives whatever stands first in the list."""
    content = [archive]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[0])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ml-100k.zip", content
        server.shutdown()
        thread.join()


def test_grouplens_archive_gives_the_same_ratings(
    grouplens: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    said: list[str] = []
    path = movielens_100k(tmp_path / "s.duckdb", address=grouplens[0], say=said.append)
    assert tables(path) == (100_000, 943, "Toy Story (1995)", "Animation")
    assert len(said) == 1, "the first place was enough"
    movielens_100k(path, address=NOWHERE, say=said.append)
    assert said[-1].endswith("is there already")


@pytest.mark.slow
def test_an_archive_with_one_rating_changed_is_not_taken(
    grouplens: tuple[str, list[bytes]], tmp_path: Path, archive: bytes
) -> None:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("u.data"):
                content = content.replace(b"\t3\t", b"\t4\t", 1)
            new.writestr(name, content)
    grouplens[1][0] = changed.getvalue()
    said: list[str] = []
    path = movielens_100k(tmp_path / "s.duckdb", address=grouplens[0], say=said.append)
    assert said[-1].startswith("fetching MovieLens-100K: recbole"), "it went on to the package"
    assert tables(path)[0] == 100_000


@pytest.mark.slow
def test_when_neither_place_serves_the_error_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    message = r"could not be downloaded.*ml-100k\.zip.*recbole==1\.2\.1 from PyPI"
    with pytest.raises(datasets.SourceError, match=message):
        movielens_100k(tmp_path / "s.duckdb", address=NOWHERE)
    assert not (tmp_path / "s.duckdb").exists()
