"""The lists of a night's shards: made one after the other here, or elsewhere by a strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.lists.blocks import make_lists
from recsys.lists.checks import ListChecks
from recsys.lists.experiment import groups_of
from recsys.lists.scored import ScoredBlocks
from recsys.lists.shards import Shards
from recsys.lists.staging import stage_lists
from recsys.model.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import duckdb
    import pyarrow as pa

    from recsys.lake.tables import Lake
    from recsys.lists.editions import ListInputs
    from recsys.lists.experiment import Group
    from recsys.lists.shards import Shard
    from recsys.lists.staging import StagedLists
    from recsys.progress import Progress
    from recsys.registry.models import ModelRow
    from recsys.settings import Settings


@dataclass(frozen=True)
class Night:
    """What all of a night's lists are made from; each process that makes some has its own.

    Attributes:
        lake: the lake.
        settings: the machine's limits, and how many shards there are.
        inputs: all that decides the lists.
        champion: the model that serves; None where popularity serves everyone.
        shared: the columns of `recommendations` that all rows share.
        con: a DuckDB with views of what is read.
        groups: of users, with what their lists are made from.
        shards: of the users.
    """

    lake: Lake
    settings: Settings
    inputs: ListInputs
    champion: ModelRow | None
    shared: Mapping[str, pa.Scalar]
    con: duckdb.DuckDBPyConnection
    groups: list[Group]
    shards: Shards

    @classmethod
    @contextmanager
    def open(
        cls,
        lake: Lake,
        settings: Settings,
        inputs: ListInputs,
        champion: ModelRow | None,
        shared: Mapping[str, pa.Scalar],
    ) -> Iterator[Night]:
        """Gather it.

        Raises:
            ConfigurationError: the model of an experiment does not exist, or `[scale]` does not
                fit.
            GateError: there are no users or no eligible items.
        """
        with open_duckdb(settings) as con:
            groups = groups_of(lake, settings, con, inputs, champion)
            shards = Shards(lake, con, inputs, settings.scale.shards)
            yield cls(lake, settings, inputs, champion, shared, con, groups, shards)

    def scored_blocks(
        self, group: Group, shard: int | None, *, is_used: bool = False
    ) -> ScoredBlocks:
        """Return where the scores of a group's users are saved: all that decides them names it.

        They differ in their last bits by device.
        """
        device = Runtime(self.settings.device).torch_device.type
        decides = {**self.inputs.as_dict(), "device": device, "made_by": group.model_id}
        if shard is not None:
            decides["shard"] = f"{shard} of {self.shards.count}"
        every = self.settings.training.save_every
        return ScoredBlocks(self.lake, decides, every, is_used=is_used)


@dataclass(frozen=True)
class MadeShard:
    """The checked lists of a shard.

    Attributes:
        staged: the lists.
        violations: of each rule.
        rule_counts: what `[rules]` did -> how many times.
        scored: where scores are saved, until the lists are published.
    """

    staged: StagedLists
    violations: dict[str, int]
    rule_counts: Counter[str] = field(default_factory=Counter)
    scored: tuple[ScoredBlocks, ...] = ()


MakeShards = Callable[[Night, "Path", "Progress"], list[MadeShard]]
"""Makes the lists of all shards of a night; the folder is scratch."""


def make_in_turn(night: Night, folder: Path, progress: Progress) -> list[MadeShard]:
    """Make the lists of one shard after the other, in this process."""
    return [
        make_shard(night, shard, folder / f"lists-{shard.number or 0}.parquet", progress)
        for shard in night.shards
    ]


def make_shard(night: Night, shard: Shard, file: Path, progress: Progress) -> MadeShard:
    """Write the lists of a shard to a file, and count what breaks a rule."""
    inputs, made_from = night.inputs, night.groups[0].made_from
    eligible_ids = made_from.packed.items.where(made_from.eligible)
    roles, caps = made_from.roles, made_from.caps
    checks = ListChecks(shard.con, eligible_ids, inputs.recommending, roles, caps)
    made, scored = [], []
    for group in night.groups:
        packed = group.of(shard.packed(group.made_from.packed, group.made_from.roles))
        if not len(packed.histories):
            continue
        blocks = night.scored_blocks(group, shard.number)
        lists = make_lists(
            group.model,
            packed,
            group.made_from.eligible,
            group.made_from.popular,
            inputs.recommending,
            night.settings,
            progress,
            blocks,
            group.made_from.rules,
        )
        made.append((packed, group.model_id, lists))
        scored.append(blocks)
    staged = stage_lists(made, checks, file, night.lake.schema(columns.RECOMMENDATIONS))
    rule_counts: Counter[str] = Counter()
    for group in night.groups:
        if group.made_from.rules:
            rule_counts.update(group.made_from.rules.counts)
            group.made_from.rules.counts.clear()
    return MadeShard(staged, checks.violations(), rule_counts, tuple(scored))
