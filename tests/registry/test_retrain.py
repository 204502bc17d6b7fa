"""Training runs on a lake: what is learnt, what the gate decides, what a second run does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import ConfigurationError, GateError, LakeError
from recsys.evaluation.calibration import Calibration
from recsys.evaluation.splits import HeldOut
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.registry import comparison, promote, retrain
from recsys.registry.comparison import Judges
from recsys.registry.models import ModelRow, find_champion, find_model, load_model, model_rows
from recsys.registry.promote import register_model
from recsys.registry.promotions import promotions
from recsys.registry.retrain import train
from recsys.registry.train_result import TrainResult
from recsys.settings import Gate, Recommending, Settings, Training
from tests import lakes
from tests.worlds import SuccessorWorld, successor_world

DAY = datetime.now(UTC).date()  # its lists come from the champion of now
SMALL = {"width": 32, "heads": 2, "blocks": 1, "max_length": 12, "batch_size": 256}


def known_world(lake: Lake, prefix: str = "item ") -> SuccessorWorld:
    """A lake in which every item has one true successor; ids are text."""
    world = successor_world()
    flat_rows, flat_items = world.histories.interactions()
    histories: dict[Any, list[Any]] = {f"u{user}": [] for user in range(len(world.histories))}
    for row, item in zip(flat_rows.tolist(), flat_items.tolist(), strict=True):
        histories[f"u{row}"].append(f"{prefix}{item}")
    lakes.fill(lake, histories)
    return world


def training(epochs: int, **changes: Any) -> Training:
    """Without the second training of what passes the gate, but for the tests that are about it."""
    return Training(epochs=epochs, overrides=SMALL, **{"refit": False, **changes})


@pytest.fixture(scope="module")
def _shop_with_champion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """The lake of a known world and the champion that has learnt it, made once."""
    root = tmp_path_factory.mktemp("shop") / "lake"
    settings = Settings(lake=str(root), memory_limit="1GB", device="cpu")
    known_world(Lake.from_settings(settings))
    return root, train(Lake.from_settings(settings), settings, training(epochs=40))


@pytest.fixture
def champion(lake: Lake, _shop_with_champion: tuple[Path, TrainResult]) -> TrainResult:
    """Fill the test's lake with a known world and a champion that has learnt it."""
    root, result = _shop_with_champion
    shutil.copytree(root, lake.root)
    return result


def lists(lake: Lake, settings: Settings) -> list[tuple[Any, ...]]:
    with open_duckdb(settings) as con:
        lake.view(con, "recommendations")
        columns = "user_id, rank, item_id, score, reason, model_id"
        return con.sql(f"select {columns} from recommendations order by user_id, rank").fetchall()


def champion_row(lake: Lake) -> ModelRow:
    row = find_champion(lake)
    assert row
    return row


def statuses(lake: Lake) -> dict[str, str]:
    return {row.model_id: row.status for row in model_rows(lake)}


@pytest.mark.slow
def test_the_rule_of_a_known_world_is_learnt_and_served(
    lake: Lake, settings: Settings, champion: TrainResult
) -> None:
    world = successor_world()
    assert (champion.status, champion.is_new) == ("champion", True)
    assert champion.test_ndcg_10 > 1.3 * champion.popularity_test_ndcg_10
    recommend(lake, settings, Recommending(k=3), run_date=DAY, run_id="r")
    first = {user: item for user, rank, item, *_ in lists(lake, settings) if rank == 1}
    true = {f"u{user}": f"item {item}" for user, item in enumerate(world.next_items().tolist())}
    assert np.mean([first[user] == item for user, item in true.items()]) >= 0.95


@pytest.mark.slow
def test_a_card_lies_beside_the_weights(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    short = settings.model_copy(update={"recommending": Recommending(k=3)})  # some lists miss
    result = train(lake, short, training(epochs=2))
    (row,) = model_rows(lake)
    folder = Path(lake.uri("weights", result.model_id))
    card = (folder / "model.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {result.model_id}\n")
    assert f"**{result.status}** when it was trained: {result.why}." in card
    figures = json.loads(row.metrics)["test"]
    assert f"| this model | test | 150 | masked | {figures['masked']['hr@5']:.4f} |" in card
    for baseline in ("popularity", "transitions", "item-knn"):
        assert f"| {baseline} | validation | 150 | unmasked |" in card
    transitions = json.loads(row.baselines)["transitions"]["test"]["masked"]
    assert transitions["ndcg@5"] > 0.6  # the successor of each item is the rule
    low, high = figures["intervals"]["masked"]["ndcg@20"]
    assert f"| {low:.4f} to {high:.4f} |" in card
    assert sum(part["users"] for part in figures["slices"] if "history" in part["name"]) == 150
    assert '"width": 32' in card
    assert "0.0% of the test items are repeats" in card
    assert (result.repeat_share, result.advice) == (0, None)
    confidence = json.loads(row.config)["confidence"]
    assert row.calibration == Calibration.from_dict(confidence)
    assert confidence["test"]["users"] == 150
    assert f"Expected calibration error {confidence['test']['error']:.4f}." in card
    measured = json.loads(row.config)["diffusion"]
    assert (measured["users"], measured["delta"], measured["steps"]) == (150, 0.001, 1)
    as_served = next(quality for quality in measured["qualities"] if quality["steps"] == 1)
    assert as_served["ndcg"] == pytest.approx(figures["masked"]["ndcg@10"], abs=2e-3)
    assert f"| 0.001 | 1 | {as_served['ndcg']:.4f} |" in card
    assert all(item.startswith("item ") for item in measured["targets"])
    assert "target_places" not in card, "points are for the report"
    card_json = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert card_json["metadata"]["metrics"]["test"] == figures


@pytest.mark.slow
def test_the_same_run_in_another_lake_gives_identical_rows(
    lake: Lake, settings: Settings, tmp_path: Any
) -> None:
    other = Settings(lake=str(tmp_path / "other"), device="cpu")
    published = []
    for home, home_settings, block in (
        (lake, settings, 4096),
        (Lake.from_settings(other), other, 7),
    ):
        known_world(home)
        train(home, home_settings, training(epochs=3))
        recommend(home, home_settings, Recommending(k=4, block=block), run_date=DAY, run_id="r")
        published.append(lists(home, home_settings))
    assert published[0] == published[1]


@pytest.mark.slow
def test_what_was_trained_before_is_not_trained_again(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=1))
    version = lake.version("models")
    again = train(lake, settings, training(epochs=1))
    assert (again.model_id, again.is_new, again.epochs) == (first.model_id, False, 1)
    assert lake.version("models") == version
    other = train(lake, settings, training(epochs=1, seed=9))
    assert other.model_id != first.model_id


@pytest.mark.slow
def test_a_worse_model_is_kept_as_rejected_and_the_champion_serves_on(
    lake: Lake, settings: Settings, champion: TrainResult
) -> None:
    worse = train(lake, settings, training(epochs=1, tolerance=0.0))
    assert worse.status == "rejected"
    assert f"(champion {champion.model_id}: " in worse.why
    assert "is below the champion" in worse.why or "is not above popularity" in worse.why
    assert champion_row(lake).model_id == champion.model_id
    assert statuses(lake) == {
        champion.model_id: "champion",
        worse.model_id: "rejected",
    }


@pytest.mark.slow
def test_a_rejected_model_is_judged_again_without_being_trained_again(
    lake: Lake, settings: Settings, champion: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = train(lake, settings, training(epochs=4))
    assert strict.status == "rejected"
    assert "tolerance 0.002" in strict.why
    row = find_model(lake, strict.model_id)
    monkeypatch.setattr(retrain, "_diffusion", None)  # it is measured once, when it is trained
    version = lake.version("models")
    again = train(lake, settings, training(epochs=4))
    assert (again.status, again.why, again.is_new) == ("rejected", strict.why, False)
    assert lake.version("models") == version
    lenient = train(lake, settings, training(epochs=4, tolerance=1.0))
    assert (lenient.model_id, lenient.status, lenient.is_new) == (
        strict.model_id,
        "champion",
        False,
    )
    assert "tolerance 1.0" in lenient.why
    promoted = find_model(lake, strict.model_id)
    assert row
    assert promoted
    assert json.loads(promoted.config)["diffusion"] == json.loads(row.config)["diffusion"]
    assert statuses(lake) == {
        champion.model_id: "retired",
        lenient.model_id: "champion",
    }


@pytest.mark.slow
def test_a_rejected_model_serves_where_the_champion_is_lost(
    lake: Lake, settings: Settings, champion: TrainResult
) -> None:
    rejected = train(lake, settings, training(epochs=4))
    assert rejected.status == "rejected"
    shutil.rmtree(lake.uri("weights", champion.model_id))
    again = train(lake, settings, training(epochs=4))
    assert (again.model_id, again.status) == (rejected.model_id, "champion")
    assert f"champion {champion.model_id} can't serve: the model has no file" in again.why


@pytest.mark.slow
def test_a_model_below_the_best_baseline_is_kept_and_popularity_serves(
    lake: Lake, settings: Settings
) -> None:
    """What most often came next is the rule of this world: a model of two epochs is below it."""
    known_world(lake)
    strict = settings.model_copy(update={"gate": Gate(allow_below_baseline=False)})
    result = train(lake, strict, training(epochs=2))
    assert result.status == "rejected"
    assert "is not above transitions, the best baseline (no champion yet; transitions: " in (
        result.why
    )
    assert result.best_baseline == "transitions"
    assert result.best_baseline_test_ndcg_10
    assert result.best_baseline_test_ndcg_10 > result.test_ndcg_10 > result.popularity_test_ndcg_10
    recommend(lake, strict, Recommending(k=3), run_date=DAY, run_id="r")
    assert {reason for *_, reason, _ in lists(lake, strict)} == {"popular"}
    allowed = train(lake, settings, training(epochs=2))
    assert (allowed.model_id, allowed.is_new) == (result.model_id, False)
    assert allowed.status == "champion"
    assert "below transitions, as the settings allow" in allowed.why


@pytest.mark.slow
def test_early_stopping_sees_no_user_of_the_gate(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_world(lake)
    watched: list[HeldOut] = []
    judges: list[Judges] = []
    make, compare = retrain.validator, retrain.compare

    def watch(held_out: HeldOut, **options: Any) -> Any:
        watched.append(held_out)
        return make(held_out, **options)

    def keep(model: Any, split: Any, asked: Judges, *arguments: Any) -> Any:
        judges.append(asked)
        return compare(model, split, asked, *arguments)

    monkeypatch.setattr(retrain, "validator", watch)
    monkeypatch.setattr(retrain, "compare", keep)
    result = train(lake, settings, training(epochs=1))
    (stopping,), (asked,) = watched, judges
    starts = set(stopping.history.starts.tolist()), set(asked.gate.history.starts.tolist())
    assert not starts[0] & starts[1]
    assert len(starts[0]) + len(starts[1]) == 150
    assert len(asked.gate) > 50
    assert f"{len(asked.gate)} users)" in result.why


@pytest.mark.slow
def test_earlier_champions_are_the_best_of_those_that_no_person_took_back(lake: Lake) -> None:
    lakes.fill(lake, {1: [7]})

    def serve(model_id: str, figure: float, trained_at: datetime) -> None:
        champion = find_champion(lake)
        row = lakes.model_row(model_id, validation_ndcg_10=figure, trained_at=trained_at)
        register_model(lake, row, champion.model_id if champion else None)

    now = datetime.now(UTC)
    # Of an earlier release, replaced a hundred days ago and never asked again.
    for model_id, status, days in (("m-old", "retired", 200), ("m-0", "champion", 100)):
        row = lakes.model_row(model_id, status, trained_at=now - timedelta(days=days))  # type: ignore[arg-type]
        lakes.write(lake, "models", [vars(replace(row, validation_ndcg_10=0.9))])
    for number in range(1, 8):
        serve(f"m-{number}", number / 100, now)
    rollback_to = promotions(lake)[-2].model_id
    assert rollback_to == "m-6"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote, "load_model", lambda *_: None)  # these models have no files
        promote.rollback(lake, why="it sold less", run_id="r")
    champion = champion_row(lake)
    assert champion.model_id == "m-6"
    asked = [row.model_id for row in comparison._earlier_champions(lake, champion)]
    assert asked == ["m-0", "m-5", "m-4", "m-3"], "m-0 served until today; m-7 was taken back"


def test_the_gate_judges_what_is_served(lake: Lake, settings: Settings) -> None:
    """Every user takes their items once more: every item to be found has been seen."""
    world = successor_world()
    rows, items = world.histories.interactions()
    histories: dict[Any, list[Any]] = {}
    for row, item in zip(rows.tolist(), items.tolist(), strict=True):
        histories.setdefault(f"u{row}", []).append(f"item {item}")
    lakes.fill(lake, {user: [*items, *items] for user, items in histories.items()})
    masked = train(lake, settings, training(epochs=2))
    assert masked.test_ndcg_10 == masked.popularity_test_ndcg_10 == 0
    assert masked.status == "rejected"
    changed = settings.model_copy(update={"recommending": Recommending(seen="include", steps=2)})
    result = train(lake, changed, training(epochs=40))
    assert result.status == "champion"
    assert result.validation_ndcg_10 > 0.5
    (row,) = (row for row in model_rows(lake) if row.model_id == result.model_id)
    assert row.validation_ndcg_10 == json.loads(row.metrics)["validation"]["unmasked"]["ndcg@10"]


def test_steps_that_no_night_could_take_are_refused_before_training(
    lake: Lake, settings: Settings
) -> None:
    known_world(lake)
    changed = settings.model_copy(update={"recommending": Recommending(steps=33)})
    with pytest.raises(ConfigurationError, match=r"steps = 33 .* 1\.\.32"):
        train(lake, changed, training(epochs=1))


@pytest.mark.slow
def test_a_model_judged_with_other_reverse_steps_is_another_model(
    lake: Lake, settings: Settings
) -> None:
    """Its figures say nothing of lists that are made with the steps of today."""
    known_world(lake)
    first = train(lake, settings, training(epochs=1))
    changed = settings.model_copy(update={"recommending": Recommending(steps=2)})
    second = train(lake, changed, training(epochs=1))
    assert second.is_new
    assert second.model_id != first.model_id


@pytest.mark.slow
def test_a_champion_of_another_run_is_not_replaced_unseen(lake: Lake, settings: Settings) -> None:
    """On S3 another run may promote a model while this one trains."""
    known_world(lake)
    first = train(lake, settings, training(epochs=1))
    with lake.write_lock():
        assert champion_row(lake).model_id == first.model_id
        other = lakes.model_row("m-other", trained_at=datetime.now(UTC))
        register_model(Lake(lake.root, lake.storage), other, first.model_id)
        mine = lakes.model_row("m-mine", trained_at=datetime.now(UTC))
        with pytest.raises(LakeError, match="made m-other the champion meanwhile") as refusal:
            register_model(lake, mine, first.model_id)
    assert refusal.value.transient
    assert statuses(lake) == {first.model_id: "retired", "m-other": "champion"}


@pytest.mark.slow
def test_a_better_model_retires_the_champion_in_one_commit(lake: Lake, settings: Settings) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=4))
    assert first.status == "champion"
    version = lake.version("models")
    second = train(lake, settings, training(epochs=40))
    assert second.status == "champion"
    assert lake.version("models") == version + 1
    assert statuses(lake) == {first.model_id: "retired", second.model_id: "champion"}


@pytest.mark.slow
def test_the_champion_is_judged_on_todays_users_whatever_items_it_knew(
    lake: Lake, settings: Settings, champion: TrainResult
) -> None:
    """Items that the champion never saw are misses for it, and nothing else changes."""
    # As many users again, on items of their own: the champion knows half of the catalogue.
    world = successor_world(seed=5)
    rows, items = world.histories.interactions()
    more: dict[Any, list[Any]] = {f"v{user}": [] for user in range(len(world.histories))}
    for row, item in zip(rows.tolist(), items.tolist(), strict=True):
        more[f"v{row}"].append(f"new {item}")
    lakes.fill(lake, more, batch_id="more", day=1)
    result = train(lake, settings, training(epochs=40, seed=1))
    row = find_model(lake, result.model_id)
    assert row
    before = json.loads(row.baselines)["champion"]
    assert before["model_id"] == champion.model_id
    alone = champion.validation_ndcg_10
    assert before["validation"]["masked"]["ndcg@10"] == pytest.approx(alone / 2, rel=0.02)
    assert before["validation"]["users"] == 300
    assert result.status == "champion"


def test_too_little_data_is_said_before_anything_is_trained(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [1], 2: [2, 3]})
    with pytest.raises(GateError, match="none of 2 users has three interactions"):
        train(lake, settings, training(epochs=1))
    assert model_rows(lake) == []


def test_a_preset_or_a_field_that_does_not_exist_is_named(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [1, 2, 3]})
    with pytest.raises(ConfigurationError, match=r"diffurecsys"):
        train(lake, settings, Training(preset="none-such"))
    with pytest.raises(ConfigurationError, match="droput"):
        train(lake, settings, Training(overrides={"droput": 0.1}))


@pytest.mark.slow
def test_a_champion_whose_files_are_gone_is_named_and_can_be_replaced(
    lake: Lake, settings: Settings
) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=20))
    row = find_model(lake, first.model_id)
    assert row
    assert load_model(lake, row).items.ids.to_pylist()[0].startswith("item ")
    weights = Path(lake.uri("weights", first.model_id)) / "model.safetensors"
    weights.unlink()
    with pytest.raises(LakeError, match=r"model\.safetensors; train again"):
        recommend(lake, settings, Recommending(k=3), run_date=DAY, run_id="r")
    other = train(lake, settings, training(epochs=20, seed=1))
    assert (other.status, other.is_new) == ("champion", True)
    again = train(lake, settings, training(epochs=20))
    assert (again.model_id, again.is_new) == (first.model_id, True), "its files were made again"
    assert weights.exists()


@pytest.mark.slow
def test_a_champion_of_other_ids_is_named_and_can_be_replaced(
    lake: Lake, settings: Settings
) -> None:
    known_world(lake)
    first = train(lake, settings, training(epochs=20))
    lake.delete("interactions", "user_id is not null")
    lake.retype(pa.int64(), pa.int64())
    world = successor_world()
    ends = zip(world.histories.starts, world.histories.ends, strict=True)
    lakes.fill(
        lake, {user: world.histories.items[a:b].tolist() for user, (a, b) in enumerate(ends)}
    )
    with pytest.raises(LakeError, match=f"{first.model_id}: it knows items by string ids"):
        recommend(lake, settings, Recommending(k=3), run_date=DAY, run_id="r")
    other = train(lake, settings, training(epochs=20))
    assert (other.status, other.is_new) == ("champion", True)
    assert recommend(lake, settings, Recommending(k=3), run_date=DAY, run_id="r").users
