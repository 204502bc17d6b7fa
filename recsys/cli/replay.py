"""The command that replays the past."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import TypeAdapter, ValidationError

from recsys.cli.common import AsOfText, app, name_value_pairs, new_run_id, read_as_of
from recsys.errors import ConfigurationError
from recsys.settings import Settings
from recsys.temporary import replace_file
from recsys.terminal import bars, print_line

if TYPE_CHECKING:
    from recsys.replay.replay import ReplayResult

_DAY = ["%Y-%m-%d"]


@app.command()
def replay(
    first: Annotated[datetime, typer.Option("--from", formats=_DAY, help="The first day.")],
    last: Annotated[datetime, typer.Option("--to", formats=_DAY, help="The last day.")],
    every: Annotated[str, typer.Option(help="How far one night is from the next.")] = "7d",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:FIELD=VALUE,...]",
            help="Settings to replay, the first is what others are compared with; may be repeated.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change one field of all of them."),
    ] = None,
    policy: Annotated[
        Literal["policy", "always", "never"], typer.Option(help="When a replayed night trains.")
    ] = "policy",
    as_of: AsOfText = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where nights work; `replayed` in the lake by default.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what nights made, for a longer replay.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of replay.md and replay.svg.")] = Path(
        "build/replay"
    ),
) -> None:
    """Replay nights of the past, each with what was known on its day, and compare settings.

    A FIELD is one of [recommending], such as k; training.NAME, such as training.epochs or a field
    of the preset; training.policy.NAME; or train, which is policy, always or never. Nothing that
    is served changes. The figures are in the table replays.
    """
    from recsys.operations.runs import record_run
    from recsys.replay.replay import days_of
    from recsys.replay.replay import replay as replay_variants
    from recsys.replay.variants import Variant

    settings, common = Settings(), name_value_pairs(changes)
    variants = [
        Variant.read(text, settings, common, policy) for text in setting or ["as configured"]
    ]
    days = days_of(settings, first.date(), last.date(), _duration(every))
    parameters = {"from": days[0], "to": days[-1], "settings": [one.name for one in variants]}
    with record_run("replay", new_run_id(), settings, parameters) as run, bars() as progress:
        result = replay_variants(
            run.lake,
            variants,
            days,
            as_of=read_as_of(as_of),
            folder=folder,
            keep=keep,
            progress=progress,
        )
        run.outcome["replay"] = {"replay_id": result.replay_id, "nights": result.nights}
    typer.echo(_write_pages(result, out))
    print_line(f"{result.replay_id} is in the table replays; wrote {out}: replay.md, replay.svg")


def _write_pages(result: ReplayResult, out: Path) -> str:
    """Write the table and the picture of a replay to a folder; return the table."""
    from recsys.replay.page import replay_picture, replay_table

    table = replay_table(result)
    for name, content in (("replay.md", table), ("replay.svg", replay_picture(result))):
        with replace_file((out / name).absolute()) as path:
            path.write_text(content, encoding="utf-8")
    return table


def _duration(text: str) -> timedelta:
    try:
        return TypeAdapter(timedelta).validate_python(text)
    except ValidationError:
        raise ConfigurationError(f"--every {text!r} should be whole days, such as 7d") from None
