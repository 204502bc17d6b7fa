"""What an ingest of a source would do, told before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recsys.errors import SourceError
from recsys.ingest import sources
from recsys.ingest.changes import NO_CHANGES, find_changes
from recsys.ingest.contract import check_contract
from recsys.ingest.ids import lake_id_types
from recsys.ingest.row_checks import classify_rows, profile_batch
from recsys.lake.engine import open_duckdb
from recsys.lake.row_counts import accepted_batches
from recsys.temporary import temporary_folder
from sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from recsys.ingest.row_checks import BatchProfile
    from recsys.lake.check_results import CheckResult
    from recsys.lake.tables import Lake
    from recsys.settings import Settings, Source


@dataclass(frozen=True)
class SourceCheck:
    """What an ingest would make of all that a source holds now.

    Attributes:
        objects: files or objects that were read.
        understood: a sentence on the source's columns, for people.
        first_rows: its first rows, as `interactions` would hold them, with what is wrong with each.
        profile: the counts.
        reasons: reason -> rows that would be rejected for it.
        broken_rules: the rules of the contract that refuse the batch, or that did not run.
    """

    objects: int
    understood: str
    first_rows: pa.Table
    profile: BatchProfile
    reasons: Mapping[str, int]
    broken_rules: Sequence[CheckResult]

    def explain(self) -> str:
        """Say in a few lines what would be refused, and why."""
        profile = self.profile
        lines = [
            f"{profile.accepted:,} of {profile.row_count:,} rows would be accepted, "
            f"{profile.rejected:,} rejected ({profile.rejected_share:.1%}); "
            f"{profile.duplicates:,} are in the lake already"
            + (f", {profile.anonymous:,} have no user" if profile.anonymous else "")
        ]
        if profile.replaced or profile.deleted:
            lines.append(
                f"of the rows in the lake, {profile.replaced:,} would be replaced and "
                f"{profile.deleted:,} deleted ({profile.changed_share:.1%}), see on_change"
            )
        lines += [f"  {reason}: {rows:,}" for reason, rows in self.reasons.items()]
        if self.broken_rules:
            lines.append("the batch would be refused whole:")
        lines += [
            f"  {rule.rule} ({rule.column}): {rule.detail or rule.observed}; "
            f"the limit is {rule.threshold}"
            for rule in self.broken_rules
        ]
        return "\n".join(lines)


def check_source(
    lake: Lake, settings: Settings, source: Source | None = None, *, now: datetime | None = None
) -> SourceCheck:
    """Read all that a source holds and check it as an ingest does; write nothing.

    The rule on the change of the row count is left out: it is about what is new.

    Args:
        lake: where an ingest would write to; it may not exist yet.
        settings: the contract, the S3 endpoint, the memory limit of DuckDB.
        source: what to check; the configured source when not given.
        now: the time of the check; the clock's when not given.

    Raises:
        ConfigurationError: no source is given or configured.
        SourceError: the source is missing, unreadable, or lacks what the mapping says.
        BrokenCheckError: Great Expectations failed before any result.
        LakeError: the lake can't be read.
    """
    source = source or settings.required_source()
    name, contract = sources.identity(source), settings.contract
    latest = (now or datetime.now(UTC)).astimezone(UTC) + contract.max_future
    with temporary_folder() as folder, open_duckdb(settings) as con:
        sources.confine_source(con, lake, source)
        objects = sources.find(source, settings.s3)
        paths = sources.fetch(objects, folder / "objects", settings.s3)
        lake_types = lake_id_types(lake)
        staged = sources.stage(con, source, objects, paths, lake_types)
        if not staged.rows:
            raise SourceError(f"{name} is empty: an ingest would refuse it")
        classify_rows(con, lake, source, contract, latest, compare=lake_types is not None)
        earlier = [one for one in accepted_batches(lake) if sources.canonical(one.source) == name]
        changes = find_changes(con, source, earlier) if lake_types else NO_CHANGES
        profile = profile_batch(con, staged, name, [], changes)
        results = check_contract(con, contract, profile, lake_types, latest, name)
        return SourceCheck(
            objects=len(objects),
            understood=staged.explain(),
            first_rows=con.sql(load("ingest/first_rows")).to_arrow_table(),
            profile=profile,
            reasons=dict(con.sql(load("ingest/rejection_reasons")).fetchall()),
            broken_rules=[result for result in results if result.status != "passed"],
        )
