"""Commands that compare models on files, without a lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recsys.cli.common import Set, app, name_value_pairs
from recsys.settings import MAX_SEED, Settings
from recsys.terminal import bars, print_line

if TYPE_CHECKING:
    from recsys.settings import Splitting


@app.command()
def benchmark(
    files: Annotated[list[Path], typer.Argument(help="Parquet of user_id, item_id, timestamp.")],
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:FIELD=VALUE,...]",
            help="A preset, or popularity, transitions or item-knn; may be repeated. [best]",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MAX_SEED, help="Seed of every random draw; may be repeated. [0]"),
    ] = None,
    split: Annotated[str, typer.Option(help="leave-one-out, or temporal.")] = "leave-one-out",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    changes: Set = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the results; a run with a result there is not repeated.")
    ] = Path("build/benchmark"),
) -> None:
    """Train and evaluate every preset on every file with every seed; no lake, no Prefect."""
    from recsys.benchmark.matrix import matrix
    from recsys.benchmark.run import System
    from recsys.lake.engine import Limits
    from recsys.model.runtime import Runtime

    settings, overrides = Settings(), name_value_pairs(changes)
    with bars() as progress:
        text = matrix(
            files,
            [System.read(name, overrides) for name in preset or ["best"]],
            seed or [0],
            out,
            runtime=Runtime(settings.device, settings.threads),
            splitting=cast("Splitting", split),
            jobs=jobs,
            limits=Limits(settings.memory_limit),
            progress=progress,
        )
    typer.echo(text)
    print_line(f"wrote {out}: a JSON file for each run, results.parquet, tables.md")
