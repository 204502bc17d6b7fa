"""Commands that make and show models."""

from __future__ import annotations

import typer

from recsys.cli.common import Set, Shown, app, name_value_pairs, new_run_id
from recsys.settings import Settings
from recsys.terminal import bars, print_line, render_table


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
        result = retrain.train(run.lake, settings, training, progress=progress)
        run.record("train", result)
    print_line(f"{result.model_id}: {result.status}. {result.why}")
    if result.status == "rejected":
        raise typer.Exit(1)


@app.command()
def models(output: Shown = "table") -> None:
    """List the trained models, newest first, with their status and the reason for it."""
    import pyarrow as pa

    from recsys.lake.tables import Lake
    from recsys.registry.models import model_rows

    shown = ("model_id", "status", "preset", "validation_ndcg_10", "test_ndcg_10", "test_hr_10")
    rows = model_rows(Lake.from_settings(Settings()))
    if not rows:
        print_line("no model yet: run `recsys train`")
        return
    table = pa.Table.from_pylist(
        [{name: getattr(row, name) for name in (*shown, "trained_at", "why")} for row in rows]
    )
    typer.echo(render_table(table, output))
