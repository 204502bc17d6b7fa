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
from recsys.lake.engine import open_duckdb
from recsys.lake.row_counts import check_row_counts
from recsys.lists.blocks import make_lists
from recsys.lists.checks import ListChecks, enforce
from recsys.lists.editions import ListInputs, current_of, editions_of
from recsys.lists.experiment import Group, groups_of
from recsys.lists.explain import explain_sample
from recsys.lists.publishing import ListStatus, decide, publish
from recsys.lists.scored import ScoredBlocks
from recsys.lists.shadow import popular_items
from recsys.lists.shards import Shards
from recsys.lists.staging import StagedLists, stage_lists
from recsys.model.runtime import Runtime
from recsys.progress import Progress, silent
from recsys.registry.models import find_champion
from recsys.registry.promotions import champion_at
from recsys.temporary import temporary_folder
from recsys.version import code_version

if TYPE_CHECKING:
    from datetime import date, datetime
    from pathlib import Path

    import duckdb

    from recsys.histories import Packed
    from recsys.lake.tables import Lake
    from recsys.lists.editions import EditionRow
    from recsys.lists.eligibility import Eligibility
    from recsys.lists.shards import Shard
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
    version = lake.version(columns.INTERACTIONS)
    check_row_counts(lake, version)
    champion = champion_at(lake, bound.as_of) if bound.as_of else find_champion(lake)
    inputs = _inputs(lake, settings, champion, run_date, version, bound, recommending)
    editions = editions_of(lake, run_date)
    status, why = decide(lake, editions, inputs, replace_why)
    staged = eligibility = None
    if status == "published":
        with temporary_folder() as folder:
            staged, eligibility, scored = _make_lists(
                lake, settings, champion, inputs, folder, progress
            )
            row = publish(lake, staged, inputs, editions, run_id, why)
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
    champion: ModelRow | None,
    run_date: date,
    version: int,
    bound: Bound,
    recommending: Recommending | None,
) -> ListInputs:
    return ListInputs(
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
    lake: Lake,
    settings: Settings,
    champion: ModelRow | None,
    inputs: ListInputs,
    folder: Path,
    progress: Progress,
) -> tuple[StagedLists, Eligibility, list[ScoredBlocks]]:
    """Write checked lists to a folder; return them, which items they could hold, and their scores.

    Raises:
        ConfigurationError: the model of an experiment does not exist, or `[scale]` does not fit.
        GateError: there are no users or no eligible items, or the lists broke a rule.
    """
    with open_duckdb(settings) as con:
        groups = groups_of(lake, settings, con, inputs, champion)
        made_from = groups[0].made_from
        shards = Shards(lake, con, inputs, settings.scale.shards)
        violations: Counter[str] = Counter()
        made, scored = [], []
        for shard in shards:
            file = folder / f"lists-{shard.number or 0}.parquet"
            staged, broken, blocks = _make_shard(
                lake, settings, inputs, groups, shard, file, progress
            )
            violations.update(broken)
            made.append(staged)
            scored += blocks
        staged = StagedLists.of(made)
        if shards.count > 1:
            told = staged.counts.users + staged.counts.without_list
            violations["every user is in one shard"] = abs(told - shards.users())
        staged = replace(
            staged,
            counts=replace(staged.counts, eligible_items=len(made_from.popular.order)),
            popular=popular_items(made_from.popular, made_from.packed.items, staged.longest),
            explanations=_explanations(con, staged, groups, shards, settings, inputs),
        )
        rules = [group.made_from.rules for group in groups if group.made_from.rules]
        for other in rules[1:]:
            rules[0].counts.update(other.counts)
        results = rules[0].results() if rules else []
        enforce(lake, violations, inputs.run_date, results)
    return staged, made_from.eligibility, scored


def _make_shard(
    lake: Lake,
    settings: Settings,
    inputs: ListInputs,
    groups: list[Group],
    shard: Shard,
    file: Path,
    progress: Progress,
) -> tuple[StagedLists, dict[str, int], list[ScoredBlocks]]:
    """Write the checked lists of a shard to a file; return also what breaks each rule."""
    made_from, recommending = groups[0].made_from, inputs.recommending
    eligible_ids = made_from.packed.items.where(made_from.eligible)
    checks = ListChecks(shard.con, eligible_ids, recommending, made_from.roles, made_from.caps)
    made, scored = [], []
    for group in groups:
        packed = group.of(shard.packed(group.made_from.packed, group.made_from.roles))
        if not len(packed.histories):
            continue
        blocks = _scored_blocks(lake, settings, inputs, group, shard)
        lists = make_lists(
            group.model,
            packed,
            group.made_from.eligible,
            group.made_from.popular,
            recommending,
            settings,
            progress,
            blocks,
            group.made_from.rules,
        )
        made.append((packed, group.model_id, lists))
        scored.append(blocks)
    staged = stage_lists(made, checks, file, lake.schema(columns.RECOMMENDATIONS))
    return staged, checks.violations(), scored


def _scored_blocks(
    lake: Lake, settings: Settings, inputs: ListInputs, group: Group, shard: Shard
) -> ScoredBlocks:
    """Return where the scores of a group are saved: all that decides them names it.

    They differ in their last bits by device.
    """
    device = Runtime(settings.device).torch_device.type
    decides = {**inputs.as_dict(), "device": device, "made_by": group.model_id}
    if shard.number is not None:
        decides["shard"] = f"{shard.number} of {settings.scale.shards}"
    return ScoredBlocks(lake, decides, settings.training.save_every)


def _explanations(
    con: duckdb.DuckDBPyConnection,
    staged: StagedLists,
    groups: list[Group],
    shards: Shards,
    settings: Settings,
    inputs: ListInputs,
) -> pa.Table | None:
    """Explain the lists of a few users of all groups; None where none are asked for."""
    if not inputs.recommending.explained_users:
        return None

    def explained(group: Group) -> pa.Table:
        made_from = group.made_from

        def histories_of(users: pa.Array) -> Packed:
            return group.of(shards.packed_users(made_from.packed, made_from.roles, users))

        return explain_sample(
            con,
            staged.files,
            histories_of,
            made_from.packed,
            group.model,
            made_from.roles,
            settings,
            inputs,
        )

    return pa.concat_tables(map(explained, groups))
