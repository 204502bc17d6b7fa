"""`recsys explore`: right figures on pages that change nothing and ask no other host."""

from __future__ import annotations

import hashlib
import html
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn

from recsys import columns
from recsys.catalog.explore.newest import NewestCatalog
from recsys.catalog.explore.pages import address, make_app
from recsys.catalog.explore.server import serve_pages
from recsys.catalog.publish import publish_catalog
from recsys.errors import ConfigurationError, LakeError, MissingError
from recsys.lake.erasures import record_erasure
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes, servers
from tests.browser import CHROMIUM, Page, chromium
from tests.catalog.test_report import HOSTILE, TODAY, YESTERDAY, known_lake

ODD = ["a/b?c=d&e#f", "né 🙂 %2F+", 'it\'s "x"', "x" * 5_000, ""]


@contextmanager
def client(lake: Lake) -> Iterator[httpx.Client]:
    """The pages of a lake, served as `recsys explore` does, from a thread."""
    newest = NewestCatalog(lake)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(make_app(newest), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as pages:
                yield pages
        finally:
            server.should_exit = True
            thread.join(30)
            newest.close()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return known_lake(tmp_path_factory.mktemp("explore") / "lake")


@pytest.fixture(scope="module")
def pages(lake: Lake) -> Iterator[httpx.Client]:
    with client(lake) as pages:
        yield pages


def words(pages: httpx.Client, path: str, status: int = 200, **asked: Any) -> str:
    """What a page says, without its tags."""
    answer = pages.get(address(path, **asked))
    assert answer.status_code == status, answer.text
    main = answer.text.partition("<main>")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", main)).split())


def test_a_user_has_history_list_and_what_speaks_for_it(pages: httpx.Client) -> None:
    said = words(pages, "/user", id="ann")
    assert "2 interactions, from 2026-01-01 to 2026-01-01" in said
    assert "Recommended for 3 January 2026 rank item reason score 1 Title c comedy" in said
    title = HOSTILE.replace("\u202e", "\\u202e")
    assert f"because of Title b , {title} 1.000" in said
    history = said.partition("History, newest first")[2]
    assert history.index("Title b") < history.index(title), "newest first"
    assert "taken 1 time" not in said
    assert "popular taken once" in words(pages, "/user", id="bob")


def test_two_nights_of_a_user_stand_side_by_side(pages: httpx.Client) -> None:
    said = words(pages, "/user", id="ann", against=YESTERDAY)
    tonight, _, before = said.partition("Recommended for 2 January 2026")
    assert "1 same Title c" in tonight
    assert "2 new" in tonight
    assert "2 gone Title b" in before


def test_a_pair_of_lists_says_how_far_an_item_moved(pages: httpx.Client) -> None:
    said = words(pages, "/user", id=HOSTILE, against=YESTERDAY)
    assert "but no list of this night" in said


def test_what_a_user_took_since_the_list_is_marked(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {"ann": ["a"], "bob": ["a", "b"]})
    lakes.fill(lake, {"ann": ["b", "c"]}, batch_id="later", day=2)
    night = lakes.START.date() + timedelta(days=1)
    before = {"data_until": lakes.START + timedelta(days=1)}
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(night, {"ann": ["b"]}))
    lakes.write(lake, columns.EDITIONS, [lakes.edition(night, users=1, **before)])
    publish_catalog(lake)
    with client(lake) as pages:
        said = words(pages, "/user", id="ann")
        assert "1 b taken since" in said
        assert "c after the list" in said
        assert "b was listed" in said
        assert "2026-01-01 00:00 a" in said


def test_users_and_items_have_neighbours(pages: httpx.Client) -> None:
    # ann has a and b, the hostile user a and c, bob a: cosines 1 / sqrt(2 * 1) and 1 / 2.
    said = words(pages, "/user/neighbours", id="ann")
    assert "bob 1 1 0.707" in said
    assert said.index("bob") < said.index("0.500")
    said = words(pages, "/item/neighbours", id="a")
    assert "Title b picture drama 1 1" in said
    assert "Of the 3 users who took it last" in said
    assert "Title b picture drama 1 50 %" in said
    assert "Of the 2 lists that hold it" in said


def test_an_item_says_who_takes_it_and_in_which_lists_it_is(pages: httpx.Client) -> None:
    said = words(pages, "/item", id="b")
    assert "Interactions 1 the 30 days" in said
    assert "2026-01-03 2 " in said
    assert "2026-01-02 2 100 % 1 1.5" in said
    assert "bob 1 popular" in said
    assert 'href="https://pictures.example/b.png"' in pages.get("/item?id=b").text
    assert "javascript:" not in pages.get("/item?id=a").text
    assert pages.get("/item?id=b").text.count("<img") == 0
    assert pages.get("/item?id=c").text.count('<img class="picture" src="data:image/png;') == 1
    assert "may not be listed" in words(pages, "/item", id="d")
    assert "Nobody has taken it" in words(pages, "/item", id="d")


def test_two_nights_are_compared(pages: httpx.Client) -> None:
    said = words(pages, "/nights")
    assert "From 2 January 2026 to 3 January 2026" in said
    assert "Entries kept 75 % 3 of 4" in said
    assert "Lists with the same items 1 of 3" in said
    assert "New users 1 0 gone" in said
    assert "ann 1 2" in said
    assert "0 2 +2" in said, "the hostile item is in two lists more"


def test_a_search_finds_ids_by_their_beginning_and_titles_by_any_part(pages: httpx.Client) -> None:
    assert pages.get("/search?q=AN").headers["location"] == "/user?id=ann"
    assert pages.get("/search?q=itle%20C").headers["location"] == "/item?id=c"
    said = words(pages, "/search", q="b")
    assert "bob" in said
    assert "Title b" in said
    assert "No user's id and no item's id begins with this" in words(pages, "/search", q="zzz")
    assert pages.get("/search?q=").headers["location"] == "/"


def test_what_is_not_there_is_said_in_a_sentence(pages: httpx.Client) -> None:
    assert "No interaction of this user is known" in words(pages, "/user", 404, id="nobody")
    assert "No item of this id" in words(pages, "/item", 404, id="nothing")
    assert "no lists for 'x'" in words(pages, "/user", 404, id="ann", night="x")
    assert "names no user_id" in words(pages, "/user", 404)
    assert "Not Found" in words(pages, "/nowhere", 404)


def test_any_id_has_a_page(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {user: ["i/?" + user[:9]] for user in ODD})
    record_erasure(lake, "gone", lakes.START, "who", "why")
    publish_catalog(lake)
    with client(lake) as pages:
        for user in ODD:
            assert "1 interaction, from" in words(pages, "/user", id=user)
            assert "Users who took it 1" in words(pages, "/item", id="i/?" + user[:9])
        assert "No lists are served yet" in words(pages, "/")
        assert "No lists are served yet" in words(pages, "/nights")
        assert "erased on 1 January 2026" in words(pages, "/user", 404, id="gone")


def test_integer_ids_are_read_one_way_and_a_new_catalog_is_seen(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {7: [1]})
    publish_catalog(lake)
    with client(lake) as pages:
        assert "1 interaction," in words(pages, "/user", id=7)
        assert "user_id is an integer" in words(pages, "/user", 404, id="07")
        lakes.fill(lake, {7: [2, 3]}, batch_id="next", day=1)
        assert "1 interaction," in words(pages, "/user", id=7)
        publish_catalog(lake)
        assert "3 interactions," in words(pages, "/user", id=7)
        (Path(lake.root) / "catalog.duckdb").unlink()
        assert "run `recsys nightly` first" in words(pages, "/user", 404, id=7)


@pytest.mark.slow
def test_a_lake_on_s3_is_shown_and_a_new_catalog_there_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        lake = Lake("s3://lake/nightly", ObjectStorage(endpoint_url=endpoint))
        lakes.fill(lake, {7: [1]})
        with client(lake) as pages:
            assert "run `recsys nightly` first" in words(pages, "/user", 404, id=7)
            publish_catalog(lake)
            assert "1 interaction," in words(pages, "/user", id=7)
            lakes.fill(lake, {7: [2, 3]}, batch_id="next", day=1)
            publish_catalog(lake)
            assert "3 interactions," in words(pages, "/user", id=7)


def test_only_this_machine_is_answered_and_nothing_is_written(
    lake: Lake, pages: httpx.Client
) -> None:
    def digests() -> dict[str, str]:
        found = [path for path in Path(lake.root).rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    before = digests()
    for path in ("/", "/user?id=ann", "/item?id=a", "/item/neighbours?id=a", "/nights"):
        answer = pages.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "<script" not in answer.text
    assert digests() == before
    assert pages.post("/user?id=ann").status_code == 405
    refused = pages.get("/user?id=ann", headers={"host": "evil.example"})
    assert (refused.status_code, refused.text) == (400, "Invalid host header")
    assert pages.get("/", headers={"host": "localhost:9"}).status_code == 200


def test_the_pages_reach_no_more_than_recsys_sql(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {7: [1]})
    publish_catalog(lake)
    with closing(NewestCatalog(lake)) as newest:
        for statement in ("select * from glob('/etc/*')", "create table t as select 1"):
            with pytest.raises(LakeError), newest.read() as catalog:
                catalog._con.sql(statement).fetchall()


def test_a_port_that_is_taken_or_a_lake_without_a_catalog_is_refused(
    lake: Lake, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="Give another --port"):
            serve_pages(lake, taken.getsockname()[1], print)
    with pytest.raises(MissingError, match="run `recsys nightly` first"):
        serve_pages(Lake(str(tmp_path / "none"), ObjectStorage()), 0, print)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser as wide as a telephone."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        page.use_width(390)
        yield page


@pytest.mark.slow
def test_a_browser_shows_the_pages_with_no_error_and_no_other_host(
    page: Page, pages: httpx.Client
) -> None:
    root = str(pages.base_url).rstrip("/")
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    for scheme, path in (
        ("light", "/"),
        ("light", "/search?q=b"),
        ("light", f"/user?id={quote(HOSTILE)}"),
        ("light", f"/user?id=ann&against={YESTERDAY}&night={TODAY}"),
        ("dark", f"/user?id=ann&night={TODAY}&against={YESTERDAY}"),
        ("light", "/item?id=a"),
        ("light", "/item/neighbours?id=a"),
        ("dark", "/nights"),
    ):
        page.use_color_scheme(scheme)
        page.open(root + path)
        page.until(f"document.readyState == 'complete' && location.href.endsWith({path[-9:]!r})")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path
        assert page.evaluate("document.querySelectorAll('main b, script').length") == 0
        pictures = "[...document.querySelectorAll('img')].map(i => [i.className, i.naturalWidth])"
        assert {tuple(one) for one in page.evaluate(pictures)} <= {("picture", 1)}
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(result => result.violations)")
        grave = [
            (rule["id"], [node["html"][:200] for node in rule["nodes"]])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert grave == [], path
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith((root, "about:", "data:"))] == []
