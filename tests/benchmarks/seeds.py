"""Seeds of one recipe, trained and judged in turn: `python -m tests.benchmarks.seeds [ROUNDS]`.

An A/A trial of the gate on MovieLens-100K, 30 rounds by default. All models are the same recipe on
the same data, so that no one is better but by the luck of its seed, and the gate lets nearly all of
them serve. If its tolerance let quality drift, the model that serves at the end would be below the
first one, on test items that no gate has seen, by more than seeds differ. They are small (width 32,
four epochs), so that a round takes seconds; a model this small is not above item-kNN.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.benchmark.datasets import movielens_100k
from recsys.evaluation.metrics import ndcg, paired_interval
from recsys.evaluation.protocol import ranks
from recsys.ingest.batch import ingest
from recsys.lake.tables import Lake
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.models import find_model, load_model
from recsys.registry.recipe import resolve_recipe
from recsys.registry.retrain import train
from recsys.registry.training_data import load_training_data
from recsys.settings import Gate, Settings, Source, Training

_COLUMNS = {"user_id": "user_id", "item_id": "movie_id", "timestamp": "rated_at"}


@dataclass(frozen=True)
class Round:
    """What came of one training.

    Attributes:
        model_id: the model that it made.
        test: the model's test NDCG@10.
        serves: the model that serves after it.
        served: that one's test NDCG@10.
    """

    model_id: str
    test: float
    serves: str
    served: float


def rounds(lake: Lake, settings: Settings, count: int) -> Iterator[Round]:
    """Train ``count`` seeds one after the other; the gate decides who serves."""
    champion: tuple[str, float] | None = None
    for seed in range(count):
        training = settings.training.with_fields({"seed": seed})
        result = train(lake, settings, training)
        row = find_model(lake, result.model_id)
        assert row is not None
        if row.status == "champion" or champion is None:
            champion = row.model_id, row.test_ndcg_10
        print(f"seed {seed}: {row.status}, test {row.test_ndcg_10:.4f}; {row.why}", flush=True)
        yield Round(row.model_id, row.test_ndcg_10, *champion)


def scores_on_test(lake: Lake, settings: Settings, model_id: str) -> NDArray[np.float64]:
    """Return a model's (U,) test NDCG@10 of each user, as lists are served."""
    data = load_training_data(
        lake, settings, resolve_recipe(lake, settings, settings.training), None
    )
    row = find_model(lake, model_id)
    assert row is not None
    model = load_model(lake, row, settings.device)
    assert model.items.ids.equals(data.packed.items.ids)
    scorer = ModelScorer(model.recommender, runtime=Runtime(settings.device, settings.threads))
    return ndcg(ranks(scorer, data.split.test)[data.judges.protocol], 10)


def main(arguments: list[str] | None = None) -> list[Round]:
    """Run the trial and print what served at its start and at its end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=30)
    parser.add_argument("--data", type=Path, default=Path("build/movielens-100k.duckdb"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--width", type=int, default=32)
    args = parser.parse_args(arguments)
    args.data.parent.mkdir(parents=True, exist_ok=True)
    ratings = movielens_100k(args.data)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            lake=f"{folder}/lake",
            source=Source(uri=str(ratings), table="ratings", columns=_COLUMNS),
            training=Training(epochs=args.epochs, overrides={"width": args.width, "blocks": 1}),
            gate=Gate(allow_below_baseline=True),
            device="cpu",
            threads=1,
        )
        lake = Lake.from_settings(settings)
        ingest(lake, settings)
        done = list(rounds(lake, settings, args.rounds))
        first, last = (scores_on_test(lake, settings, one.serves) for one in (done[0], done[-1]))
    print(summary(done, first, last))
    return done


def summary(done: list[Round], first: NDArray[np.float64], last: NDArray[np.float64]) -> str:
    """Say what served at the start and at the end, and what any seed has."""
    tests = np.array([one.test for one in done])
    served = np.array([one.served for one in done])
    promotions = sum(one.serves == one.model_id for one in done)
    low, high = paired_interval(last, first)
    error = (last - first).std(ddof=1) / np.sqrt(len(first))
    return (
        f"{len(done)} trainings, {promotions} of them served; "
        f"test NDCG@10 of {len(first):,} users\n"
        f"all models: {tests.mean():.4f}, standard deviation {tests.std(ddof=1):.4f}\n"
        f"served at the start {first.mean():.4f}, at the end {last.mean():.4f}: difference "
        f"{last.mean() - first.mean():+.4f}, standard error {error:.4f} (paired by user), "
        f"95 % {low:+.4f} to {high:+.4f}\n"
        f"served, mean of the first third {served[: len(done) // 3].mean():.4f}, of the last "
        f"{served[-(len(done) // 3) :].mean():.4f}"
    )


if __name__ == "__main__":
    main()
