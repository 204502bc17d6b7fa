"""The reports for people: a batch breaks its contract, or a check of it did not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from recsys.ingest.commit import Batch
    from recsys.lake.check_results import CheckResult


def refusal_report(
    con: duckdb.DuckDBPyConnection,
    batch: Batch,
    results: Sequence[CheckResult],
    reasons: Sequence[tuple[str, int]],
    page: str,
) -> str:
    """Say which rules a batch breaks, with figures and with sample rows out of ``con``.

    Args:
        con: holds the batch's rows, see :func:`recsys.ingest.row_checks.classify_rows`.
        batch: what was read.
        results: what the checks said.
        reasons: how many rows were rejected, by reason.
        page: the address of all of the checks.
    """
    failed = [result for result in results if result.status == "failed"]
    lines = [
        f"batch {batch.batch_id} of {batch.source} was refused because it breaks its contract; "
        "none of its rows was ingested.",
        "",
        "broken rules:",
    ]
    lines += [
        f"  {result.rule} ({result.column}): {result.observed}; the limit is {result.threshold}"
        for result in failed
    ]
    if reasons:
        lines += ["", "rejected rows by reason:"]
        lines += [f"  {reason}: {rows:,}" for reason, rows in reasons]
    if "value is unparsable" in dict(reasons):
        lines.append(
            '  a column of words that is called value is left out by columns = {value = ""}'
        )
    spans = any(result.column in ("span_days", "timestamp") for result in failed)
    samples = con.sql(
        load("ingest/accepted_sample" if spans or not reasons else "ingest/rejected_sample")
    )
    lines += ["", "sample rows:"]
    for row in samples.fetchall():
        cells = zip(samples.columns, row, strict=True)
        lines.append("  " + ", ".join(f"{name} {_short(value)}" for name, value in cells))
    lines += [
        "",
        "Fix the source and ingest again; or, if the data is right, change the limit under "
        "`contract` in recsys.toml.",
        f"All checks: {page}",
    ]
    return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


def breakage_report(batch_id: str, results: Sequence[CheckResult]) -> str:
    """Say which checks of a batch did not run."""
    broken = [result for result in results if result.status == "broken"]
    lines = [
        f"{result.suite}: {result.rule} ({result.column}): {result.detail}" for result in broken
    ]
    return (
        f"{len(broken)} check(s) of batch {batch_id} did not run. Nothing is known about the "
        "data and nothing was ingested. The defect is in the check, not in the data:\n  "
        + "\n  ".join(lines)
    )
