"""When a night trains: the policy as a table of cases, and what it reads from a lake."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.lake.tables import Lake
from recsys.registry.models import model_rows
from recsys.registry.policy import Standing, Train, decide, read_standing
from recsys.registry.promote import register_model
from recsys.registry.retrain import train
from recsys.settings import Policy, Settings, Training
from tests import lakes
from tests.registry.test_retrain import SMALL, known_world

NOW = datetime(2026, 6, 30, 2, tzinfo=UTC)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


# The champion was trained three days ago, on 1,000 interactions; 20 came since; it knows all items.
YOUNG = Standing("m-1", days_ago(3), "", "m-1", days_ago(3), 1000, 1020, 0)
# It was trained ten days ago; of yesterday's training the gate rejected the model.
REJECTED = replace(YOUNG, champion_at=days_ago(10), last_id="m-2", last_at=days_ago(1))


@pytest.mark.parametrize(
    ("asked", "standing", "trains", "why"),
    [
        ("policy", Standing(), True, "there is no champion"),
        ("never", Standing(), False, "train = never"),
        ("never", replace(YOUNG, interactions=9000), False, "the champion is 3 days old"),
        ("always", YOUNG, True, "train = always; the champion is 3 days old"),
        ("policy", YOUNG, False, "grew by 2.0%, and the champion does not know the items of 0.0%"),
        ("policy", replace(YOUNG, problem="no file"), True, "can't serve: no file"),
        ("policy", replace(YOUNG, last_at=days_ago(7)), False, "grew by 2.0%"),
        ("policy", replace(YOUNG, last_at=days_ago(7.01)), True, "is over 7 days ago"),
        ("policy", replace(YOUNG, interactions=1099), False, "grew by 9.9%"),
        ("policy", replace(YOUNG, interactions=1100), True, "grew by 10.0%"),
        ("policy", replace(YOUNG, unknown=50), False, "the items of 4.9% of them"),
        ("policy", replace(YOUNG, unknown=51), True, "the items of 5.0% of the interactions"),
        # Nothing is new: a training would give the model that stands, or was rejected, already.
        ("policy", replace(YOUNG, last_at=days_ago(99), interactions=1000), False, "nothing new"),
        ("policy", replace(REJECTED, interactions=1000), False, "nothing new came since m-2"),
        # What was rejected is not tried again every night.
        ("policy", REJECTED, False, "(m-2, which does not serve) interactions grew by 2.0%"),
        ("policy", replace(REJECTED, unknown=900), False, "(m-2, which does not serve)"),
        ("policy", replace(REJECTED, last_at=days_ago(8)), True, "over 7 days ago"),
        ("policy", replace(REJECTED, interactions=1100), True, "grew by 10.0%"),
        ("policy", replace(REJECTED, champion_id=None, champion_at=None), False, "no champion"),
        ("policy", replace(REJECTED, champion_id=None, interactions=1100), True, "by 10.0%"),
        # Erased rows are no news that shrinking could hide.
        ("policy", replace(YOUNG, last_at=days_ago(8), interactions=900), True, "over 7 days"),
        # A clock that went back, or the night of a day in the past.
        ("policy", replace(YOUNG, last_at=days_ago(-1), champion_at=days_ago(-1)), False, "is 0"),
    ],
)
def test_a_night_trains(asked: Train, standing: Standing, trains: bool, why: str) -> None:
    decision = decide(asked, Policy(), standing, NOW)
    assert decision.train is trains, decision.why
    assert why in decision.why
    assert decision.champion == standing.champion_id
    assert decision.serves == (standing.champion_id is not None and not standing.problem)


def test_the_limits_are_settings(tmp_path: Path) -> None:
    """As a person writes them."""
    (tmp_path / "recsys.toml").write_text(
        '[training.policy]\nmax_age = "2d"\nnew_data_share = 0.02\nunknown_share = 1\n'
    )
    policy = Settings().training.policy
    assert policy == Policy(max_age=timedelta(days=2), new_data_share=0.02, unknown_share=1)
    assert "over 2 days ago" in decide("policy", policy, YOUNG, NOW).why


@pytest.mark.slow
def test_what_the_policy_reads_from_a_lake(lake: Lake, settings: Settings) -> None:
    def decided(now: datetime, **policy: Any) -> str:
        standing = read_standing(lake, settings, "policy")
        return decide("policy", Policy(**policy), standing, now).why

    known_world(lake)
    assert decided(NOW) == "there is no champion"
    lakes.write(lake, "models", [asdict(lakes.model_row("m", "rejected", trained_at=NOW))])
    assert "(m, which does not serve) interactions grew by" in decided(NOW, new_data_share=1e9)
    lake.delete("models", "model_id = 'm'")
    trained = train(lake, settings, Training(epochs=1, overrides=SMALL, tolerance=1), at=NOW)
    (row,) = model_rows(lake)
    assert row.trained_at == NOW
    register_model(lake, replace(row, status="champion"), None)
    tomorrow = NOW + timedelta(days=1)
    assert decided(tomorrow) == (
        f"nothing new came since {trained.model_id} was trained; the champion is 1 days old"
    )
    # A tenth more, half of it with an item that the champion can't know.
    count = row.interactions
    more = {"new user": ["new item"] * (count // 20), "u1": ["item 1"] * (count // 20)}
    lakes.fill(lake, more, batch_id="more", day=1)
    share = (count // 20) / (count + 2 * (count // 20))
    assert f"the items of {share:.1%} of them" in decided(tomorrow, new_data_share=0.2)
    assert f"the items of {share:.1%} of the int" in decided(tomorrow, unknown_share=0.04)
    Path(lake.uri("weights", trained.model_id, "items.parquet")).unlink()
    assert "can't serve: the model has no file" in decided(tomorrow)
