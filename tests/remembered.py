"""What is made once in a process, and taken again by every test that would make the same.

Most tests ingest a few rows into a new lake. Checks by Great Expectations, and the empty tables,
cost more than all the rest of it.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.ingest import contract
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
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


def remember_tables(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a new local lake begin with a copy of the empty tables that another one began with."""
    create = Lake.create
    made: dict[tuple[pa.DataType, pa.DataType], Path] = {}

    def remembered(lake: Lake, user_id: pa.DataType, item_id: pa.DataType) -> None:
        ids = user_id, item_id
        if lake.is_local and not any(Path(lake.uri(table)).exists() for table in TABLES):
            if ids not in made:
                first = folder / str(len(made))
                create(Lake(str(first), lake.storage), *ids)
                made[ids] = first
            with suppress(OSError):  # what is amiss with its folder is said by `create`
                shutil.copytree(made[ids], lake.root, dirs_exist_ok=True)
        create(lake, *ids)

    patch.setattr(Lake, "create", remembered)
