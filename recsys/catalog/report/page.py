"""The report as HTML: one file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import PackageLoader
from markupsafe import Markup

from recsys.catalog.report import words
from recsys.catalog.report.charts import Series, bar, chart, sparkline
from recsys.catalog.report.diffusion import diffusion_parts
from recsys.catalog.report.headlines import headlines, kept_share
from recsys.catalog.report.pictures import embedder
from recsys.catalog.report.templates import page_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from recsys.catalog.report.figures import Exposure, Figures, LiveFigures, ModelFigures, Row

_TONES = {"completed": "good", "running": "", "cancelled": "warn", "rejected": "warn"}
_DRAWN = 2
"""Points that a line needs."""


@dataclass(frozen=True)
class Tile:
    """A figure with its trend.

    Attributes:
        name: what is counted.
        figure: tonight's.
        more: what it is out of, or of which kinds.
        trend: a sparkline of 30 nights, or nothing.
    """

    name: str
    figure: str
    more: str
    trend: Markup


def render(figures: Figures, lake: Path | None = None) -> str:
    """Return the page.

    Args:
        figures: what it shows.
        lake: the folder that pictures of items may lie in.
    """
    environment = page_environment(PackageLoader("recsys.catalog.report", "page"), embedder(lake))
    loader = environment.loader
    assert loader  # noqa: S101 - given above
    style, script = (
        Markup(loader.get_source(environment, name)[0])  # noqa: S704 - files of ours
        for name in ("style.css", "sort.js")
    )
    return environment.get_template("page.html").render(
        figures=figures,
        policy=_policy(style, script),
        style=style,
        script=script,
        answers=headlines(figures),
        tiles=list(_tiles(figures)),
        tones=_TONES,
        written_at=datetime.now(UTC),
        batches_chart=_batches_chart(figures.batches),
        **_quality(figures.model),
        **diffusion_parts(figures.model.diffusion if figures.model else None),
        **_lists(figures),
        live=figures.live,
        live_chart=_live_chart(figures.live) if figures.live else None,
        drift_trends=[
            sparkline(row["trend"], f"{row['measure']}, {len(row['trend'])} nights")
            for row in figures.drift
        ],
    )


def _policy(style: str, script: str) -> str:
    """Allow this style and this script, and nothing else: no network, no script in any data."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _tiles(figures: Figures) -> Iterator[Tile]:
    night, nights, changes = figures.night, figures.nights, figures.changes
    if night is None:
        return
    users = night["users"] or 0

    def trend(name: str, label: str) -> Markup:
        return sparkline([row[name] for row in nights], f"{label}, {len(nights)} nights")

    yield Tile(
        "Users served",
        words.count(users),
        f"{words.count(night['without_list'])} without a list",
        trend("users", "Users served"),
    )
    by_model = [_share((n["users"] or 0) - (n["popular_users"] or 0), n["users"]) for n in nights]
    yield Tile(
        "Served by the model",
        words.percent(_share(users - (night["popular_users"] or 0), users)),
        f"{words.count(night['popular_users'])} users get popular items alone",
        sparkline(by_model, f"Share of users served by the model, {len(nights)} nights"),
    )
    yield Tile(
        "Items shown",
        words.percent(nights[-1]["shown"]) if nights else words.NONE,
        f"{words.count(nights[-1]['items'] if nights else None)} items are in a list",
        trend("shown", "Share of the items that are in a list"),
    )
    yield Tile(
        "Kept since the night before",
        words.percent(kept_share(changes)),
        f"{words.count(changes['same_users'])} lists stayed the same" if changes else "first night",
        sparkline([row["kept"] for row in figures.stability], "Share of entries that stayed"),
    )
    if live := figures.live:
        yield Tile(
            "Live hits",
            words.percent(live.week["served"]),
            f"popularity {words.percent(live.week['popularity'])}, {live.week['nights']} nights",
            sparkline([row["served"] for row in live.nights], "Share of active users hit"),
        )
    age = night["model_age_days"]
    yield Tile(
        "Age of the model",
        words.NONE if age is None else f"{age:.1f} days",
        f"trained {words.date_of(night['trained_at'])}" if age is not None else "no model serves",
        trend("model_age_days", "Age of the model in days"),
    )
    passed = sum(check["status"] == "passed" for check in figures.checks)
    yield Tile("Checks passed", f"{passed} of {len(figures.checks)}", "newest results", Markup(""))
    newest = figures.batches[-1] if figures.batches else None
    yield Tile(
        "New interactions",
        words.count(newest["accepted"]) if newest else words.NONE,
        f"{words.count(newest['quarantined'])} rejected, on {words.date_of(newest['day'])}"
        if newest
        else "none in 30 days",
        sparkline([row["accepted"] for row in figures.batches], "New interactions by day"),
    )


def _share(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


def _quality(model: ModelFigures | None) -> dict[str, Any]:
    if model is None:
        return {"model": None}
    most = max(system["high"] or system["ndcg"] for system in model.systems)
    bars = [
        bar(
            system["ndcg"],
            most,
            f"NDCG@10 {system['ndcg']:.4f}",
            "a" if system["system"] == "model" else "b",
            None if system["low"] is None else (system["low"], system["high"]),
        )
        for system in model.systems
    ]
    popularity = model.baseline("popularity")
    ratios = [
        system["ndcg"] / popularity["ndcg"] if popularity and popularity["ndcg"] else None
        for system in model.systems
    ]
    return {"model": model, "bars": bars, "ratios": ratios, "training": _training_chart(model)}


def _training_chart(model: ModelFigures) -> Markup | None:
    points = [
        (float(epoch["epoch"]), epoch["validation"])
        for epoch in model.log
        if epoch["validation"] is not None
    ]
    if len(points) < _DRAWN:
        return None
    return chart(
        [Series("validation NDCG@10", points, has_dots=len(points) < 40)],
        f"Validation NDCG@10 over {len(model.log)} epochs",
        x_name="epoch",
        x_format=lambda x: f"{x:.0f}",
        y_format=lambda y: f"{y:.3f}",
        mark=model.best_epoch,
    )


def _live_chart(live: LiveFigures) -> Markup | None:
    if len(live.nights) < _DRAWN:
        return None
    lines = [
        Series(name, [(_ordinal(row["run_date"]), row[key]) for row in nights], style)
        for name, key, style in (("served", "served", "a"), ("popularity", "popularity", "b"))
        if (nights := [row for row in live.nights if row[key] is not None])
    ]
    return chart(
        lines,
        "Share of active users who took a listed item, by night",
        x_name="night",
        x_format=_as_day,
        y_format=lambda y: f"{100 * y:.0f} %",
    )


def _lists(figures: Figures) -> dict[str, Any]:
    stability = [(_ordinal(row["run_date"]), row["kept"]) for row in figures.stability]
    return {
        "exposure": figures.exposure,
        "exposure_chart": _exposure_chart(figures.exposure) if figures.exposure else None,
        "stability_chart": chart(
            [Series("entries kept", stability, has_dots=True)],
            "Share of the entries that were in the list of the night before",
            x_name="night",
            x_format=_as_day,
            y_format=lambda y: f"{100 * y:.0f} %",
        )
        if len(stability) >= _DRAWN
        else None,
        "calibration_bars": _calibration_bars(figures.calibration),
    }


def _exposure_chart(exposure: Exposure) -> Markup:
    return chart(
        [
            Series("places of the lists", exposure.curve, "a"),
            Series("what users choose themselves", exposure.used_curve, "b"),
        ],
        "Share of the places that the most shown items take",
        x_name="share of the items, the most shown first",
        x_format=lambda x: f"{100 * x:.0f} %",
        y_format=lambda y: f"{100 * y:.0f} %",
    )


def _calibration_bars(rows: Sequence[Row]) -> list[Markup]:
    most = max((max(row["used"] or 0, row["listed"] or 0) for row in rows), default=0.0)
    drawn = []
    for row in rows:
        used, listed = row["used"] or 0.0, row["listed"] or 0.0
        drawn.append(
            bar(used, most, f"used {words.percent(used)}", "b")
            + bar(listed, most, f"listed {words.percent(listed)}", "a")
        )
    return drawn


def _batches_chart(batches: Sequence[Row]) -> Markup | None:
    if len(batches) < _DRAWN:
        return None
    lines = [
        Series(name, [(_ordinal(row["day"]), float(row[key])) for row in batches], style)
        for name, key, style in (
            ("new", "accepted", "a"),
            ("rejected", "quarantined", "b"),
            ("repeated", "duplicates", "c"),
        )
    ]
    return chart(
        lines,
        "New, rejected and repeated rows by day",
        x_name="day",
        x_format=_as_day,
        y_format=words.short,
    )


def _ordinal(day: Any) -> float:
    return float(day.toordinal())


def _as_day(ordinal: float) -> str:
    return datetime.fromordinal(int(ordinal)).date().isoformat()
