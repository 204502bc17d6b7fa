"""The contract of a batch: its rules, and their evaluation by Great Expectations.

Rules for single rows are SQL (sql/ingest/). These are the rules for the batch as a whole: on its
profile of one row, and on the accepted rows themselves, up to a bounded number. A check that breaks
is told apart from bad data.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from recsys import columns
from recsys.errors import BrokenCheckError
from recsys.ingest.ids import TYPE_NAMES
from recsys.lake.check_results import CheckResult
from sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import duckdb
    import pandas as pd

    from recsys.ingest.ids import IdTypes
    from recsys.ingest.row_checks import BatchProfile
    from recsys.settings import Contract

PROFILE, ROWS = "batch_profile", "rows"
_BETWEEN = "ExpectColumnValuesToBeBetween"


@dataclass(frozen=True)
class Rule:
    """One expectation: its name, what it looks at, and how its limit reads."""

    suite: str
    name: str
    column: str
    expectation: str
    threshold: str
    arguments: Mapping[str, Any]


def contract_rules(
    contract: Contract, profile: BatchProfile, lake_types: IdTypes | None, latest: datetime
) -> list[Rule]:
    """Return the rules of a batch.

    Args:
        contract: the limits.
        profile: the batch's profile; its row_count_change is None with too few earlier batches.
        lake_types: the types of ids in the lake, where it has some.
        latest: the latest timestamp that an interaction may have.
    """
    rules = [
        Rule(PROFILE, "batch is not empty", "row_count", _BETWEEN, "at least 1", {"min_value": 1}),
        _at_most("rejected share", "rejected_share", contract.max_rejected_share),
        _at_most("timestamp span", "span_days", contract.max_span.total_seconds() / 86400, " days"),
    ]
    if profile.changed_share:
        unit = " of the source's interactions"
        limit = contract.max_changed_share
        rules.append(_at_most("replaced or deleted", "changed_share", limit, unit))
    for column in (columns.USER_ID, columns.ITEM_ID):
        if lake_types is None:
            allowed = sorted(TYPE_NAMES.values())
        else:
            allowed = [TYPE_NAMES[getattr(lake_types, column)]]
        rules.append(
            Rule(
                suite=PROFILE,
                name="type of ids",
                column=f"{column}_type",
                expectation="ExpectColumnValuesToBeInSet",
                threshold=" or ".join(allowed),
                arguments={"value_set": allowed},
            )
        )
    if profile.row_count_change is not None:
        unit = " times more or fewer than earlier batches"
        limit = contract.max_row_count_change
        rules.append(_at_most("change of row count", "row_count_change", limit, unit))
    rules += [
        Rule(ROWS, "no null", column, "ExpectColumnValuesToNotBeNull", "none", {})
        for column in columns.REQUIRED
    ]
    rules.append(
        Rule(
            suite=ROWS,
            name="not in the future",
            column=columns.TIMESTAMP,
            expectation=_BETWEEN,
            threshold=f"at most {latest:%Y-%m-%d %H:%M:%S} UTC",
            arguments={"max_value": latest},
        )
    )
    return rules


def _at_most(name: str, column: str, limit: float, unit: str = "") -> Rule:
    """Return the rule that a figure of the profile has an upper limit."""
    threshold = f"at most {limit:g}{unit}"
    return Rule(PROFILE, name, column, _BETWEEN, threshold, {"max_value": limit})


def check_contract(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    profile: BatchProfile,
    lake_types: IdTypes | None,
    latest: datetime,
    run_name: str,
) -> list[CheckResult]:
    """Check a batch's profile, and its accepted rows up to a limit; nothing is written to a lake.

    Args:
        con: holds ``accepted_rows``, see :func:`recsys.ingest.row_checks.classify_rows`.
        contract: the limits.
        profile: the batch's profile.
        lake_types: the types of ids in the lake, where it has some.
        latest: the latest timestamp that an interaction may have.
        run_name: what the check is called where it fails.

    Raises:
        BrokenCheckError: Great Expectations itself failed before any result.
    """
    import pandas as pd

    rules = contract_rules(contract, profile, lake_types, latest)
    figures = {rule.column for rule in rules if rule.suite == PROFILE}
    row = {name: value for name, value in asdict(profile).items() if name in figures}
    frames = {PROFILE: pd.DataFrame([row])}
    if profile.accepted:
        limits = {"most": contract.sample_rows, "accepted": profile.accepted, "seed": 0}
        sample = con.sql(load("ingest/row_sample"), params=limits)
        frames[ROWS] = sample.to_arrow_table().to_pandas()
    return evaluate_contract(rules, frames, run_name)


def evaluate_contract(
    rules: Sequence[Rule], frames: Mapping[str, pd.DataFrame], run_name: str
) -> list[CheckResult]:
    """Evaluate every rule on its suite's frame.

    Raises:
        BrokenCheckError: Great Expectations itself failed before any result.
    """
    gx = _great_expectations()
    try:
        results = []
        for suite_name, frame in frames.items():
            suite_rules = [rule for rule in rules if rule.suite == suite_name]
            suite = gx.ExpectationSuite(
                name=suite_name,
                expectations=[
                    getattr(gx.expectations, rule.expectation)(
                        column=rule.column, meta={"rule": number}, **rule.arguments
                    )
                    for number, rule in enumerate(suite_rules)
                ],
            )
            batch = _frame_definition(suite_name).get_batch({"dataframe": frame})
            outcome = batch.validate(suite, result_format="BASIC")
            validations = {one.expectation_config.meta["rule"]: one for one in outcome.results}
            results += [
                _result(rule, validations.get(number), frame)
                for number, rule in enumerate(suite_rules)
            ]
    except gx.exceptions.GreatExpectationsError as error:
        raise BrokenCheckError(
            f"Great Expectations could not check {run_name}: {error}. Nothing is known about the "
            "data and nothing was ingested; the defect is in the check, not in the data"
        ) from error
    return results


@cache
def _frame_definition(suite_name: str) -> Any:
    """Return what takes the frame of a suite: once a process, since making it takes its time."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(
        globally=False, metric_calculations=False
    )
    asset = context.data_sources.add_pandas(suite_name).add_dataframe_asset(suite_name)
    return asset.add_batch_definition_whole_dataframe("all")


def _result(rule: Rule, validation: Any, frame: pd.DataFrame) -> CheckResult:
    error = "no result came back" if validation is None else _exception(validation.exception_info)
    status: Literal["passed", "failed", "broken"] = "broken"
    observed = ""
    if not error:
        status = "passed" if validation.success else "failed"
        observed = _observed(rule, validation.result, frame)
    return CheckResult(
        suite=rule.suite,
        rule=rule.name,
        status=status,
        observed=observed,
        threshold=rule.threshold,
        column=rule.column,
        detail=error,
    )


def _observed(rule: Rule, counts: Mapping[str, Any], frame: pd.DataFrame) -> str:
    if rule.suite == ROWS:
        return f"{counts['unexpected_count']} of {counts['element_count']} rows"
    value = frame[rule.column].iloc[0]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _exception(info: Any) -> str | None:
    """Find the exception in what Great Expectations reports: flat, or one entry per metric."""
    if not isinstance(info, dict):
        return None
    entries = [info, *(value for value in info.values() if isinstance(value, dict))]
    for entry in entries:
        if entry.get("raised_exception") is True:
            return str(entry.get("exception_message"))
    return None


def _great_expectations() -> Any:
    """Import it, only when needed since it is slow; turn off its telemetry and its messages."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    import great_expectations.exceptions

    # This one module sets a level of its own when it is imported.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    return gx
