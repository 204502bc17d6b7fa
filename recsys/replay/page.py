"""A replay for a reader: a Markdown table, and a drawing of its nights."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from recsys.catalog.report.charts import Series, picture
from recsys.markdown import markdown_table

if TYPE_CHECKING:
    from recsys.replay.replay import ReplayResult, ReplayRow

_STYLES = "abcde"


def replay_table(result: ReplayResult) -> str:
    """Return the table of all nights: each setting with its difference to the first one."""
    heads = ["setting", "trainings", "HR@10", "NDCG@10", "popularity's", "difference of NDCG@10"]
    by_setting: dict[str, dict[str, ReplayRow]] = {}
    for row in result.rows:
        if row.run_date is None:
            by_setting.setdefault(row.setting, {})[row.metric] = row
    cells = []
    for setting, metrics in by_setting.items():
        hr, ndcg = metrics["hr@10"], metrics["ndcg@10"]
        cells.append(
            [
                setting,
                str(ndcg.trainings),
                _figure(hr.result),
                _figure(ndcg.result),
                _figure(ndcg.popularity),
                _difference(ndcg),
            ]
        )
    users = next(iter(by_setting.values()))["ndcg@10"].users
    told = (
        f"{result.nights:,} nights from {result.first} to {result.last}, with {users:,} times that "
        "a user with a list took something new within seven days. In brackets: the 95 % interval, "
        "paired by user."
    )
    return "\n".join([*markdown_table(heads, cells), told, ""])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(row: ReplayRow) -> str:
    if row.difference is None or row.low is None:
        return ""
    return f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})"


def replay_picture(result: ReplayResult) -> str:
    """Return an SVG of NDCG@10 from the first night up to each, by setting."""
    totals: dict[str, list[tuple[float, float]]] = {}
    sums: dict[str, tuple[float, int]] = {}
    for row in result.rows:
        if row.run_date is None or row.metric != "ndcg@10" or row.result is None:
            continue
        total, users = sums.get(row.setting, (0.0, 0))
        sums[row.setting] = total + row.result * row.users, users + row.users
        total, users = sums[row.setting]
        point = (float(row.run_date.toordinal()), total / users)
        totals.setdefault(row.setting, []).append(point)
    lines = [
        Series(name, points, _STYLES[nth % len(_STYLES)])
        for nth, (name, points) in enumerate(totals.items())
    ]
    return picture(
        lines,
        "NDCG@10 of all nights up to each, by setting",
        x_name="night",
        x_format=lambda x: date.fromordinal(int(x)).isoformat(),
        y_format=lambda y: f"{y:.2f}",
    )
