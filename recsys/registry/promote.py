"""Who serves: the one place that changes the champion, by the gate or by a person's decision.

Each change is one commit of `models` and, right after it, a row of `promotions`;
`recsys.registry.promotions` says what a kill between the two leaves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from recsys import columns
from recsys.account import current_account
from recsys.errors import ConfigurationError, LakeError
from recsys.registry.models import load_model, model_rows
from recsys.registry.promotions import (
    Promotion,
    champion_before,
    promotions,
    record,
    record_missing,
)

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.registry.models import ModelRow
    from recsys.registry.promotions import Action


@dataclass(frozen=True)
class PromotionResult:
    """The result of a promotion or a rollback.

    Attributes:
        status: "changed", or "unchanged" where the model serves already.
        model_id: the model that serves now; None where popularity does alone.
        previous_model_id: the champion before; the same where nothing changed.
        who: the account that did it.
        why: the reason that was given.
    """

    status: Literal["changed", "unchanged"]
    model_id: str | None
    previous_model_id: str | None
    who: str
    why: str

    @property
    def sentence(self) -> str:
        """Say who serves now, and how to undo it."""
        now = self.model_id or "popularity alone"
        if self.status == "unchanged":
            return f"{now} serves already; nothing was changed"
        undo = f"; to undo it: recsys models promote {self.previous_model_id} --why ..."
        before = f", in place of {self.previous_model_id}{undo}" if self.previous_model_id else ""
        return f"{now} serves from the next lists on{before}"


def register_model(
    lake: Lake,
    row: ModelRow,
    judged_against: str | None = None,
    *,
    run_id: str | None = None,
    at: datetime | None = None,
) -> None:
    """Write a model's row; where it is the champion, retire the one before in the same commit.

    Args:
        lake: where to.
        row: the model.
        judged_against: the id of the champion that the gate compared it with; None where there
            was none.
        run_id: of the run that trained it, for `promotions`.
        at: when it is trained, for `promotions`; now by default.

    Raises:
        LakeError: a table can't be read or written, or another run has made another model the
            champion meanwhile; then nothing has changed.
    """
    if row.status != "champion":
        _write(lake, [row])
        return
    lake.refresh()  # a training takes long, and on S3 nothing keeps other runs out
    champion = _champion(model_rows(lake))
    if champion and champion.model_id == row.model_id:  # its files were made again
        _write(lake, [row])
        return
    if champion and champion.model_id != judged_against:
        raise LakeError(
            f"model {row.model_id} was compared with {judged_against or 'no champion'}, but "
            f"another run has made {champion.model_id} the champion meanwhile; run "
            "`recsys train` again",
            transient=True,
        )
    _change(lake, row, champion, "gate", row.why, run_id, at)


def promote(lake: Lake, model_id: str, *, why: str, run_id: str) -> PromotionResult:
    """Let a model serve, whatever the gate said of it.

    A run that is tried again does it once.

    Raises:
        ConfigurationError: there is no such model, or no reason.
        UnusableModelError: it can't serve.
        LakeError: the lake can't be read or written.
    """
    _check_reason(why)
    lake.refresh()
    models = model_rows(lake)
    row = next((row for row in models if row.model_id == model_id), None)
    if row is None:
        raise ConfigurationError(f"there is no model {model_id!r}; `recsys models` lists them all")
    champion = _champion(models)
    if row == champion:
        # A run that was killed may have made it the champion.
        done = _done_before(record_missing(lake), run_id, why)
        return done or PromotionResult("unchanged", model_id, model_id, current_account(), why)
    load_model(lake, row)
    row = replace(row, status="champion", why=f"{row.why}; promoted: {why}")
    return _change(lake, row, champion, "promote", why, run_id)


def rollback(lake: Lake, *, why: str, run_id: str) -> PromotionResult:
    """Let the champion before serve again; popularity where there was none.

    It takes the newest promotion back, so that a second rollback goes back one further. A run that
    is tried again does it once. `promote` undoes it.

    Raises:
        ConfigurationError: no model serves, or there is no reason.
        UnusableModelError: the champion before can't serve.
        LakeError: the lake can't be read or written.
    """
    _check_reason(why)
    lake.refresh()
    history, models = promotions(lake), model_rows(lake)
    if done := _done_before(history, run_id, why):
        record_missing(lake)
        return done
    champion = _champion(models)
    if champion is None:
        raise ConfigurationError("no model serves, so there is nothing to roll back")
    target = champion_before(history)
    row = next((row for row in models if row.model_id == target), None)
    if target and row is None:
        raise ConfigurationError(
            f"the champion before, {target}, is not in `models` any more; choose another with "
            "`recsys models promote`"
        )
    if row:
        load_model(lake, row)
        row = replace(row, status="champion", why=f"{row.why}; rolled back to: {why}")
    return _change(lake, row, champion, "rollback", why, run_id)


def _done_before(history: list[Promotion], run_id: str, why: str) -> PromotionResult | None:
    """Return what a run that is tried again did before it was killed; None where it did nothing."""
    if not history or history[-1].run_id != run_id:
        return None
    done = history[-1]
    return PromotionResult("changed", done.model_id, done.previous_model_id, current_account(), why)


def _check_reason(why: str) -> None:
    if not why.strip():
        raise ConfigurationError("say why: the reason is kept in `promotions`")


def _champion(models: list[ModelRow]) -> ModelRow | None:
    return next((row for row in models if row.status == "champion"), None)


def _change(
    lake: Lake,
    row: ModelRow | None,
    champion: ModelRow | None,
    action: Action,
    why: str,
    run_id: str | None,
    at: datetime | None = None,
) -> PromotionResult:
    """Make ``row`` the champion in place of another, and record it."""
    history = record_missing(lake)
    when = at or datetime.now(UTC)
    if history and at is None:  # a clock that went back does not change which change came last
        when = max(when, history[-1].promoted_at + timedelta(microseconds=1))
    model_id = row.model_id if row else None
    previous = champion.model_id if champion else None
    who = current_account()
    promotion = Promotion(when, action, model_id, previous, who, why, run_id)
    by = model_id if action != "rollback" else f"a rollback: {why}"
    retired = [
        replace(before, status="retired", why=f"{before.why}; retired by {by}")
        for before in model_rows(lake)
        if before.status == "champion" and before.model_id != model_id
    ]
    _write(lake, [*([row] if row else []), *retired], promotion)
    record(lake, promotion)
    return PromotionResult("changed", model_id, previous, who, why)


def _write(lake: Lake, rows: list[ModelRow], promotion: Promotion | None = None) -> None:
    records = [asdict(row) for row in rows]
    table = pa.Table.from_pylist(records, schema=lake.schema(columns.MODELS))
    note = promotion.as_note() if promotion else None
    lake.upsert(columns.MODELS, table, on="model_id", note=note)
