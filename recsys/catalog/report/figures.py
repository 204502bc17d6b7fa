"""The figures of a report, read from the catalog: a statement of sql/report each."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.catalog.report.diffusion import DiffusionFigures
from sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa
    from numpy.typing import NDArray

Row = dict[str, Any]
"""A row of a statement of sql/report, whose header names the columns."""

_USERS = 12
SAMPLE_SEED = 0
"""Of the hash that draws the users that a report shows, and whose lists a night explains."""
_SAMPLED_USERS = 2_000
"""Users whose lists are compared over 30 nights."""
_TOP = 15
_SHOWN_RANKS = 10
_UNTITLED: Row = dict.fromkeys(("title", "category", "image", "price"))


@dataclass(frozen=True)
class Exposure:
    """How the places of a night's lists are spread over the items that may be listed.

    Attributes:
        eligible: items that may be listed.
        shown: those of them that are in a list.
        places: places of all lists together.
        gini: 0 where every item is shown equally often, towards 1 where few take all places.
        top_share: share of the places that the ten most shown items take.
        curve: (share of the items, most shown first; share of the places).
        used_curve: the same for interactions: how uneven users themselves are.
        novelty: mean bits of the listed items, -log2 of an item's share of the interactions.
        used_novelty: the same of the interactions.
        top: the most shown items, with `rank` by interactions.
    """

    eligible: int
    shown: int
    places: int
    gini: float
    top_share: float
    curve: list[tuple[float, float]]
    used_curve: list[tuple[float, float]]
    novelty: float
    used_novelty: float
    top: list[Row]


@dataclass(frozen=True)
class SampleUser:
    """A user's newest interactions and list, newest and best first."""

    user_id: Any
    history: list[Row]
    entries: list[Row]

    @property
    def interactions(self) -> int:
        """How many the user has in all."""
        return self.history[0]["interactions"] if self.history else 0

    @property
    def served_by(self) -> str:
        """Who made the list, in words."""
        reasons = {row["reason"] for row in self.entries}
        names = {"model": "the model", "popular": "popularity"}
        return " and ".join(names.get(reason, str(reason)) for reason in sorted(reasons))


@dataclass(frozen=True)
class ModelFigures:
    """A model's figures on the users' last items; see the view `model_metrics`.

    Attributes:
        row: of sql/report/model.sql.
        systems: the model and what it was compared with, the best first, of sql/report/metrics.sql.
        slices: the model's figures for parts of the users, of the same.
        log: the epochs of its training.
        best_epoch: whose weights serve.
        denoises: whether it has a diffusion at all.
        diffusion: what that does; None where its training did not measure it.
    """

    row: Row
    systems: list[Row]
    slices: list[Row]
    log: list[Row]
    best_epoch: int | None
    denoises: bool
    diffusion: DiffusionFigures | None

    @property
    def own(self) -> Row:
        """The model among the systems."""
        return next(system for system in self.systems if system["system"] == "model")

    def baseline(self, name: str) -> Row | None:
        """Return one of the other systems."""
        return next((system for system in self.systems if system["system"] == name), None)


@dataclass(frozen=True)
class LiveFigures:
    """What users did, against the lists that they had: see the table `live_metrics`.

    Attributes:
        nights: by night, of sql/report/live_nights.sql.
        week: all users together over the newest nights, of sql/report/live_week.sql.
        parts: parts of the users, items and ranks, of the same.
    """

    nights: list[Row]
    week: Row
    parts: list[Row]


@dataclass(frozen=True)
class Figures:
    """All that a report shows; a list is empty, and a row None, where a lake holds nothing yet."""

    run_date: date
    is_newest: bool
    night: Row | None = None
    nights: list[Row] = field(default_factory=list)
    changes: Row | None = None
    stability: list[Row] = field(default_factory=list)
    exposure: Exposure | None = None
    calibration: list[Row] = field(default_factory=list)
    users: list[SampleUser] = field(default_factory=list)
    model: ModelFigures | None = None
    live: LiveFigures | None = None
    drift: list[Row] = field(default_factory=list)
    batches: list[Row] = field(default_factory=list)
    rejections: list[Row] = field(default_factory=list)
    checks: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)


def read_figures(con: duckdb.DuckDBPyConnection, run_date: date | None) -> Figures:
    """Read the figures of a day's lists; of the newest lists without a day.

    Args:
        con: the open catalog.
        run_date: the day that the lists are for.
    """
    ask = _Catalog(con)
    newest = ask.row("select max(run_date) as day from editions where status = 'current'")["day"]
    run_date = run_date or newest or datetime.now(UTC).date()
    night = ask.one("night", run_date=run_date)
    is_newest = newest is None or run_date >= newest
    until = _until(night, is_newest=is_newest)
    operations: dict[str, Any] = {
        "batches": ask.all("batches", until=until),
        "rejections": ask.all("rejections", until=until),
        "checks": ask.all("checks", run_date=run_date.isoformat()),
        "runs": ask.all("runs", until=until),
    }
    if night is None:
        return Figures(run_date, is_newest, **operations)
    users = max(1, (night["users"] or 0) // _SAMPLED_USERS)
    return Figures(
        run_date,
        is_newest,
        night=night,
        nights=ask.all("nights", run_date=run_date),
        changes=_changes(ask.one("changes", run_date=run_date)),
        stability=ask.all("stability", run_date=run_date, one_in=users),
        exposure=_exposure(ask, run_date),
        calibration=ask.all("calibration", run_date=run_date),
        users=_sample(ask, run_date),
        model=_model(ask, night["model_id"]),
        live=_live(ask, run_date),
        drift=ask.all("drift", run_date=run_date),
        **operations,
    )


@dataclass(frozen=True)
class _Catalog:
    """Runs statements of sql/report."""

    con: duckdb.DuckDBPyConnection

    def table(self, name: str, **parameters: object) -> pa.Table:
        return self.con.sql(load(f"report/{name}"), params=parameters).to_arrow_table()

    def all(self, name: str, **parameters: object) -> list[Row]:
        rows: list[Row] = self.table(name, **parameters).to_pylist()
        return rows

    def one(self, name: str, **parameters: object) -> Row | None:
        return next(iter(self.all(name, **parameters)), None)

    def row(self, statement: str) -> Row:
        (row,) = self.con.sql(statement).to_arrow_table().to_pylist()
        return dict(row)


def _until(night: Row | None, *, is_newest: bool) -> datetime:
    """Return up to when runs and batches belong to a night: now, or the day after it."""
    now = datetime.now(UTC)
    if is_newest or night is None or night["published_at"] is None:
        return now
    published: datetime = night["published_at"]
    return min(now, published + timedelta(days=1))


def _changes(row: Row | None) -> Row | None:
    return row if row and row["before"] else None


def _exposure(ask: _Catalog, run_date: date) -> Exposure | None:
    table = ask.table("exposure", run_date=run_date)
    lists, used = (table[name].to_numpy().astype(np.int64) for name in ("lists", "interactions"))
    if not lists.sum():
        return None
    order = np.argsort(-used, kind="stable")
    rank = np.empty(len(used), dtype=np.int64)
    rank[order] = np.arange(1, len(used) + 1)
    bits = -np.log2(used / used.sum())
    titles = _titles(ask, table["item_id"].slice(0, _TOP).to_pylist())
    top = [
        {**_UNTITLED, **row, **titles.get(row["item_id"], {}), "rank": int(rank[place])}
        for place, row in enumerate(table.slice(0, _TOP).to_pylist())
        if row["lists"]
    ]
    return Exposure(
        eligible=len(lists),
        shown=int((lists > 0).sum()),
        places=int(lists.sum()),
        gini=_gini(lists),
        top_share=float(lists[:10].sum() / lists.sum()),
        curve=_curve(lists),
        used_curve=_curve(used),
        novelty=float((bits * lists).sum() / lists.sum()),
        used_novelty=float((bits * used).sum() / used.sum()),
        top=top,
    )


def _titles(ask: _Catalog, items: list[Any]) -> dict[Any, Row]:
    rows = ask.all("titles", items=items)
    return {row["item_id"]: row for row in rows}


def _gini(counts: NDArray[np.int64]) -> float:
    """Return the Gini coefficient of counts: half of their mean absolute difference to the mean."""
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def _curve(counts: NDArray[np.int64], points: int = 60) -> list[tuple[float, float]]:
    """Return a concentration curve: shares of the items, the largest first, and of their sum."""
    shares = np.concatenate([[0.0], np.cumsum(np.sort(counts)[::-1]) / counts.sum()])
    places = np.unique(np.linspace(0, len(counts), points).round().astype(int))
    return [(float(place / len(counts)), float(shares[place])) for place in places]


def _sample(ask: _Catalog, run_date: date) -> list[SampleUser]:
    """Return a few users, the same for the same lists."""
    drawn = ask.all("users", run_date=run_date, count=_USERS, seed=str(SAMPLE_SEED))
    users = [row["user_id"] for row in drawn]
    if not users:
        return []
    histories = _by_user(ask.all("histories", run_date=run_date, users=users))
    lists = _by_user(ask.all("lists", run_date=run_date, users=users, longest=_SHOWN_RANKS))
    return [SampleUser(user, histories.get(user, []), lists.get(user, [])) for user in users]


def _by_user(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    grouped: dict[Any, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["user_id"], []).append(row)
    return grouped


def _model(ask: _Catalog, model_id: str | None) -> ModelFigures | None:
    """Return a model's figures; None where no model served, or one without figures."""
    row = ask.one("model", model_id=model_id)
    metrics = ask.all("metrics", model_id=model_id) if row else []
    systems = [each for each in metrics if each["slice"] == "all"]
    if row is None or all(system["system"] != "model" for system in systems):
        return None
    slices = [each for each in metrics if each["slice"] != "all" and each["system"] == "model"]
    slices.sort(key=lambda each: _natural(each["slice"]))
    config = json.loads(row["config"] or "{}")
    return ModelFigures(
        row,
        systems,
        slices,
        config.get("log", []),
        config.get("best_epoch"),
        config.get("model", {}).get("approximator") != "none",
        _diffusion(ask, row["model_id"], config.get("diffusion")),
    )


def _diffusion(ask: _Catalog, model_id: str, measured: Row | None) -> DiffusionFigures | None:
    if measured is None:
        return None
    rows = ask.all("diffusion", model_id=model_id)
    return DiffusionFigures.of(measured, rows, _titles(ask, measured["targets"]))


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts the numbers in texts by their size."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", text)
    ]


def _live(ask: _Catalog, run_date: date) -> LiveFigures | None:
    week = ask.all("live_week", run_date=run_date)
    if not week or week[0]["slice"] != "all":
        return None
    return LiveFigures(ask.all("live_nights", run_date=run_date), week[0], week[1:])
