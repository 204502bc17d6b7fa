"""What lists are made from, besides the model: histories, items, popularity and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import GateError
from recsys.lake.history_cache import load_histories
from recsys.lake.roles import Roles
from recsys.lists.eligibility import eligible_items
from recsys.lists.popularity import Popular, popularity
from recsys.lists.rule_conditions import evaluate_rules
from recsys.lists.shards import items_alone

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.lists.editions import ListInputs
    from recsys.lists.eligibility import Eligibility
    from recsys.lists.rules import ListRules
    from recsys.registry.models import Model
    from recsys.settings import Settings


@dataclass(frozen=True)
class Ingredients:
    """What lists are made from.

    Attributes:
        packed: all histories, whose first indices are those of the model's items; with several
            shards the items alone, see `recsys.lists.shards`.
        roles: what each interaction is for; None where each is for everything.
        eligibility: which items `items` lets be shown, and how many it does not.
        eligible: (V + 1,) which of them the rules show.
        popular: the order of popularity.
        rules: that choose among candidates; None without any.
        caps: what the rules' caps are checked by; None without any.
    """

    packed: Packed
    roles: Roles | None
    eligibility: Eligibility
    eligible: NDArray[np.bool_]
    popular: Popular
    rules: ListRules | None
    caps: pa.Table | None

    @classmethod
    def gather(
        cls,
        lake: Lake,
        settings: Settings,
        con: duckdb.DuckDBPyConnection,
        inputs: ListInputs,
        model: Model | None,
        *,
        with_histories: bool = True,
    ) -> Ingredients:
        """Read what lists are made from; ``con`` has views interactions and items afterwards.

        Raises:
            GateError: there is nobody to serve, or no item may be shown.
            LakeError: the lake can't be read.
        """
        ruled = evaluate_rules(lake, settings, inputs.items_version, inputs.run_date)
        inputs.bound.view(lake, con, inputs.interactions_version)
        lake.view(con, columns.ITEMS, inputs.items_version)
        first = model.items if model else None
        roles = Roles.until(settings.events, inputs.bound.until)
        version = inputs.interactions_version
        if with_histories:
            packed = load_histories(lake, con, version, first, inputs.bound, roles)
        else:
            packed = items_alone(con, first, roles)
        if not packed.counts.any():
            raise GateError(f"no lists were made: {_why_nobody_is_known(lake, inputs)}")
        eligibility = eligible_items(con, packed)
        rules = ruled.of(packed.items) if ruled else None
        eligible = eligibility.mask & rules.shown if rules else eligibility.mask
        if not eligible.any():
            raise GateError(
                "no lists were made: no item may be shown. Of those that somebody interacted with, "
                f"{eligibility.not_eligible:,} are not eligible in `items`, and "
                f"{eligibility.not_in_items:,} are missing there; rules.show_only rules out "
                f"{int(eligibility.mask.sum()):,} others. The previous lists stay in place"
            )
        counts = popularity(con, packed, roles, inputs.recommending.popularity_half_life)
        popular = Popular.of(counts, eligible)
        caps = ruled.caps() if ruled else None
        return cls(packed, roles, eligibility, eligible, popular, rules, caps)


def _why_nobody_is_known(lake: Lake, inputs: ListInputs) -> str:
    bound = inputs.bound
    if bound.covers(lake.open(columns.INTERACTIONS, inputs.interactions_version)):
        return "`interactions` is empty; run `recsys ingest`"
    if bound.as_of is None:
        return f"there is no interaction {bound}; give a later day"
    return f"there is no interaction {bound}; to use what was ingested later, give --as-of now"
