"""The dictionary of the catalog: what it offers besides the tables of the lake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys import columns
from recsys.lake.schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class View:
    """A view of the catalog, or a table that lies in its file; made by sql/views/<name>.sql.

    Attributes:
        name: as one selects from it.
        meaning: its grain, in one sentence: what one row stands for.
        columns: column -> meaning, in the order that it has them.
        is_table: whether its rows lie in the file itself.
    """

    name: str
    meaning: str
    columns: Mapping[str, str]
    is_table: bool = False

    def meanings(self) -> Mapping[str, str]:
        """Return column -> meaning."""
        return self.columns


_MODELS = TABLES[columns.MODELS].meanings()
_LISTS = TABLES[columns.RECOMMENDATIONS].meanings()
_EDITIONS = TABLES[columns.EDITIONS].meanings()
_ITEMS = TABLES[columns.ITEMS].meanings()

VIEWS = {
    view.name: view
    for view in (
        View(
            "tables",
            "One row per table of the lake: which version of it this catalog shows.",
            {
                "table_name": "The table.",
                "version": "The version of the Delta table that the catalog shows.",
                "catalog_built_at": "When the catalog was built.",
                "lake": "Where the lake lay then, and where the views read its files.",
            },
            is_table=True,
        ),
        View(
            "recommendation_editions",
            "One row per run_date, edition, user and rank: every list that was ever published.",
            {**_LISTS, "status": _EDITIONS["status"]},
        ),
        View(
            "latest_recommendations",
            "One row per user and rank of the newest run_date up to tomorrow: the lists to serve.",
            _LISTS,
            is_table=True,
        ),
        View(
            "latest_batches",
            "One row per source: its newest accepted batch.",
            TABLES[columns.BATCHES].meanings(),
        ),
        View(
            "champion",
            "One row, or none before the first training: the model that serves.",
            _MODELS,
        ),
        View(
            "model_against_popularity",
            "One row per model, newest first: its test metrics and popularity's on the same users.",
            {
                **{
                    name: _MODELS[name]
                    for name in (
                        "model_id",
                        "status",
                        "trained_at",
                        "test_hr_10",
                        "popularity_test_hr_10",
                        "test_ndcg_10",
                        "popularity_test_ndcg_10",
                    )
                },
                "ndcg_10_ratio": "The model's test NDCG@10 divided by popularity's.",
            },
        ),
        View(
            "model_metrics",
            "One row per model, system, split, protocol, slice and metric: the figures of models.",
            {
                "model_id": _MODELS["model_id"],
                "system": "model: the model itself; or what it was compared with, by name.",
                "split": "validation or test: which of a user's items were held out.",
                "protocol": "masked: without items of the history; unmasked: with them; lists: of "
                "what the masked top 10 hold.",
                "slice": "all, or a part of the users, such as history 3-5.",
                "metric": "hr@K, ndcg@K; coverage@10, novelty@10 (bits), popularity@10.",
                "result": "The mean of the metric over the users of the slice.",
                "low": "The low end of its 95 % bootstrap interval; null where there is none.",
                "high": "The high end of it.",
                "users": "Users that were ranked.",
            },
        ),
        View(
            "diffusion_metrics",
            "One row per model, delta and number of reverse steps: what its diffusion brings.",
            {
                "model_id": _MODELS["model_id"],
                "delta": "Mean and standard deviation of the weight of the noised target.",
                "steps": "Reverse steps; with 0, and delta 0, the network reads the history alone.",
                "is_served": "Whether lists are made with this delta and so many steps.",
                "ndcg": "NDCG@10 on test items, in the protocol that judged the model.",
                "error": "Its standard error over the users.",
                "gain": "Its mean difference to the same network on the history alone.",
                "gain_error": "The standard error of that, over the same users.",
                "users": "Test users that were asked, drawn by a fixed seed: 256 at most.",
            },
        ),
        View(
            "recommendations_titled",
            "One row per user and rank of latest_recommendations, with title and category.",
            {**_LISTS, **{name: _ITEMS[name] for name in ("title", "category")}},
        ),
    )
}
"""Every view by its name, in the order in which they are made."""
