"""Publish lists as an edition of their run_date, or say why those that stand are left alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from recsys import columns
from recsys.account import current_account
from recsys.lake.schemas import as_json
from recsys.lists.editions import EditionRow, current_of, of_date, stored_rows, write_editions
from recsys.lists.explain import write_explanations
from recsys.lists.shadow import write_popular_items
from recsys.lists.staging import StagedLists, staged_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.lake.tables import Lake
    from recsys.lists.editions import ListInputs

ListStatus = Literal["published", "unchanged", "stands"]


def decide(
    lake: Lake, editions: list[EditionRow], inputs: ListInputs, replace_why: str | None
) -> tuple[ListStatus, str | None]:
    """Return what becomes of lists from these inputs, and why.

    They are published where none stand, for a reason that a person gives, or where rows of the same
    lists are missing.

    Args:
        lake: the lake.
        editions: of the run_date, oldest first.
        inputs: all that decides the lists.
        replace_why: a person's reason to replace what stands.

    Raises:
        LakeError: `recommendations` can't be read.
    """
    current = current_of(editions)
    if current and current.inputs == as_json(inputs.as_dict()):
        if stored_rows(lake, current) == current.rows:
            return "unchanged", None
        return "published", f"rows of {current.name} were missing"
    if editions and replace_why is None:
        return "stands", _why_lists_stand(editions, inputs)
    return "published", replace_why


def _why_lists_stand(editions: list[EditionRow], inputs: ListInputs) -> str:
    """Say why nothing is published over the editions of a run_date."""
    current, newest = current_of(editions), editions[-1]
    if current is None:
        told = f"{newest.name} was withdrawn by {newest.who} ({newest.why})"
    elif current.inputs is None:
        told = f"{current.name} stands as it was served"
    else:
        before, now = json.loads(current.inputs), inputs.as_dict()
        changed = ", ".join(sorted(name for name in now if before.get(name) != now[name]))
        told = f"{current.name} stands as it was served, from other inputs ({changed})"
    return f"{told}; nothing was published. Give --replace and a reason to publish another edition"


def shared_columns(
    lake: Lake, inputs: ListInputs, editions: list[EditionRow], run_id: str
) -> dict[str, pa.Scalar]:
    """Return the columns of `recommendations` that all rows of the next edition share."""
    edition = max((row.edition for row in editions), default=0) + 1
    schema = lake.schema(columns.RECOMMENDATIONS)
    return {
        "run_date": pa.scalar(inputs.run_date, pa.date32()),
        "run_id": pa.scalar(run_id),
        "interactions_version": pa.scalar(inputs.interactions_version),
        "generated_at": pa.scalar(datetime.now(UTC), schema.field("generated_at").type),
        "edition": pa.scalar(edition, pa.int32()),
    }


def publish(
    lake: Lake,
    staged: StagedLists,
    inputs: ListInputs,
    editions: list[EditionRow],
    shared: Mapping[str, pa.Scalar],
    why: str | None,
) -> EditionRow:
    """Publish lists as the newest edition of their run_date; return its row."""
    now, number, run_id = datetime.now(UTC), shared["edition"].as_py(), shared["run_id"].as_py()
    if staged.popular is not None:
        write_popular_items(lake, staged.popular, inputs.run_date, number)
    if staged.explanations is not None:
        write_explanations(lake, staged.explanations, inputs.run_date, number)
    # What a killed run has left of the same edition goes.
    of_edition = f"{of_date(inputs.run_date)} and edition = {number}"
    if staged.added:
        lake.delete(columns.RECOMMENDATIONS, of_edition)
        lake.add(columns.RECOMMENDATIONS, staged.added)
    else:
        rows = staged_rows(staged.files, shared, lake.schema(columns.RECOMMENDATIONS))
        lake.replace(columns.RECOMMENDATIONS, rows, where=of_edition)
    row = EditionRow(
        run_date=inputs.run_date,
        edition=number,
        status="current",
        run_id=run_id,
        model_id=inputs.model_id,
        interactions_version=inputs.interactions_version,
        data_until=inputs.bound.until,
        as_of=inputs.bound.as_of,
        **asdict(staged.counts),
        inputs=as_json(inputs.as_dict()),
        why=why,
        who=current_account(),
        changed_at=now,
        published_at=now,
    )
    superseded = [
        replace(before, status="superseded", changed_at=now)
        if before.status == "current"
        else before
        for before in editions
    ]
    write_editions(lake, [*superseded, row])
    return row
