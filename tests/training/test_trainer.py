from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from recsys.errors import ConfigurationError, DamagedError, GateError
from recsys.evaluation.protocol import evaluate, validator
from recsys.evaluation.splits import leave_one_out
from recsys.model.presets import Preset, fit_to_data
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.training.state import TrainingState, load_state, save_state
from recsys.training.trainer import FitResult, fit
from tests.worlds import pack, small, successor_world

CPU = Runtime(device="cpu")


def train(preset: str | Preset = "best", **changes: object) -> FitResult:
    world = successor_world(users=60)
    chosen = small(preset, max_length=12) if isinstance(preset, str) else preset
    fixed = {"seed": 0, "runtime": CPU, "validate": None, "epochs": 2}
    return fit(world.histories, world.n_items, chosen, **{**fixed, **changes})


def test_what_is_read_off_the_data_is_what_is_trained() -> None:
    world = successor_world(users=60)
    targets = int((world.histories.lengths - 1).sum())
    expected = fit_to_data(small("best"), targets / world.n_items).model.dropout
    assert 0.2 < expected < 0.5
    model = train("best", epochs=1).model
    assert model.config.dropout == model.config.embedding_dropout == expected


@pytest.mark.slow
def test_sampled_negatives_find_the_rule_too() -> None:
    world = successor_world(users=150)
    chosen = small("best", max_length=12, learning_rate=0.01, negatives=12)
    fitted = fit(
        world.histories, world.n_items, chosen, seed=0, runtime=CPU, validate=None, epochs=16
    )
    (lists,) = top_k(fitted.model, world.histories, 5, runtime=CPU)
    assert (lists.items[:, 0] == world.next_items()).mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["causal", "prefix"])
def test_whether_anything_comes_again_is_learnt(objective: str) -> None:
    generator = np.random.default_rng(0)
    never = [generator.permutation(100)[:20] + 1 for _ in range(60)]
    often = [
        np.concatenate([history[:10], generator.permutation(history[:10])]) for history in never
    ]
    chosen = small("best", objective=objective, max_length=20, average=0, learning_rate=0.02)
    biases = []
    for histories in (never, often):
        fitted = fit(pack(histories), 100, chosen, seed=0, runtime=CPU, validate=None, epochs=8)
        assert fitted.model.repeat_bias is not None
        biases.append(fitted.model.repeat_bias.item())
    # Uniform otherwise: half of the targets fall on the few items that were had.
    assert biases[0] < -2
    assert biases[1] > 0.5


def test_early_stopping_keeps_the_best_weights() -> None:
    metrics = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    judged = []

    def validate(model: Recommender) -> float:
        judged.append(model.items.weight.detach().clone())
        return next(metrics)

    fitted = fit(
        successor_world(users=60).histories,
        30,
        small("best", patience=3),
        seed=0,
        runtime=CPU,
        validate=validate,
    )
    assert [entry.validation for entry in fitted.log] == [0.1, 0.3, 0.2, 0.3, 0.25]
    assert fitted.best_epoch == 2
    assert torch.equal(fitted.model.items.weight, judged[1])
    assert not torch.equal(judged[1], judged[4])


@pytest.mark.parametrize(("average", "window"), [(0, 1), (3, 3), (1000, 5)])
def test_the_average_of_the_weights_is_what_is_judged_and_kept(average: int, window: int) -> None:
    steps: list[torch.Tensor] = []
    judged: list[torch.Tensor] = []

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = optimizer.param_groups[0]["params"]
        items = next(parameter for parameter in parameters if parameter.shape == (31, 32))
        steps.append(items.detach().clone())

    def validate(model: Recommender) -> float:
        judged.append(model.items.weight.detach().clone())
        return -float(len(judged))  # the first epoch is the best

    chosen = small("best", max_length=12, batch_size=96, average=average)
    hook = register_optimizer_step_post_hook(stepped)
    try:
        fitted = train(preset=chosen, validate=validate, epochs=3)
    finally:
        hook.remove()
    per_epoch = len(steps) // 3
    assert per_epoch == 5  # the longest look back that there is
    expected = steps[0]
    for nth, weights in enumerate(steps):
        expected = expected + (weights - expected) / (window if nth else 1)
        if (nth + 1) % per_epoch == 0:
            assert torch.allclose(judged[nth // per_epoch], expected, atol=1e-6)
    assert torch.equal(fitted.model.items.weight, judged[0])


def test_validation_comes_every_so_often_and_at_the_end() -> None:
    models = []
    fitted = fit(
        successor_world(users=20).histories,
        30,
        small("best", validate_every=3),
        seed=0,
        runtime=CPU,
        validate=lambda model: float(models.append(model) or len(models)),
        epochs=7,
    )
    validations = [entry.validation for entry in fitted.log]
    assert validations == [None, None, 1, None, None, 2, 3]


def test_the_learning_rate_follows_its_schedule() -> None:
    world = successor_world(users=20)

    def rates(metrics: list[float], **overrides: object) -> list[float]:
        remaining = iter(metrics)
        fitted = fit(
            world.histories,
            30,
            small("best", learning_rate=1.0e-3, decay_factor=0.5, **overrides),
            seed=0,
            runtime=CPU,
            validate=lambda _: next(remaining),
            epochs=len(metrics),
        )
        return [entry.learning_rate * 1e3 for entry in fitted.log]

    rising = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rates(rising, decay="step", decay_every=2) == [1, 1, 0.5, 0.5, 0.25]
    assert rates(rising, decay="constant") == [1] * 5
    stuck = [0.1, 0.2, 0.1, 0.1, 0.3, 0.1]
    halved = rates(stuck, decay="plateau", decay_every=2, patience=6)
    assert halved == [1, 1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize("average", [0, 4])
def test_a_plateau_goes_on_from_the_best_weights(average: int) -> None:
    judged: list[torch.Tensor] = []

    def validate(model: Recommender) -> float:
        judged.append(model.items.weight.detach().clone())
        return -float(len(judged))  # the first epoch is the best

    chosen = {"decay": "plateau", "decay_every": 1, "decay_factor": 1e-9, "average": average}
    train(small("best", max_length=12, batch_size=96, **chosen), validate=validate, epochs=3)
    assert not torch.allclose(judged[1], judged[0], atol=1e-4)
    assert torch.allclose(judged[2], judged[0], atol=1e-6)  # at a rate of next to nothing


def first_step(**overrides: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The items before training and after one gradient step of it."""
    chosen = small("best", max_length=12, batch_size=10**6, average=0, **overrides)
    before = Recommender(chosen.model, 30, torch.Generator().manual_seed(0)).items.weight
    after = train(chosen, epochs=1).model.items.weight
    return before[1:].detach(), after[1:].detach()


def test_the_learning_rate_rises_over_the_warmup() -> None:
    before, after = first_step(warmup=10)
    _, slower = first_step(learning_rate=1e-4)
    assert torch.equal(after, slower)
    assert not torch.equal(after, before)


def test_a_clipped_gradient_moves_nothing_far() -> None:
    before, after = first_step()
    _, clipped = first_step(clip_norm=1e-12)  # far below the epsilon of Adam
    assert (clipped - before).abs().max() < (after - before).abs().max() / 100


def test_weight_decay_pulls_to_zero() -> None:
    before, after = first_step(weight_decay=99.0)
    _, without = first_step()
    shrunk, unchanged = (
        (before.abs() - weights.abs()).mean().item() for weights in (after, without)
    )
    assert shrunk == pytest.approx(1e-3, rel=0.2)  # all but every weight by the learning rate
    assert abs(unchanged) < 2e-4


def test_the_log_tells_of_every_epoch() -> None:
    calls: list[tuple[str, int, int, str]] = []
    fitted = train(epochs=3, progress=lambda *call: calls.append(call))
    assert [entry.epoch for entry in fitted.log] == [1, 2, 3]
    assert fitted.best_epoch == 3
    assert fitted.log[2].loss < fitted.log[0].loss
    assert all(entry.targets_per_second > 0 for entry in fitted.log)
    stage, done, total, note = calls[-1]
    assert (stage, done) == ("training", total)
    assert note.startswith("epoch 3, loss")


def test_training_that_diverges_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Recommender.loss
    monkeypatch.setattr(Recommender, "loss", lambda *inputs: loss(*inputs) * float("nan"))
    with pytest.raises(GateError, match="diverged in epoch 1"):
        train()


def test_nothing_to_train_on_is_refused() -> None:
    for histories in (pack([]), pack([[1], [2], []])):
        with pytest.raises(GateError, match="two items"):
            fit(histories, 3, small("best"), seed=0, runtime=CPU, validate=None)
    with pytest.raises(ConfigurationError, match="epochs = 0"):
        train(epochs=0)


def test_one_item_in_the_catalogue_trains() -> None:
    fitted = fit(
        pack([[1, 1, 1], [1]]), 1, small("best"), seed=0, runtime=CPU, validate=None, epochs=1
    )
    (lists,) = top_k(fitted.model, pack([[1]]), 1, exclude_seen=False, runtime=CPU)
    assert lists.items.tolist() == [[1]]


@pytest.mark.slow
def test_validation_picks_up_what_training_learns() -> None:
    world = successor_world(users=120)
    split = leave_one_out(world.histories)
    fitted = fit(
        split.train,
        world.n_items,
        small("best", learning_rate=0.01, patience=40),
        seed=0,
        runtime=CPU,
        validate=validator(split.validation, seed=0, runtime=CPU),
        epochs=20,
    )
    judged = evaluate(ModelScorer(fitted.model, runtime=CPU), split.test)
    assert judged.masked["hr@5"] >= 0.95
    assert judged.users == 120


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("best", {"decay": "plateau", "decay_every": 1, "negatives": 12, "warmup": 9}),
        ("best", {"average": 0, "decay": "step", "decay_every": 2}),
        ("diffurecsys", {"validate_every": 1, "steps": 2}),
    ],
)
def test_a_training_that_is_resumed_gives_what_it_would_have_given(
    preset: str, changes: dict[str, object], tmp_path: Path
) -> None:
    """After an epoch, and in the middle of one; states of other trainings are not taken."""
    world = successor_world(users=40)
    split = leave_one_out(world.histories)

    places = ("2 0", "2 3")

    def save(state: TrainingState) -> None:
        place = f"{state.epoch} {state.epoch_steps}"
        if place in places:  # each is a file that is synced
            save_state(state, tmp_path / place, "key")

    fixed = {
        "preset": small(preset, max_length=12, batch_size=32, learning_rate=0.01, **changes),
        "validate": validator(split.validation, seed=0, runtime=CPU),
        "epochs": 4,
    }
    whole = train(**fixed, after_step=save)
    for place in places:
        saved = load_state(tmp_path / place, "key")
        assert saved
        assert [saved["epoch"], saved["epoch_steps"]] == [*map(int, place.split())]
        resumed = train(**fixed, resume=saved)
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name]), name
        assert whole.best_epoch == resumed.best_epoch
        one, other = (
            [replace(entry, seconds=0, targets_per_second=0) for entry in fitted.log]
            for fitted in (whole, resumed)
        )
        assert one == other
    assert load_state(tmp_path / place, "another key") is None
    (tmp_path / "torn").write_bytes((tmp_path / place).read_bytes()[:-100])
    with pytest.raises(DamagedError, match="torn is not the state of a training"):
        load_state(tmp_path / "torn", "key")
