from __future__ import annotations

from dataclasses import fields, replace

import pytest

from recsys.errors import ConfigurationError
from recsys.model.config import RESEARCH_FIELDS, ModelConfig, TrainingConfig
from recsys.model.presets import PRESETS, fit_to_data, resolve
from recsys.settings import Training


def test_the_systems_of_the_paper_have_their_published_shape() -> None:
    diffurec, v1, v2 = (PRESETS[name] for name in ("diffurec", "diffurecsys-v1", "diffurecsys"))
    for preset in (diffurec, v1, v2):
        model = preset.model
        assert (model.objective, model.width, model.heads, model.blocks) == ("prefix", 128, 4, 4)
        assert (model.timesteps, model.steps, model.delta) == (32, 32, 0.001)
        assert (model.dropout, model.embedding_dropout) == (0.1, 0.3)
    assert (diffurec.model.approximator, diffurec.model.max_length) == ("additive", 50)
    assert (v1.model.approximator, v1.model.max_length) == ("cross-attention", 100)
    assert (v1.model.offset, v2.model.offset) == ("none", "mean")
    assert (v1.training.batch_size, v1.training.weight_decay, v1.training.epochs) == (
        1024,
        1e-4,
        41,
    )


@pytest.mark.parametrize("name", ["diffurec", "diffurecsys-v1", "diffurecsys", "released"])
def test_steps_of_the_published_size_fit_into_the_tokens_of_one(name: str) -> None:
    preset = PRESETS[name]
    training = preset.training
    assert training.batch_size * preset.model.max_length <= training.batch_tokens


def test_the_released_system_has_its_defects() -> None:
    released, v1 = PRESETS["released"], PRESETS["diffurecsys-v1"]
    defects = {"approximator": "headwise", "padding": "attended", "blocks": 1}
    assert released.model == replace(v1.model, **defects, width=256, activation="gelu")
    assert released.training == replace(v1.training, batch_size=512)


def test_sasrec_is_best_without_diffusion_and_repeat_bias() -> None:
    sasrec, best = PRESETS["sasrec"], PRESETS["best"]
    assert sasrec.model == replace(best.model, approximator="none", repeat_bias="none")
    assert (sasrec.training, sasrec.auto_fields) == (best.training, best.auto_fields)


def test_overrides_take_strings_from_a_command_line() -> None:
    preset = resolve("best", {"blocks": "3", "dropout": "0.25", "epochs": 2, "offset": "iid"})
    assert (preset.model.blocks, preset.model.dropout, preset.model.offset) == (3, 0.25, "iid")
    assert preset.training.epochs == 2
    assert isinstance(preset.model.blocks, int)


def test_padding_is_not_scored_among_sampled_items() -> None:
    with pytest.raises(ConfigurationError, match="negatives = 0"):
        resolve("released", {"negatives": 100})


def test_best_is_what_is_trained_unless_another_is_asked_for() -> None:
    assert Training().preset == "best"


def test_dropout_is_read_off_the_data_unless_it_is_given() -> None:
    for targets_per_item, share in ((0.1, 0.5), (10, 0.5), (50, 0.35), (250, 0.2), (1e6, 0.2)):
        model = fit_to_data(resolve("best", {}), targets_per_item).model
        assert model.dropout == model.embedding_dropout == share
    model = fit_to_data(resolve("best", {"dropout": 0.1}), 10).model
    assert (model.dropout, model.embedding_dropout) == (0.1, 0.5)
    assert fit_to_data(PRESETS["diffurec"], 10) == PRESETS["diffurec"]


def test_research_fields_are_those_that_neither_presets_nor_trials_change() -> None:
    unchanged = {
        field.name
        for part, kind in (("model", ModelConfig), ("training", TrainingConfig))
        for field in fields(kind)
        if all(
            getattr(getattr(preset, part), field.name) == field.default
            for preset in PRESETS.values()
        )
    }
    by_data = {"dropout", "embedding_dropout"}  # of `best`, see fit_to_data
    by_user = {"learning_rate", "negatives"}  # the first to try; for large catalogues
    assert unchanged - by_data - by_user == RESEARCH_FIELDS


def test_fewer_timesteps_bring_no_more_reverse_steps() -> None:
    assert resolve("diffurec", {"timesteps": 8}).model.steps == 8


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("nope", {}, "diffurecsys-v1"),
        ("best", {"bloks": 2}, "blocks"),
        ("best", {"blocks": "two"}, "blocks = 'two'"),
        ("best", {"blocks": "2.5"}, "blocks = '2.5'"),
        ("best", {"blocks": 2.5}, "blocks = 2.5"),
        ("best", {"blocks": True}, "blocks = True"),
        ("best", {"dropout": None}, "dropout = None"),
        ("best", {"offset": "some"}, "none, mean, iid, shared"),
        ("best", {"learning_rate": "nan"}, "learning_rate"),
        ("best", {"epochs": 0}, "epochs = 0"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    name: str, overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(name, overrides)
