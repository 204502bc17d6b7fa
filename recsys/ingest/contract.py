"""The contract of a batch, judged by Great Expectations; a check that breaks is told from bad data.

Row rules are SQL (sql/ingest/). Here stands what the batch as a whole must keep to, on its profile
of one row, and a second look at the accepted rows themselves, up to a bounded number.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.errors import BrokenCheckError
from sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import duckdb
    import pandas as pd

    from recsys.settings import Contract

PROFILE, ROWS = "batch_profile", "rows"
ID_TYPES = {"BIGINT": "integer", "VARCHAR": "text"}


@dataclass(frozen=True)
class Rule:
    """One expectation: its name, what it looks at, and how its limit reads."""

    suite: str
    name: str
    column: str
    expectation: str
    threshold: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What came of one rule: passed, failed, or broken (the check itself did not run)."""

    rule: Rule
    status: str
    observed: str
    detail: str | None = None

    def row(self, subject: str, now: datetime) -> dict[str, Any]:
        """Return its row of `quality_results`."""
        return {
            "subject": subject,
            "suite": self.rule.suite,
            "rule": self.rule.name,
            "status": self.status,
            "column": self.rule.column,
            "observed": self.observed,
            "threshold": self.rule.threshold,
            "detail": self.detail,
            "checked_at": now,
        }


def contract_rules(
    contract: Contract, profile: Mapping[str, Any], held: tuple[str, str] | None, latest: datetime
) -> list[Rule]:
    """Return the rules of a batch.

    Args:
        contract: the limits.
        profile: the batch's profile; its row_count_change is None with too few earlier batches.
        held: the lake's id types, integer or text, when it has rows already.
        latest: the latest moment that an interaction may have.
    """
    between, among = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeInSet"
    filled = "ExpectColumnValuesToNotBeNull"
    days = contract.max_span.total_seconds() / 86400
    rules = [
        Rule(PROFILE, "batch is not empty", "row_count", between, "at least 1", {"min_value": 1}),
        Rule(
            PROFILE,
            "rejected share",
            "rejected_share",
            between,
            f"at most {contract.max_rejected_share:g}",
            {"max_value": contract.max_rejected_share},
        ),
        Rule(
            PROFILE,
            "timestamp span",
            "span_days",
            between,
            f"at most {days:g} days",
            {"max_value": days},
        ),
    ]
    for at, column in enumerate(("user_id_type", "item_id_type")):
        allowed = [held[at]] if held else sorted(ID_TYPES.values())
        rules.append(
            Rule(
                PROFILE, "type of ids", column, among, " or ".join(allowed), {"value_set": allowed}
            )
        )
    if profile["row_count_change"] is not None:
        most = contract.max_row_count_change
        rules.append(
            Rule(
                PROFILE,
                "change of row count",
                "row_count_change",
                between,
                f"at most {most:g} times more or fewer than earlier batches",
                {"max_value": most},
            )
        )
    rules += [
        Rule(ROWS, "no null", column, filled, "none", {})
        for column in ("user_id", "item_id", "timestamp")
    ]
    rules.append(
        Rule(
            ROWS,
            "not in the future",
            "timestamp",
            between,
            f"at most {latest:%Y-%m-%d %H:%M:%S} UTC",
            {"max_value": latest},
        )
    )
    return rules


def evaluate_contract(
    rules: Sequence[Rule], frames: Mapping[str, pd.DataFrame], run_name: str, docs: Path | None
) -> list[Verdict]:
    """Evaluate every rule on its suite's frame; write HTML Data Docs under ``docs`` when given.

    Raises:
        BrokenCheckError: Great Expectations itself failed before any verdict.
    """
    gx = _great_expectations()
    try:
        context = gx.get_context(mode="ephemeral")
        _quiet(context, docs)
        pandas = context.data_sources.add_pandas("batch")
        verdicts = []
        for suite_name, frame in frames.items():
            chosen = [rule for rule in rules if rule.suite == suite_name]
            suite = gx.ExpectationSuite(
                name=suite_name,
                expectations=[
                    getattr(gx.expectations, rule.expectation)(
                        column=rule.column, meta={"rule": number}, **rule.arguments
                    )
                    for number, rule in enumerate(chosen)
                ],
            )
            definition = gx.ValidationDefinition(
                name=suite_name,
                data=pandas.add_dataframe_asset(suite_name).add_batch_definition_whole_dataframe(
                    "all"
                ),
                suite=context.suites.add(suite),
            )
            outcome = context.validation_definitions.add(definition).run(
                batch_parameters={"dataframe": frame},
                run_id=gx.RunIdentifier(run_name=run_name),
            )
            by_number = {
                result.expectation_config.meta["rule"]: result for result in outcome.results
            }
            verdicts += [
                _verdict(rule, by_number.get(number), frame) for number, rule in enumerate(chosen)
            ]
        if docs is not None:
            context.build_data_docs()
    except gx.exceptions.GreatExpectationsError as error:
        raise BrokenCheckError(
            f"Great Expectations could not judge {run_name}: {error}. Nothing is known about the "
            "data and nothing was taken; this is a defect of the check, not of the data"
        ) from error
    return verdicts


def _verdict(rule: Rule, result: Any, frame: pd.DataFrame) -> Verdict:
    error = "no result came back" if result is None else _exception(result.exception_info)
    if error:
        return Verdict(rule, "broken", "", error)
    if rule.suite == PROFILE:
        value = frame[rule.column].iloc[0]
        observed = f"{value:.6g}" if isinstance(value, float) else str(value)
    else:
        figures = result.result
        observed = f"{figures['unexpected_count']} of {figures['element_count']} rows"
    return Verdict(rule, "passed" if result.success else "failed", observed)


def _exception(info: Any) -> str | None:
    """Find the exception in what Great Expectations reports: flat, or one entry per metric."""
    if not isinstance(info, dict):
        return None
    entries = [info, *(value for value in info.values() if isinstance(value, dict))]
    for entry in entries:
        if entry.get("raised_exception") is True:
            return str(entry.get("exception_message"))
    return None


def refusal_report(
    con: duckdb.DuckDBPyConnection, batch_id: str, source: str, verdicts: Sequence[Verdict]
) -> str:
    """Say which rules a batch breaks, with figures and with sample rows out of ``con``."""
    failed = [verdict for verdict in verdicts if verdict.status == "failed"]
    lines = [
        f"batch {batch_id} of {source} was refused, since it breaks its contract; nothing "
        "of it was taken.",
        "",
        "broken rules:",
    ]
    lines += [
        f"  {verdict.rule.name} ({verdict.rule.column}): {verdict.observed}; the limit is "
        f"{verdict.rule.threshold}"
        for verdict in failed
    ]
    reasons = con.execute(load("ingest/reasons")).fetchall()
    if reasons:
        lines += ["", "rejected rows by reason:"]
        lines += [f"  {reason}: {rows:,}" for reason, rows in reasons]
    spans = any(verdict.rule.column in ("span_days", "timestamp") for verdict in failed)
    samples = con.sql(
        load("ingest/sample_span" if spans or not reasons else "ingest/sample_rejected")
    )
    lines += ["", "sample rows:"]
    for row in samples.fetchall():
        cells = zip(samples.columns, row, strict=True)
        lines.append("  " + ", ".join(f"{name} {_short(value)}" for name, value in cells))
    lines += [
        "",
        "Mend the source and ingest again; or, if the data is right, change the limit under "
        "`contract` in recsys.toml.",
    ]
    return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


def breakage_report(batch_id: str, verdicts: Sequence[Verdict]) -> str:
    """Say which checks of a batch did not run."""
    broken = [verdict for verdict in verdicts if verdict.status == "broken"]
    lines = [
        f"{verdict.rule.suite}: {verdict.rule.name} ({verdict.rule.column}): {verdict.detail}"
        for verdict in broken
    ]
    return (
        f"{len(broken)} check(s) of batch {batch_id} did not run, so that nothing is known about "
        "the data and nothing was taken. This is a defect of the check, not of the data:\n  "
        + "\n  ".join(lines)
    )


def _great_expectations() -> Any:
    """Import it (slow, so only here) with its telemetry off, and its talk of temporary folders."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    import great_expectations.exceptions

    # This one module sets a level of its own when it is imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return gx


def _quiet(context: Any, docs: Path | None) -> None:
    """No progress bars; Data Docs where we want them, and nowhere else."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for name in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(name)
    if docs is not None:
        context.add_data_docs_site(
            site_name="lake",
            site_config={
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
