"""Commands that make and show models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.common import Set, Shown, app, name_value_pairs, new_run_id
from recsys.errors import ConfigurationError
from recsys.settings import Settings
from recsys.terminal import bars, print_line, write_rows

if TYPE_CHECKING:
    from recsys.registry.models import ModelRow


@app.command()
def train(changes: Set = None) -> None:
    """Train on the lake's interactions; the model serves if it passes the gate.

    Exits with 1 when the gate rejects it; the previous champion goes on serving.

    --set takes preset, epochs, seed, tolerance, and every field of the preset
    (such as dropout or max_length).
    """
    from recsys.operations.runs import record_run
    from recsys.registry import retrain

    settings = Settings()
    training = settings.training.with_fields(name_value_pairs(changes))
    with (
        record_run("train", new_run_id(), settings, training.model_dump()) as run,
        bars() as progress,
    ):
        result = retrain.train(run.lake, settings, training, run_id=run.run_id, progress=progress)
        run.record("train", result)
        if result.status == "rejected":
            run.status = "rejected"
    print_line(f"{result.model_id}: {result.status}. {result.why}")
    if result.status == "rejected":
        raise typer.Exit(1)


models_app = typer.Typer(help="List the trained models, or change which of them serves.")
app.add_typer(models_app, name="models")
Why = Annotated[str, typer.Option(help="The reason; it is kept in the table promotions.")]


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, output: Shown = "table") -> None:
    """List the trained models, newest first, with their status and the reason for it."""
    if context.invoked_subcommand:
        return
    import pyarrow as pa

    from recsys.lake.tables import Lake
    from recsys.registry.models import model_rows

    shown = ("model_id", "status", "preset", "validation_ndcg_10", "test_ndcg_10", "test_hr_10")
    rows = model_rows(Lake.from_settings(Settings()))
    if not rows:
        print_line("no model yet: run `recsys train`")
        return
    table = pa.Table.from_pylist(
        [
            {
                **{name: getattr(row, name) for name in shown},
                "best_baseline": _best_baseline(row),
                **{name: getattr(row, name) for name in ("trained_at", "why")},
            }
            for row in rows
        ]
    )
    write_rows(table.to_reader(), output, sys.stdout)


def _best_baseline(row: ModelRow) -> str | None:
    """Return the best baseline and its test NDCG@10, to be read beside the model's own."""
    if (best := row.best_baseline()) is None:
        return None
    name, results = best
    return f"{name} {results.test.metrics(row.protocol)['ndcg@10']:.4f}"


@models_app.command()
def show(
    model_id: Annotated[str, typer.Argument(help="The model, as `recsys models` has it.")],
) -> None:
    """Show a model's card, and since when it serves or served."""
    from recsys.lake.tables import Lake
    from recsys.registry.models import find_model, read_card
    from recsys.registry.promotions import promotions

    lake = Lake.from_settings(Settings())
    row = find_model(lake, model_id)
    if row is None:
        raise ConfigurationError(f"there is no model {model_id!r}; `recsys models` lists them all")
    typer.echo(read_card(lake, model_id))
    typer.echo(f"Now **{row.status}**: {row.why}.")
    for change in promotions(lake):
        if model_id in (change.model_id, change.previous_model_id):
            verb = "serves from" if change.model_id == model_id else "served until"
            by = f", {change.who}" if change.who else ""
            since = f"{change.promoted_at:%Y-%m-%d %H:%M} UTC"
            typer.echo(f"- {verb} {since} ({change.action}{by}): {change.why}")


@models_app.command()
def promote(
    model_id: Annotated[str, typer.Argument(help="The model that is to serve.")], why: Why
) -> None:
    """Let a model serve from the next lists on, whatever the gate said of it."""
    from recsys.operations.runs import record_run
    from recsys.registry import promote as registry

    parameters = {"model_id": model_id, "why": why}
    with record_run("promote", new_run_id(), Settings(), parameters) as run:
        result = registry.promote(run.lake, model_id, why=why, run_id=run.run_id)
        run.record("promote", result)
    print_line(result.sentence)


@models_app.command()
def rollback(why: Why) -> None:
    """Let the champion before serve again from the next lists on; popularity where there was none.

    A second rollback goes back one champion further. `recsys models promote` undoes it.
    """
    from recsys.operations.runs import record_run
    from recsys.registry import promote as registry

    with record_run("rollback", new_run_id(), Settings(), {"why": why}) as run:
        result = registry.rollback(run.lake, why=why, run_id=run.run_id)
        run.record("rollback", result)
    print_line(result.sentence)
