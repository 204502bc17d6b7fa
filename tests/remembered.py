"""Checks by Great Expectations that are made once in a process for equal figures.

A check costs more than all the rest of a small ingest, and most tests ingest the same few rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.ingest import contract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pytest

    from recsys.ingest.contract import Rule
    from recsys.lake.check_results import CheckResult


def remember_checks(patch: pytest.MonkeyPatch) -> None:
    """Let an ingest of this process take the results of an equal check that was made before."""
    evaluate = contract.evaluate_contract
    known: dict[str, list[CheckResult]] = {}

    def remembered(
        rules: Sequence[Rule], frames: Mapping[str, pd.DataFrame], run_name: str
    ) -> list[CheckResult]:
        equal = repr([rules, [(n, dict(f.dtypes), f.to_dict("list")) for n, f in frames.items()]])
        if equal not in known:
            known[equal] = evaluate(rules, frames, run_name)
        return [*known[equal]]

    patch.setattr(contract, "evaluate_contract", remembered)
