"""Trials of what lists learn from: `python -m tests.benchmarks.trials NAME [--seeds 0,1,2]`.

Each trains small models (width 64 unless `--set` says otherwise) on MovieLens-100K, seed by seed.
It adds one line of JSON a seed to `build/trials/NAME.jsonl`, and prints the means. A seed whose
line is there is not run again, so a trial that was stopped goes on. Validation decides, and test is
told beside it.

- `refit`: trained without everybody's last two items, against without the last one; `--data FILE`
  takes a Parquet file, too.
- `events`: every rating is a target, against ratings of 4 and more alone; judged on the latter.
- `new-items`: without 5 % of the items, which are folded in from the validation items, against
  popularity, and against a model that has learnt them.
- `warm-start`: the last tenth of the interactions is new; a training that goes on from the model of
  before, against a whole one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import duckdb
import numpy as np

from recsys.benchmark.datasets import movielens_100k
from recsys.evaluation.baselines import Popularity
from recsys.evaluation.metrics import mean_metrics
from recsys.evaluation.protocol import ranks, validator
from recsys.evaluation.splits import HeldOut, leave_one_out, reindex_by_train_popularity
from recsys.histories import PADDING, Histories, Packed
from recsys.ingest.batch import ingest
from recsys.lake.packing import pack
from recsys.lake.roles import Roles
from recsys.lake.tables import Lake
from recsys.model.fold_in import fold_in
from recsys.model.presets import Preset, resolve
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.models import find_model
from recsys.registry.refit import refit_epochs
from recsys.registry.retrain import train
from recsys.settings import Events, Gate, Settings, Source, Training
from recsys.training.trainer import FitResult, fit
from sql import file_literal

ONE_THREAD = Runtime("cpu", 1)
NEW_SHARE = 0.05
_COLUMNS = {"user_id": "user_id", "item_id": "movie_id", "timestamp": "rated_at"}


@dataclass(frozen=True)
class Data:
    """What a trial reads.

    Attributes:
        ratings: MovieLens-100K as a DuckDB file.
        file: another file, in Parquet; None for MovieLens-100K.
        overrides: fields of the preset `best` that have another value.
    """

    ratings: Path
    file: Path | None
    overrides: dict[str, Any]

    @property
    def preset(self) -> Preset:
        return resolve("best", self.overrides)

    def packed(self, roles: Roles | None = None) -> Packed:
        """Return the histories, their items most popular first in what is learnt from."""
        with duckdb.connect() as con:
            if self.file is None:
                con.execute(f"attach {file_literal(str(self.ratings))} as movielens (read_only)")
                rows = (
                    "select user_id, movie_id as item_id, to_timestamp(rated_at) as timestamp, "
                    "rowid as source_row, rating::double as value from movielens.ratings"
                )
            else:
                file = file_literal(str(self.file))
                rows = (
                    "select user_id, item_id, timestamp, file_row_number as source_row, "
                    f"null::double as value from read_parquet({file}, file_row_number = true)"
                )
            con.execute(
                "create temp view interactions as select *, null::varchar as event, "
                f"null::timestamptz as ingested_at from ({rows})"
            )
            return reindex_by_train_popularity(pack(con, roles=roles), leave_one_out)[0]


def trained(
    train_on: Histories,
    n_items: int,
    data: Data,
    seed: int,
    validation: HeldOut | None,
    epochs: int | None = None,
) -> FitResult:
    """Train the recipe; it stops by the validation items where there are any."""
    validate = validator(validation, seed=seed, runtime=ONE_THREAD) if validation else None
    return fit(
        train_on,
        n_items,
        data.preset,
        seed=seed,
        runtime=ONE_THREAD,
        validate=validate,
        epochs=epochs,
    )


def judged(model: Recommender, held_out: HeldOut, seed: int) -> dict[str, float]:
    """Return the metrics of a model on held-out items, without what the user has had."""
    scorer = ModelScorer(model, seed=seed, runtime=ONE_THREAD)
    known = replace(held_out, history=held_out.history.drop_unknown_items(model.n_items))
    return mean_metrics(ranks(scorer, known)["masked"])


def refit(data: Data, seed: int) -> dict[str, Any]:
    """The judged weights, and the same recipe with everybody's second-newest item."""
    packed = data.packed()
    split, n_items = leave_one_out(packed.histories), len(packed.items)
    before = trained(split.train, n_items, data, seed, split.validation)
    ends = split.train.ends.copy()
    ends[split.is_validated] += 1
    whole = replace(split.train, ends=ends)
    epochs = refit_epochs(before.best_epoch, split.train, whole)
    after = trained(whole, n_items, data, seed, None, epochs)
    return {
        "judged": judged(before.model, split.test, seed),
        "refit": judged(after.model, split.test, seed),
        "judged, validation": judged(before.model, split.validation, seed),
        "epochs": {"judged": before.best_epoch, "refit": epochs},
    }


def events(data: Data, seed: int) -> dict[str, Any]:
    """Both learn from the same rows, and are judged on everybody's last ratings of 4 and more."""
    packed = data.packed(Roles.of(Events(min_value=4)))
    split, told = leave_one_out(packed.histories), {}
    for name, roles in (("all", None), ("4 and more", split.train.roles)):
        train_on = replace(split.train, roles=roles)
        model = trained(train_on, len(packed.items), data, seed, split.validation).model
        told[f"targets: {name}"] = judged(model, split.test, seed)
        told[f"targets: {name}, validation"] = judged(model, split.validation, seed)
    return told


def new_items(data: Data, seed: int) -> dict[str, Any]:
    """Test events on items that training never saw, and on the others."""
    packed = data.packed()
    n_items = len(packed.items)
    n_known = n_items - round(NEW_SHARE * n_items)
    drawn = np.random.default_rng(seed).permutation(n_items).astype(np.int32) + 1
    index = np.zeros(n_items + 1, dtype=np.int32)
    index[np.concatenate([np.sort(drawn[:n_known]), drawn[n_known:]])] = np.arange(1, n_items + 1)
    everything = packed.histories.remap_items(index)
    whole = leave_one_out(everything)
    split = leave_one_out(_without(everything, whole.train, n_known))

    is_old = np.flatnonzero(split.validation.target <= n_known)
    known = trained(split.train, n_known, data, seed, split.validation[is_old]).model
    scorer = ModelScorer(known, seed=seed, runtime=ONE_THREAD)
    folded, has_vector = fold_in(scorer, split.test.history, n_items)
    learnt = trained(whole.train, n_items, data, seed, whole.validation).model
    popularity = Popularity.of(split.test.history, n_items)
    is_new = split.test.target > n_known
    new, other = split.test[is_new], split.test[~is_new]
    return {
        "new: events": {
            "all": int(is_new.sum()),
            "with a vector": int(has_vector[new.target].sum()),
        },
        "new: popularity": mean_metrics(ranks(popularity, new)["masked"]),
        "new: folded in": judged(folded, new, seed),
        "new: learnt": judged(learnt, whole.test[whole.test.target > n_known], seed),
        "others: as it was": judged(known, other, seed),
        "others: folded in": judged(folded, other, seed),
    }


def _without(histories: Histories, train: Histories, n_known: int) -> Histories:
    """Leave out what training would see of items above ``n_known``."""
    items = histories.items.copy()
    _, places = train.places()
    items[places[items[places] > n_known]] = PADDING
    return replace(histories, items=items).remap_items(np.arange(items.max() + 1, dtype=np.int32))


def warm_start(data: Data, seed: int) -> dict[str, Any]:
    """Trainings of a lake that has grown by a tenth, with the seconds of their epochs."""
    training = Training(seed=seed, overrides=data.overrides)
    told = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            lake=f"{folder}/lake",
            training=training,
            gate=Gate(allow_below_baseline=True),
            device="cpu",
            threads=1,
        )
        lake = Lake.from_settings(settings)
        for share in (0.9, 1.0):
            rows = (
                "select *, row_number() over (order by rated_at, user_id, movie_id) as n, "
                "count(*) over () as of_all from ratings"
            )
            query = f"select * exclude (n, of_all) from ({rows}) where n <= {share} * of_all"
            source = Source(uri=str(data.ratings), query=query, columns=_COLUMNS)
            ingest(lake, settings.model_copy(update={"source": source}))
            if share < 1:
                train(lake, settings)
        for name, warm in (("warm", True), ("whole", False)):
            chosen = training.model_copy(update={"warm_start": warm})
            row = find_model(lake, train(lake, settings, chosen).model_id)
            assert row is not None
            assert row.config is not None
            config = json.loads(row.config)
            told[name] = {
                "validation ndcg@10": row.validation_ndcg_10,
                "test ndcg@10": row.test_ndcg_10,
                "epochs": config["epochs_run"],
                "seconds": sum(epoch["seconds"] for epoch in config["log"]),
            }
    return told


TRIALS: dict[str, Callable[[Data, int], dict[str, Any]]] = {
    "refit": refit,
    "events": events,
    "new-items": new_items,
    "warm-start": warm_start,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds of a trial that are missing, and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, help="a Parquet file, in place of MovieLens-100K")
    parser.add_argument("--set", action="append", default=[], help="a field of `best`: epochs=8")
    parser.add_argument("--out", type=Path, default=Path("build/trials"))
    args = parser.parse_args(arguments)
    overrides = {"width": "64"} | dict(each.split("=", 1) for each in args.set)
    args.out.mkdir(parents=True, exist_ok=True)
    ratings = movielens_100k(args.out.parent / "movielens-100k.duckdb")
    data = Data(ratings, args.data, overrides)
    name = args.data.stem if args.data else ratings.stem
    of_all = {"trial": args.trial, "data": name, "overrides": overrides}
    results = args.out / f"{args.trial}.jsonl"
    for seed in map(int, args.seeds.split(",")):
        if not any(row["seed"] == seed for row in _done(results, of_all)):
            row = {**of_all, "seed": seed, "told": TRIALS[args.trial](data, seed)}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(table(_done(results, of_all)))


def _done(results: Path, of_all: dict[str, Any]) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    rows = map(json.loads, results.read_text().splitlines())
    return [row for row in rows if all(row[name] == value for name, value in of_all.items())]


def table(rows: list[dict[str, Any]]) -> str:
    """Return means and standard deviations over seeds, in Markdown."""
    lines = [f"seeds {', '.join(str(row['seed']) for row in rows)}", "", "| | | mean | deviation |"]
    lines.append("|---|---|---|---|")
    for name, metrics in rows[0]["told"].items():
        for metric in metrics:
            values = [row["told"][name][metric] for row in rows]
            spread = f"{stdev(values):.4f}" if len(values) > 1 else ""
            lines.append(f"| {name} | {metric} | {fmean(values):.4f} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
