"""The report: right figures, in a page that a browser opens without a word to the network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import open_catalog
from recsys.catalog.report import pictures
from recsys.catalog.report.diffusion import DiffusionFigures
from recsys.catalog.report.figures import Figures, read_figures
from recsys.catalog.report.files import forget_user, remove_reports, write_report
from recsys.catalog.report.headlines import headlines
from recsys.catalog.report.pictures import embedder
from recsys.lake.tables import Lake
from recsys.operations.runs import record_run
from recsys.settings import ObjectStorage, Settings
from tests import lakes, servers
from tests.browser import CHROMIUM, Page, chromium

YESTERDAY, TODAY = date(2026, 1, 2), date(2026, 1, 3)
HOSTILE = '<img src=x onerror="document.title=1">\u202e</script><b>"\'&'
USERS = ["ann", "bob", HOSTILE]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def known_lake(root: Path) -> Lake:
    """Two nights for three users over four items, of which one title and one user are hostile."""
    lake = Lake(str(root), ObjectStorage())
    lakes.fill(lake, {"ann": ["a", "b"], "bob": ["a"], HOSTILE: ["a", "c"]})
    image = {
        "a": "javascript:alert(1)",
        "b": "https://pictures.example/b.png",
        "c": "pictures/c.png",
    }
    (root / "pictures").mkdir(exist_ok=True)
    (root / "pictures" / "c.png").write_bytes(PNG)
    items = [
        {
            "item_id": item,
            "title": HOSTILE if item == "a" else f"Title {item}",
            "category": "drama" if item in "ab" else "comedy",
            "eligible": item != "d",
            "extra": json.dumps({"image": image.get(item), "price": f"9.5 {HOSTILE}"}),
        }
        for item in "abcd"
    ]
    lakes.write(lake, columns.ITEMS, items)
    before = lakes.lists(YESTERDAY, {"ann": ["c", "b"], "bob": ["b", "c"]})
    tonight = lakes.lists(TODAY, {"ann": ["c", "a"], HOSTILE: ["b", "a"]})
    tonight += lakes.lists(TODAY, {"bob": ["b", "c"]}, reason="popular", model_id=None)
    lakes.write(lake, columns.RECOMMENDATIONS, [*before, *tonight])
    made = {"model_id": "m", "without_list": 1, "published_at": lakes.START + timedelta(days=2)}
    editions = [
        lakes.edition(YESTERDAY, users=2, popular_users=0, **made),
        lakes.edition(TODAY, users=3, popular_users=1, **made),
    ]
    lakes.write(lake, columns.EDITIONS, editions)
    because = {"run_date": TODAY, "edition": 1, "rank": 1}
    lakes.write(
        lake,
        columns.EXPLANATIONS,
        [
            {**because, "user_id": "ann", "number": 2, "because_item_id": "a", "effect": 0.1},
            {**because, "user_id": "ann", "number": 1, "because_item_id": "b", "effect": 0.2},
            {**because, "user_id": "bob", "number": 1, "interactions": 1},
            {**because, "user_id": "ann", "number": 1, "because_item_id": "c", "edition": 2},
        ],
    )
    lakes.write(lake, columns.MODELS, [model()])
    bad = {"batch_id": "b", "source": "s", "reasons": [f"{HOSTILE} is null"], "row": "secret"}
    now = datetime.now(UTC)
    lakes.write(lake, columns.QUARANTINE, [{**bad, "quarantined_at": now}])
    batch = {"batch_id": "b", "source": "s", "status": "accepted", "finished": now}
    counts = {"rows_in": 1000, "accepted": 999, "quarantined": 1, "duplicates": 0}
    lakes.write(lake, columns.BATCHES, [{**batch, **counts}])
    check = {"subject": f"recommendations {TODAY}", "suite": "recommendations"}
    rule = {"rule": "every list is whole", "status": "passed", "observed": "0", "threshold": "0"}
    lakes.write(lake, columns.QUALITY_RESULTS, [{**check, **rule}])
    publish_catalog(lake)
    return lake


def model() -> dict[str, Any]:
    """A champion whose test NDCG@10 is 0.3, three times popularity's."""

    def evaluation(ndcg: float, **more: Any) -> dict[str, Any]:
        figures = {"hr@10": 2 * ndcg, "ndcg@10": ndcg}
        return {"users": 3, "masked": figures, "unmasked": figures, **more}

    interval = {"masked": {"ndcg@10": [0.25, 0.35], "hr@10": [0.5, 0.7]}}
    part = {"name": "history 1-2", **evaluation(0.2)}
    test = evaluation(0.3, intervals=interval, slices=[part], lists={})
    log = [{"epoch": epoch, "validation": 0.1 * epoch} for epoch in (1, 2, 3)]
    baselines = {name: {"test": evaluation(value)} for name, value in BASELINES.items()}
    return {
        "model_id": "m",
        "status": "champion",
        "why": "first",
        "preset": "best",
        "trained_at": lakes.START,
        "metrics": json.dumps({"test": test}),
        "baselines": json.dumps(baselines),
        "config": json.dumps({"log": log, "best_epoch": 2, "diffusion": DIFFUSION}),
    }


DIFFUSION = {
    "users": 3,
    "delta": 1.0,
    "steps": 2,
    "shown": 0.75,
    "qualities": [
        {"delta": delta, "steps": steps, "ndcg": 0.2 + gain, "error": 0.1}
        | {"gain": gain, "gain_error": 0.01}
        for delta, steps, gain in ((0, 0, 0), (1.0, 1, 0.01), (1.0, 2, 0.03), (0.1, 1, -0.05))
    ],
    "targets": ["a", "d"],
    "target_places": [[0, 0], [4, 0]],
    "draws": [
        {"delta": delta, "silhouette": 0.5, "overlap": 0.875, "hits": [0.25, 1.0]}
        | {"places": [[[1, 0], [1, 2]], [[3, 0], [4, 1]]]}
        for delta in (1.0, 0.1)
    ],
}


BASELINES = {"popularity": 0.1, "item-knn": 0.2}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return known_lake(tmp_path_factory.mktemp("report") / "lake")


def figures_of(lake: Lake, run_date: date | None = None) -> Figures:
    with open_catalog(lake) as con:
        return read_figures(con, run_date)


@pytest.mark.slow
def test_a_report_has_the_figures_of_a_known_night(known: Lake) -> None:
    figures = figures_of(known)
    assert (figures.run_date, figures.is_newest) == (TODAY, True)
    assert figures.night
    assert (figures.night["users"], figures.night["model_age_days"]) == (3, 2.0)
    assert [(night["run_date"], night["items"]) for night in figures.nights] == [
        (YESTERDAY, 2),
        (TODAY, 3),
    ]
    assert [night["shown"] for night in figures.nights] == [2 / 3, 1.0]
    assert figures.changes
    assert {**figures.changes, "before": None} == {
        "before": None,
        "users": 3,
        "new_users": 1,
        "gone_users": 0,
        "same_users": 1,
        "entries": 4,
        "kept_entries": 3,
    }
    assert figures.stability == [{"run_date": TODAY, "kept": 0.75}]
    exposure = figures.exposure
    assert exposure
    assert (exposure.eligible, exposure.shown, exposure.places) == (3, 3, 6)
    assert [(row["item_id"], row["lists"], row["rank"]) for row in exposure.top] == [
        ("a", 2, 1),
        ("b", 2, 2),
        ("c", 2, 3),
    ]
    assert exposure.gini == pytest.approx(0.0)
    assert figures.calibration == [
        {"category": "drama", "used": 0.8, "listed": pytest.approx(4 / 6)},
        {"category": "comedy", "used": 0.2, "listed": pytest.approx(2 / 6)},
    ]
    shown = {user.user_id: user for user in figures.users}
    assert set(shown) == set(USERS)
    assert [row["item_id"] for row in shown["ann"].history] == ["b", "a"]
    assert [row["item_id"] for row in shown["ann"].entries] == ["c", "a"]
    reasons = [(row["because"], row["interactions"]) for row in shown["ann"].entries]
    assert reasons == [(["Title b", HOSTILE], None), (None, None)]
    assert shown["bob"].entries[0]["interactions"] == 1
    assert shown["bob"].served_by == "popularity"
    assert figures.model
    assert [(row["system"], row["ndcg"]) for row in figures.model.systems] == [
        ("model", 0.3),
        ("item-knn", 0.2),
        ("popularity", 0.1),
    ]
    assert (figures.model.own["low"], figures.model.own["high"]) == (0.25, 0.35)
    assert [(row["slice"], row["ndcg"]) for row in figures.model.slices] == [("history 1-2", 0.2)]


def test_a_report_says_what_the_diffusion_does(known: Lake) -> None:
    figures = figures_of(known)
    assert figures.model
    measured = figures.model.diffusion
    assert measured
    assert [(row["delta"], row["steps"], row["is_served"]) for row in measured.qualities] == [
        (0.0, 0, False),
        (1.0, 1, False),
        (1.0, 2, True),
        (0.1, 1, False),
    ]
    assert [target["title"] for target in measured.targets] == [HOSTILE, "Title d"]
    assert measured.finding() == (
        "The diffusion helps. With δ = 1 and 2 reverse steps, as lists are made, NDCG@10 is "
        "0.2300; the same network on the history alone has 0.2000. The 95 % interval of the "
        "difference is +0.0104 to +0.0496."
    )
    page = Path(write_report(known)).read_text()
    section = page.partition('<section id="diffusion">')[2].partition("</section>")[0]
    assert section.count('<svg class="scatter"') == 2
    assert section.count('class="dot draw ') == 8
    assert section.count('class="interval ') == 3
    assert "in two dimensions that show 75 % of their variance" in section.replace("\n", " ")
    assert "have 88 % of their first ten items in common" in section


@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.0, "makes no difference that is certain"), (-0.03, "The diffusion harms")],
)
def test_a_finding_is_certain_only_beyond_its_interval(gain: float, words: str) -> None:
    row = {"delta": 0.1, "steps": 1, "ndcg": 0.2, "gain": gain, "gain_error": 0.01}
    rows = [{**row, "is_served": False}, {**row, "is_served": True}]
    assert words in DiffusionFigures(rows, [], [], 0.0).finding()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model": {"approximator": "none"}, "diffusion": None}, "This model has no diffusion"),
        ({"model": {"approximator": "additive"}}, "did not measure what its diffusion does"),
        ({}, "did not measure what its diffusion does"),
    ],
)
def test_a_report_says_why_it_shows_no_diffusion(
    tmp_path: Path, config: dict[str, Any], sentence: str
) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {"ann": ["a", "b"]})
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(TODAY, {"ann": ["a"]}))
    edition = lakes.edition(TODAY, users=1, popular_users=0, model_id="m")
    lakes.write(lake, columns.EDITIONS, [edition])
    lakes.write(lake, columns.MODELS, [{**model(), "config": json.dumps(config)}])
    publish_catalog(lake)
    assert sentence in Path(write_report(lake)).read_text()


def test_a_report_answers_its_four_questions(known: Lake) -> None:
    served, better, changed, worry = headlines(figures_of(known))
    assert (served.text, served.detail) == (
        "3 users",
        "2 by the model, 1 by popularity alone; 1 without a list.",
    )
    assert better.text == "Yes: 3.0 times as good on held-out items"
    assert changed.text == "25 % of the entries are new"
    assert changed.detail.startswith("Against 2 January 2026: 1 new user, 0 gone; 1 of 3 lists")
    assert worry.text == "1 user got no list"


@pytest.mark.slow
def test_live_figures_come_before_those_on_held_out_items_and_drift_is_a_worry(
    tmp_path: Path,
) -> None:
    lake = known_lake(tmp_path / "lake")
    metric = {"edition": 1, "days": 1, "slice": "all", "value": "all", "metric": "hr@10"}
    results = {
        (YESTERDAY, "served"): (100, 0.30),
        (YESTERDAY, "popularity"): (100, 0.10),
        (YESTERDAY, "lead"): (100, 0.20),
        (TODAY, "served"): (300, 0.50),
        (TODAY, "popularity"): (300, 0.40),
        (TODAY, "lead"): (300, 0.10),
    }
    rows = [
        {**metric, "run_date": day, "lists": lists, "users": users, "result": result}
        for (day, lists), (users, result) in results.items()
    ]
    longer = [{**row, "metric": "hr@20", "result": 0.9} for row in rows]
    part = {"slice": "reason", "value": "model", "result": 0.25}
    rows += [*longer, {**rows[0], **part}]
    lakes.write(lake, columns.LIVE_METRICS, [{**row, "deviation": 0.5} for row in rows])
    limits = {"kind": "psi", "warn_at": 0.1, "retrain_at": 0.25, "run_date": TODAY}
    drift = [
        {**limits, "measure": "hours", "result": 0.02, "verdict": "steady"},
        {**limits, "measure": "item popularity", "result": 0.12, "verdict": "warn"},
        {**limits, "measure": "hours", "result": 0.01, "verdict": "steady", "run_date": YESTERDAY},
    ]
    lakes.write(lake, columns.DRIFT, drift)
    publish_catalog(lake)

    figures = figures_of(lake)

    live = figures.live
    assert live
    assert [(night["served"], night["popularity"]) for night in live.nights] == [
        (0.3, 0.1),
        (0.5, 0.4),
    ]
    assert live.week["served"] == pytest.approx((100 * 0.3 + 300 * 0.5) / 400)
    assert live.week["lead"] == pytest.approx((100 * 0.2 + 300 * 0.1) / 400)
    assert [(row["value"], row["served"]) for row in live.parts] == [("model", 0.25)]
    assert live.week["lead_error"] == pytest.approx(0.5 / 400**0.5)
    assert [row["measure"] for row in figures.drift] == ["item popularity", "hours"]
    assert figures.drift[1]["trend"] == [0.01, 0.02]
    _, better, _, worry = headlines(figures)
    assert (better.text, better.tone) == ("Yes, on what users did", "good")
    assert "(difference +7.6 to +17.4 points)" in better.detail
    assert worry.text == "The data drifted: item popularity"
    assert "No list has been compared" not in Path(write_report(lake)).read_text()


def test_a_report_says_what_a_lake_holds_nothing_of(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), ObjectStorage())
    lakes.fill(lake, {1: [2]})
    publish_catalog(lake)
    page = Path(write_report(lake)).read_text()
    for sentence in ("No model made these lists", "No night has measured drift", "No batch was"):
        assert sentence in page
    assert headlines(figures_of(lake))[3].text == "Nobody is served"


@pytest.mark.slow
def test_a_report_on_an_earlier_day_leaves_the_newest_in_place(tmp_path: Path) -> None:
    lake = known_lake(tmp_path / "lake")
    newest, earlier = write_report(lake), write_report(lake, YESTERDAY)
    folder = Path(newest).parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "2026-01-02.html",
        "2026-01-03.html",
        "latest.html",
    ]
    assert "Lists for 2 January 2026" in Path(earlier).read_text()
    assert (folder / "latest.html").read_text() == Path(newest).read_text()
    assert set(remove_reports(lake, TODAY, dry_run=True)) == {"2026-01-02.html"}
    assert Path(earlier).exists()
    remove_reports(lake, TODAY, dry_run=False)
    assert not Path(earlier).exists()
    assert forget_user(lake, "nobody") == 0
    assert forget_user(lake, HOSTILE) == 2, "the day's, and the newest"
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_an_edition_of_before_it_was_counted_and_figures_of_zero_make_a_report(
    tmp_path: Path,
) -> None:
    lake = known_lake(tmp_path / "lake")
    day = TODAY + timedelta(days=1)
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(day, {"ann": ["b"], "bob": ["a"]}))
    lakes.write(lake, columns.EDITIONS, [lakes.edition(day, users=2, model_id="m")])
    rows = [
        {"run_date": run_date, "edition": 1, "days": 1, "slice": "all", "value": "all"}
        | {"lists": lists, "metric": "hr@5", "users": 3, "result": 0.0, "deviation": 0.0}
        for run_date in (YESTERDAY, TODAY)
        for lists in ("served", "popularity", "lead")
    ]
    lakes.write(lake, columns.LIVE_METRICS, rows)
    publish_catalog(lake)
    assert "one of the first 5 items" in Path(write_report(lake)).read_text()


@pytest.mark.slow
def test_a_report_that_can_not_be_written_stops_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(lake=str(tmp_path / "lake"), device="cpu")
    lakes.fill(Lake.from_settings(settings), {1: [2]})
    (tmp_path / "lake" / "reports").write_text("a file where the folder should be")
    with record_run("nightly", "run", settings, {}) as run:
        pass
    assert run.report is None
    assert "the report could not be written" in caplog.text
    (tmp_path / "lake" / "reports").unlink()
    with record_run("nightly", "run 2", settings, {}) as run:
        pass
    assert run.report
    assert "nightly" in Path(run.report).read_text()


@pytest.mark.slow
def test_a_report_on_s3_is_one_object_that_a_browser_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        client = servers.client(endpoint)
        client.create_bucket(Bucket="lake")
        lake = Lake("s3://lake/nightly", ObjectStorage(endpoint_url=endpoint))
        lakes.fill(lake, {1: [2]})
        lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(TODAY, {1: [2]}))
        lakes.write(lake, columns.EDITIONS, [lakes.edition(TODAY, users=1, popular_users=0)])
        publish_catalog(lake)
        assert write_report(lake) == "s3://lake/nightly/reports/2026-01-03.html"
        stored = client.get_object(Bucket="lake", Key="nightly/reports/latest.html")
        assert stored["ContentType"] == "text/html"
        assert b"Lists for 3 January 2026" in stored["Body"].read()
        assert forget_user(lake, "1") == 2


def test_only_a_small_picture_within_the_lake_becomes_a_part_of_the_page(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    lake = tmp_path / "lake"
    (lake / "more").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(PNG)
    (lake / "a.png").write_bytes(PNG)
    (lake / "out.png").symlink_to(tmp_path / "secret.png")
    (lake / "text.png").write_text("<svg onload=alert(1)>")
    (lake / "large.png").write_bytes(PNG + bytes(pictures._MOST_BYTES))
    os.mkfifo(lake / "pipe.png")
    embed = embedder(lake)
    address = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert (embed("a.png"), embed("more/../a.png")) == (address, address)
    assert embed(str(lake / "a.png")) == address
    refused = ["../secret.png", str(tmp_path / "secret.png"), "out.png", "text.png", "large.png"]
    refused += ["pipe.png", "more", "", "none.png", "a\0.png", "x" * 5000, HOSTILE, "file:a.png"]
    assert [embed(image) for image in [*refused, None, 7]] == [None] * (len(refused) + 2)
    assert embedder(None)("a.png") is None, "a lake on S3"
    record_property("counted hostile inputs", ("picture of a page", len(refused)))


def test_all_pictures_of_a_page_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    monkeypatch.setattr(pictures, "_MOST_IN_ALL", 200)
    embed = embedder(tmp_path)
    first = embed("a.png")
    assert first
    assert embed("b.png") is None
    assert embed("a.png") == first, "it is in the page already"


@pytest.fixture(scope="module")
def page(known: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of the known night, as wide as a telephone."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        page.use_width(390)
        page.open(Path(write_report(known)).as_uri())
        page.until("document.readyState == 'complete'")
        yield page


def test_the_page_asks_nothing_of_the_network_and_reports_no_error(page: Page) -> None:
    page.until("document.querySelectorAll('svg').length > 5")
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.errors == []


def test_a_title_or_an_id_is_text_and_nothing_else(
    page: Page, record_property: pytest.RecordProperty
) -> None:
    assert page.evaluate("document.title") == "Lists for 3 January 2026"
    assert page.evaluate("document.querySelectorAll('b').length") == 0
    pictures = "[...document.querySelectorAll('img')].map(i => [i.src, i.naturalWidth])"
    address = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert {tuple(one) for one in page.evaluate(pictures)} == {(address, 1)}
    assert f"9.5 {HOSTILE}".replace("\u202e", "\\u202e") in page.text()
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    links = "[...document.querySelectorAll('main a')].map(a => a.href)"
    assert set(page.evaluate(links)) == {"https://pictures.example/b.png"}
    assert HOSTILE.replace("\u202e", "\\u202e") in page.text()
    assert "secret" not in page.text(), "rows in quarantine are not shown"
    run = "(() => { const s = document.createElement('script'); s.text = 'document.title = 2';"
    page.evaluate(f"{run} document.body.append(s) }})()")
    assert page.evaluate("document.title") != "2", "the policy lets no other script run"
    record_property("counted hostile inputs", ("text in HTML", 2))  # a title and an id


def test_a_telephone_shows_the_page_without_scrolling_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_click_on_a_head_sorts_the_table(page: Page) -> None:
    system = "document.querySelector('#quality table')"
    names = f"[...{system}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    head = f"{system}.querySelector('th button')"
    assert page.evaluate(names) == ["this model", "item-knn", "popularity"]
    page.evaluate(f"{head}.click()")
    assert page.evaluate(names) == ["this model", "popularity", "item-knn"]
    page.evaluate(f"{head}.click()")
    assert page.evaluate(names) == ["item-knn", "popularity", "this model"]
    figure = f"{system}.querySelectorAll('th button')[1]"
    page.evaluate(f"{figure}.click()")
    assert page.evaluate(names) == ["this model", "item-knn", "popularity"]
    assert page.evaluate(f"{figure}.closest('th').ariaSort") == "descending"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_breaks_no_serious_rule_of_axe(page: Page, scheme: str) -> None:
    page.use_color_scheme(scheme)
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run().then(result => result.violations)")
    grave = [
        (rule["id"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]
    assert grave == []
