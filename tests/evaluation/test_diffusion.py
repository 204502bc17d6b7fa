"""What a model's diffusion does, against models whose answer is known."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.evaluation import diffusion
from recsys.evaluation.diffusion import DiffusionReport
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.splits import HeldOut, leave_one_out
from recsys.histories import ItemIds
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from tests.worlds import pack, small, successor_world

CPU = Runtime(device="cpu", precision="fp32")


def untrained(preset: str, n_items: int, **overrides: object) -> Recommender:
    overrides = {"max_length": 8, "blocks": 1, "init_std": 0.5, "delta": 0.5, **overrides}
    config = small(preset, **overrides).model
    return Recommender(config, n_items, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("preset", ["best", "diffurecsys", "released"])
def test_each_quality_is_what_an_evaluation_gives(preset: str) -> None:
    world = successor_world(users=40)
    held_out = leave_one_out(world.histories).test
    model = untrained(preset, world.n_items, timesteps=3)
    scorer = ModelScorer(model, steps=2, seed=5, runtime=CPU)
    report = DiffusionReport.of(scorer, held_out, "masked")
    assert report
    assert (report.users, report.delta, report.steps) == (40, 0.5, 2)
    grid = [(delta, steps) for delta in (0.5, 0.1, 1.0) for steps in (1, 2, 3)]
    assert [(row.delta, row.steps) for row in report.qualities] == [(0, 0), *grid]
    for row in report.qualities:
        other = Recommender(replace(model.config, delta=row.delta), world.n_items)
        other.load_state_dict(model.state_dict())
        expected = evaluate(replace(scorer, model=other, steps=row.steps or 1), held_out)
        assert row.ndcg == pytest.approx(expected.masked["ndcg@10"], abs=1e-6)
        assert row.gain == pytest.approx(row.ndcg - report.qualities[0].ndcg)
    assert len({round(row.ndcg, 6) for row in report.qualities}) > 3, "the noise does something"
    assert report == DiffusionReport.of(scorer, held_out, "masked")


def test_the_history_alone_is_the_network_without_noise() -> None:
    """With a weight of 0 no draw and no number of steps changes anything."""
    world = successor_world(users=20)
    model = untrained("best", world.n_items, delta=0, timesteps=2)
    scorer = ModelScorer(model, seed=1, runtime=CPU)
    report = DiffusionReport.of(scorer, leave_one_out(world.histories).test, "masked")
    assert report
    own = [row for row in report.qualities if row.delta == 0]
    assert [row.steps for row in own] == [0, 1, 2]
    assert {(row.ndcg, row.gain, row.gain_error) for row in own} == {(own[0].ndcg, 0.0, 0.0)}
    draws = report.draws[0]
    assert (draws.silhouette, draws.overlap) == (pytest.approx(1.0), 1.0)
    assert all(place == places[0] for places in draws.places for place in places)


def test_draws_are_those_of_the_lists_that_are_served() -> None:
    world = successor_world(users=30)
    held_out = leave_one_out(world.histories).test
    model = untrained("best", world.n_items)
    scorer = ModelScorer(model, steps=2, seed=3, runtime=CPU)
    report = DiffusionReport.of(scorer, held_out, "masked")
    assert report
    assert len(set(report.targets)) == 6
    drawn_at = np.random.default_rng(0).permutation(30)
    first = drawn_at[held_out.target[drawn_at] == report.targets[0]][:1]
    hits = [
        (held_out.target[first] == lists.items[0]).any()
        for seed in range(3, 3 + diffusion._DRAWS)
        for lists in top_k(
            model,
            held_out.history[first],
            10,
            steps=2,
            seed=seed,
            exclude_seen=False,
            runtime=CPU,
        )
    ]
    assert report.draws[0].hits[0] == np.mean(hits)
    ids = ItemIds(pa.array([f"item {item}" for item in range(1, 31)]))
    stored = report.to_dict(ids)
    assert stored["targets"] == [f"item {item}" for item in report.targets]
    assert stored["qualities"][0] == asdict(report.qualities[0])


def test_a_network_without_diffusion_has_no_report() -> None:
    held_out = HeldOut(pack([[1, 2]]), np.array([3], dtype=np.int32))
    model = untrained("sasrec", 3)
    assert DiffusionReport.of(ModelScorer(model, runtime=CPU), held_out, "masked") is None


def test_one_target_makes_no_figure() -> None:
    held_out = HeldOut(pack([[1, 2], [2], []]), np.array([3, 3, 1], dtype=np.int32))
    model = untrained("best", 3, timesteps=1)
    report = DiffusionReport.of(ModelScorer(model, steps=1, runtime=CPU), held_out, "masked")
    assert report
    assert (report.users, report.targets, report.draws) == (3, [], [])


def test_many_users_are_represented_by_a_sample_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "_MOST_USERS", 10)
    world = successor_world(users=30)
    scorer = ModelScorer(untrained("best", world.n_items, timesteps=1), steps=1, runtime=CPU)
    report = DiffusionReport.of(scorer, leave_one_out(world.histories).test, "masked")
    assert report
    assert report.users == 10


def test_silhouette_overlap_and_projection_by_hand() -> None:
    line = torch.tensor([[[0.0], [1.0]], [[4.0], [5.0]]])  # two clusters of two
    # 0: 1 to its own, 4.5 to the other; 1: 1 and 3.5; and mirrored.
    assert diffusion._silhouette(line) == pytest.approx(((1 - 1 / 4.5) + (1 - 1 / 3.5)) / 2)
    assert diffusion._silhouette(torch.zeros(2, 3, 4)) == 0
    assert diffusion._overlap(np.array([[1, 2], [2, 3], [1, 2]])) == pytest.approx(4 / 6)
    flat = torch.tensor([[3.0, 0, 1], [-3, 0, 1], [0, 1, 1], [0, -1, 1]])
    (places,), shown = diffusion._in_two_dimensions([flat])
    assert places == [[3, 0], [-3, 0], [0, 1], [0, -1]]
    assert shown == pytest.approx(1)
