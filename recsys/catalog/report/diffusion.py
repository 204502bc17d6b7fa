"""What the diffusion of a model does, and Figure 3 of its paper, drawn from its training."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any

from recsys.catalog.report.charts import STYLES, Cluster, Series, chart, scatter
from recsys.catalog.report.words import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    Row = dict[str, Any]

_NORMAL = 1.96
"""Standard errors of half a 95 % interval."""
_APART = 0.1
"""Of an axis by powers of two: what keeps the intervals of two lines side by side."""


@dataclass(frozen=True)
class DiffusionFigures:
    """What a training measured of its model's diffusion; see the view `diffusion_metrics`.

    Attributes:
        qualities: of sql/report/diffusion.sql.
        targets: the items that Figure 3 is about: their columns of sql/report/titles.sql, and
            `place`, their two coordinates.
        draws: by delta: `delta`, `silhouette`, `overlap`, and by target `hits` and `places`.
        shown: share of the variance of all directions that two dimensions show.
    """

    qualities: list[Row]
    targets: list[Row]
    draws: list[Row]
    shown: float

    @classmethod
    def of(
        cls, measured: Row, qualities: list[Row], titles: Mapping[Any, Row]
    ) -> DiffusionFigures | None:
        """Put together what `models.config` keeps as ``diffusion``; None where it keeps nothing."""
        if not qualities:
            return None
        untitled = dict.fromkeys(("title", "category", "image", "price"))
        targets = [
            {**untitled, "item_id": item, **titles.get(item, {}), "place": place}
            for item, place in zip(measured["targets"], measured["target_places"], strict=True)
        ]
        return cls(qualities, targets, measured["draws"], measured["shown"])

    @property
    def alone(self) -> Row:
        """The same network on the history alone."""
        return self.qualities[0]

    @property
    def served(self) -> Row:
        """As lists are made."""
        return next(row for row in self.qualities if row["is_served"])

    def finding(self) -> str:
        """Say whether the diffusion helps, in a sentence."""
        served, alone = self.served, self.alone
        low, high = interval(served)
        figures = (
            f"With δ = {served['delta']:g} and {_steps(served['steps'])}, as lists are made, "
            f"NDCG@10 is {served['ndcg']:.4f}; the same network on the history alone has "
            f"{alone['ndcg']:.4f}. The 95 % interval of the difference is {low:+.4f} to {high:+.4f}"
        )
        if low > 0:
            return f"The diffusion helps. {figures}."
        if high < 0:
            return f"The diffusion harms. {figures}."
        return f"The diffusion makes no difference that is certain. {figures}."


def interval(row: Row) -> tuple[float, float]:
    """Return the 95 % interval of a quality's difference to the history alone."""
    margin = _NORMAL * row["gain_error"]
    return row["gain"] - margin, row["gain"] + margin


def diffusion_parts(figures: DiffusionFigures | None) -> dict[str, Any]:
    """Return what the page shows of it."""
    if figures is None:
        return {"diffusion": None}
    return {
        "diffusion": figures,
        "diffusion_intervals": [interval(row) for row in figures.qualities],
        "diffusion_chart": _quality_chart(figures),
        "diffusion_clusters": [
            (draws, _clusters(figures.targets, draws, figures.draws)) for draws in figures.draws
        ],
        "diffusion_styles": STYLES,
    }


def _quality_chart(figures: DiffusionFigures) -> Markup:
    """Draw NDCG@10 over the reverse steps, a line for each delta."""
    by_delta: dict[float, list[Row]] = {}
    for row in figures.qualities[1:]:
        by_delta.setdefault(row["delta"], []).append(row)
    ticks = sorted({log2(row["steps"]) for row in figures.qualities[1:]})
    lines = [
        Series(
            f"δ = {delta:g}" + (", as trained" if delta == figures.served["delta"] else ""),
            [(log2(row["steps"]) + _APART * (nth - 1), row["ndcg"]) for row in rows],
            style,
            has_dots=True,
            margins=[_NORMAL * row["gain_error"] for row in rows],
        )
        for nth, ((delta, rows), style) in enumerate(zip(by_delta.items(), STYLES, strict=False))
    ]
    ends = (ticks[0] - 2 * _APART, ticks[-1] + 2 * _APART)
    alone = Series("history alone", [(end, figures.alone["ndcg"]) for end in ends], "mark")
    return chart(
        [*lines, alone],
        f"NDCG@10 by reverse steps and delta. {figures.finding()}",
        x_name="reverse steps",
        x_format=lambda x: f"{2**x:.0f}",
        y_format=lambda y: f"{y:.2f}",
        x_ticks=ticks,
    )


def _clusters(targets: Sequence[Row], draws: Row, all_draws: Sequence[Row]) -> Markup:
    """Draw Figure 3 at one delta; all are drawn to one scale."""
    everything = [tuple(target["place"]) for target in targets]
    for one in all_draws:
        everything += [tuple(place) for places in one["places"] for place in places]
    names = [str(number) for number in range(1, len(targets) + 1)]
    clusters = [
        Cluster(name, [(x, y) for x, y in places], tuple(target["place"]), style)
        for name, target, places, style in zip(
            names, targets, draws["places"], STYLES, strict=False
        )
    ]
    label = (
        f"Draws of the predicted target with delta {draws['delta']:g}, in two dimensions; "
        f"silhouette {draws['silhouette']:.2f}, {percent(draws['overlap'])} of two lists in common"
    )
    return scatter(clusters, everything, label)


def _steps(count: int) -> str:
    return f"{count} reverse step" + ("" if count == 1 else "s")
