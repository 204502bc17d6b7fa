"""Every user's top-K: score in a stream, check what was made, publish it as an edition."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.lake.bound import Bound
from recsys.lake.row_counts import check_row_counts
from recsys.lists.checks import enforce
from recsys.lists.editions import ListInputs, current_of, editions_of
from recsys.lists.explain import explain_sample
from recsys.lists.making import Night, make_in_turn
from recsys.lists.publishing import ListStatus, decide, publish, shared_columns
from recsys.lists.rules import results_of
from recsys.lists.shadow import popular_items
from recsys.lists.staging import StagedLists
from recsys.progress import Progress, silent
from recsys.registry.models import find_champion
from recsys.registry.promotions import champion_at
from recsys.temporary import temporary_folder
from recsys.version import code_version

if TYPE_CHECKING:
    from datetime import date, datetime
    from pathlib import Path

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.lists.editions import EditionRow
    from recsys.lists.eligibility import Eligibility
    from recsys.lists.experiment import Group
    from recsys.lists.making import MakeShards
    from recsys.lists.scored import ScoredBlocks
    from recsys.registry.models import ModelRow
    from recsys.settings import Recommending, Settings


@dataclass(frozen=True)
class RecommendResult:
    """The result of a night's recommendations: the edition that stands at its end.

    Attributes:
        status: "published"; "unchanged" where the same inputs had made the current edition before;
            "stands" where others had, or the lists were withdrawn, and nothing was changed.
        run_date: the day that the lists are for.
        edition: which of its editions.
        model_id: the model that made it, or None where popularity served everyone.
        interactions_version: version of `interactions` that was read.
        data_until: interactions before this time were read.
        as_of: what was ingested before this was read; None for all.
        users: users with a list.
        rows: rows.
        popular_users: users whose whole list comes from popularity.
        without_list: users with interactions but without a list: no item was left.
        users_without_list: a few of them, where lists were made.
        items_not_in_items: items with interactions that no list could hold, since `items` lacks
            them; 0 where no lists were made.
        items_not_eligible: likewise, since `items` does not say that they are eligible.
        version: version of `recommendations` that holds the lists.
        why: why lists were published over others, or why these stand.
        seconds: wall time.
    """

    status: ListStatus
    run_date: date
    edition: int
    model_id: str | None
    interactions_version: int | None
    data_until: datetime | None
    as_of: datetime | None
    users: int
    rows: int
    popular_users: int
    without_list: int
    users_without_list: list[Any]
    items_not_in_items: int
    items_not_eligible: int
    version: int
    why: str | None
    seconds: float

    @classmethod
    def of(
        cls,
        row: EditionRow,
        status: ListStatus,
        why: str | None,
        staged: StagedLists | None,
        eligibility: Eligibility | None,
        version: int,
        seconds: float,
    ) -> RecommendResult:
        """Return the result with what an edition's row says; 0 for a count that it lacks."""
        return cls(
            status=status,
            run_date=row.run_date,
            edition=row.edition,
            model_id=row.model_id,
            interactions_version=row.interactions_version,
            data_until=row.data_until,
            as_of=row.as_of,
            users=row.users or 0,
            rows=row.rows or 0,
            popular_users=row.popular_users or 0,
            without_list=row.without_list or 0,
            users_without_list=staged.users_without_list if staged else [],
            items_not_in_items=eligibility.not_in_items if eligibility else 0,
            items_not_eligible=eligibility.not_eligible if eligibility else 0,
            version=version,
            why=why,
            seconds=seconds,
        )


def recommend(
    lake: Lake,
    settings: Settings,
    recommending: Recommending | None = None,
    *,
    run_date: date,
    run_id: str,
    bound: Bound | None = None,
    replace_why: str | None = None,
    make_shards: MakeShards = make_in_turn,
    progress: Progress = silent,
) -> RecommendResult:
    """Make and publish the lists of every user with at least one interaction before the day's end.

    The champion ranks the items it knows; popularity fills what it can't: users none of whose
    items it knows, lists that its items don't fill, and everyone while there is no champion.
    Lists that were published for the run_date stand as they were served, unless ``replace_why``
    says why another edition is to be published.

    Args:
        lake: the lake.
        settings: with the time zone, and the machine's limits.
        recommending: how many items, of which kind; as it is configured when not given.
        run_date: the day that the lists are for.
        run_id: key of `runs`.
        bound: which interactions are read; `Bound.of` the run_date when not given.
        replace_why: the reason to replace lists that stand.
        make_shards: makes the lists of the shards of the users, here or elsewhere.
        progress: called as the work goes on.

    Raises:
        LakeError: the lake has no interactions, has lost or doubled rows, or can't be read or
            written. The champion is among what is read: popularity does not take the place of one
            that is missing or damaged.
        ConfigurationError: ``run_date`` lies in the future, ``replace_why`` is empty, or the model
            of an experiment does not exist.
        GateError: there is nobody to serve, no item may be shown, or the lists broke a rule;
            nothing was published.
    """
    started = time.perf_counter()
    settings.check_run_date(run_date)
    _require_reason(replace_why)
    bound = bound or Bound.of(settings, run_date)
    champion, inputs = _inputs(lake, settings, recommending, run_date, bound)
    editions = editions_of(lake, run_date)
    status, why = decide(lake, editions, inputs, replace_why)
    staged = eligibility = None
    if status == "published":
        shared = shared_columns(lake, inputs, editions, run_id)
        with temporary_folder() as folder:
            with Night.open(lake, settings, inputs, champion, shared) as night:
                staged, eligibility, scored = _make_lists(night, make_shards, folder, progress)
            row = publish(lake, staged, inputs, editions, shared, why)
        for blocks in scored:
            blocks.remove()
    else:
        row = current_of(editions) or editions[-1]
    published, seconds = lake.version(columns.RECOMMENDATIONS), time.perf_counter() - started
    return RecommendResult.of(row, status, why, staged, eligibility, published, seconds)


def _require_reason(replace_why: str | None) -> None:
    if replace_why is not None and not replace_why.strip():
        raise ConfigurationError("lists are replaced for a reason: say why, it is kept")


def _inputs(
    lake: Lake,
    settings: Settings,
    recommending: Recommending | None,
    run_date: date,
    bound: Bound,
) -> tuple[ModelRow | None, ListInputs]:
    """Return the champion of that time, and all that decides the lists.

    Raises:
        LakeError: the lake has lost or doubled rows, or can't be read.
    """
    version = lake.version(columns.INTERACTIONS)
    check_row_counts(lake, version)
    champion = champion_at(lake, bound.as_of) if bound.as_of else find_champion(lake)
    return champion, ListInputs(
        run_date=run_date,
        model_id=champion.model_id if champion else None,
        interactions_version=version,
        bound=bound,
        items_version=lake.version(columns.ITEMS),
        recommending=recommending or settings.recommending,
        events=settings.events,
        rules=settings.rules,
        code_version=code_version(),
        experiment=settings.experiment,
    )


def _make_lists(
    night: Night, make_shards: MakeShards, folder: Path, progress: Progress
) -> tuple[StagedLists, Eligibility, list[ScoredBlocks]]:
    """Make checked lists; return them, which items they could hold, and their scores.

    Raises:
        GateError: the lists broke a rule.
    """
    made_from = night.groups[0].made_from
    made = make_shards(night, folder, progress)
    staged = StagedLists.of([shard.staged for shard in made])
    violations: Counter[str] = Counter()
    rule_counts: Counter[str] = Counter()
    for shard in made:
        violations.update(shard.violations)
        rule_counts.update(shard.rule_counts)
    if night.shards.count > 1:
        told = staged.counts.users + staged.counts.without_list
        violations["every user is in one shard"] = abs(told - night.shards.users())
    staged = replace(
        staged,
        counts=replace(staged.counts, eligible_items=len(made_from.popular.order)),
        popular=popular_items(made_from.popular, made_from.packed.items, staged.longest),
        explanations=_explanations(night, staged),
    )
    enforce(night.lake, violations, night.inputs.run_date, results_of(rule_counts))
    return staged, made_from.eligibility, [blocks for shard in made for blocks in shard.scored]


def _explanations(night: Night, staged: StagedLists) -> pa.Table | None:
    """Explain the lists of a few users of all groups; None where none are asked for."""
    if not night.inputs.recommending.explained_users:
        return None

    def explained(group: Group) -> pa.Table:
        made_from = group.made_from

        def histories_of(users: pa.Array) -> Packed:
            return group.of(night.shards.packed_users(made_from.packed, made_from.roles, users))

        return explain_sample(
            night.con,
            staged.uris,
            histories_of,
            made_from.packed,
            group.model,
            made_from.roles,
            night.settings,
            night.inputs,
        )

    night.lake.let_read(night.con)
    return pa.concat_tables(map(explained, night.groups))
