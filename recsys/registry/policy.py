"""When a night trains: the policy, decided on dates and counts alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.registry.models import UnusableModelError, load_items, model_rows
from sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from recsys.lake.tables import Lake
    from recsys.settings import Policy, Settings

Train = Literal["policy", "always", "never"]
"""When a night trains: as the policy says, every night, or not at all."""


@dataclass(frozen=True)
class Standing:
    """What the policy decides on.

    Attributes:
        champion_id: who serves; None while nobody does.
        champion_at: when the champion was trained.
        problem: why the champion can't serve; empty where it can.
        last_id: the newest training, whatever became of its model.
        last_at: when that was.
        last_interactions: what it learnt from.
        interactions: in the lake now.
        unknown: of these, how many are with items that the champion does not know.
    """

    champion_id: str | None = None
    champion_at: datetime | None = None
    problem: str = ""
    last_id: str | None = None
    last_at: datetime | None = None
    last_interactions: int = 0
    interactions: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Decision:
    """Whether a night trains, and what that was decided on.

    Attributes:
        train: whether it does.
        why: the reason, for a person.
        champion: who serves; None while nobody does.
        champion_age_days: days since the champion was trained.
        serves: whether there is a champion, and nothing is known against it.
    """

    train: bool
    why: str
    champion: str | None
    champion_age_days: float | None
    serves: bool


def decide(train: Train, policy: Policy, standing: Standing, now: datetime) -> Decision:
    """Decide whether a night trains.

    Age and growth are counted from the newest training, rejected ones included: what the gate
    has refused is not tried again every night.

    Args:
        train: what was asked for.
        policy: the limits.
        standing: who serves, and what there is to learn from.
        now: the time of the night.
    """
    answer, why = _reason(train, policy, standing, now)
    age = None
    if standing.champion_at is not None:
        age = round(max(0.0, (now - standing.champion_at).total_seconds() / 86400), 1)
        why = f"{why}; the champion is {age:g} days old"
    serves = standing.champion_id is not None and not standing.problem
    return Decision(answer, why, standing.champion_id, age, serves)


def _reason(train: Train, policy: Policy, standing: Standing, now: datetime) -> tuple[bool, str]:
    if train != "policy":
        return train == "always", f"train = {train}"
    if standing.last_at is None:
        return True, "there is no champion"
    if standing.problem:
        return True, f"the champion can't serve: {standing.problem}"
    if standing.interactions == standing.last_interactions:
        return False, f"nothing new came since {standing.last_id} was trained"
    age = now - standing.last_at
    growth = standing.interactions / max(1, standing.last_interactions) - 1
    unknown = standing.unknown / max(1, standing.interactions)
    rejected = "" if standing.last_id == standing.champion_id else ", which does not serve"
    last = f"{standing.last_id}{rejected}"
    if age > policy.max_age:
        return True, f"the last training ({last}) is over {_days(policy.max_age.days)} ago"
    if growth >= policy.new_data_share:
        return True, (
            f"interactions grew by {growth:.1%} since the last training ({last}); "
            f"the limit is {policy.new_data_share:.1%}"
        )
    if unknown >= policy.unknown_share and not rejected:
        return True, (
            f"the champion does not know the items of {unknown:.1%} of the interactions; "
            f"the limit is {policy.unknown_share:.1%}"
        )
    grown = f"since the last training ({last}) interactions grew by {growth:.1%}"
    if standing.champion_id is None:
        return False, f"{grown}; there is no champion"
    return False, f"{grown}, and the champion does not know the items of {unknown:.1%} of them"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def read_standing(lake: Lake, settings: Settings, train: Train) -> Standing:
    """Read what `decide` needs to know; interactions are counted for the policy alone.

    Raises:
        LakeError: the lake can't be read: nothing is known then.
    """
    rows = model_rows(lake)  # the newest comes first
    if not rows:
        return Standing()
    champion = next((row for row in rows if row.status == "champion"), None)
    standing = Standing(
        champion_id=champion.model_id if champion else None,
        champion_at=champion.trained_at if champion else None,
        last_id=rows[0].model_id,
        last_at=rows[0].trained_at,
        last_interactions=rows[0].interactions,
    )
    if train != "policy":
        return standing
    try:
        known_items = load_items(lake, champion).ids if champion else None
    except UnusableModelError as error:
        return replace(standing, problem=error.reason)
    with open_duckdb(settings) as con:
        lake.view(con, columns.INTERACTIONS)
        if known_items is None:
            ((interactions,),) = con.sql("select count(*) from interactions").fetchall()
            return replace(standing, interactions=interactions)
        con.register("known_items", pa.table({columns.ITEM_ID: known_items}))
        ((interactions, unknown),) = con.sql(load("registry/unknown_interactions")).fetchall()
        return replace(standing, interactions=interactions, unknown=unknown)
