"""The app, and what several commands share: options, NAME=VALUE words, exit codes."""

from __future__ import annotations

import os
import sys
import tomllib
import uuid
from datetime import datetime
from traceback import clear_frames
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import duckdb
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from recsys.errors import ConfigurationError, RecsysError
from recsys.signals import exit_on_signals
from recsys.terminal import Format, print_line

if TYPE_CHECKING:
    from recsys.settings import AsOf

app = typer.Typer(
    name="recsys",
    help="Nightly batch recommendations: interactions in, every user's top-K out, read with SQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting; may be repeated."),
]
RunDate = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Day the lists are for; today by default."),
]
AsOfText = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="Use what was ingested before this time, such as 2026-01-31T06:00; now for all. "
        "By default the end of a day that is over.",
    ),
]
ReplaceWhy = Annotated[
    str | None,
    typer.Option(
        "--replace",
        metavar="WHY",
        help="Publish another edition over lists that stand, for this reason.",
    ),
]
Shown = Annotated[Format, typer.Option("--format", "-f", help="How rows are shown.")]


@app.callback()
def _common(
    lake: Annotated[
        str | None,
        typer.Option(help="Root of the tables: a folder or s3://bucket/prefix. [RECSYS_LAKE]"),
    ] = None,
) -> None:
    if lake is not None:
        os.environ["RECSYS_LAKE"] = lake


def name_value_pairs(words: list[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE words as a dict.

    Raises:
        ConfigurationError: a word without =, or one name twice.
    """
    pairs = {}
    for item in words or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError(f"{item!r} should read NAME=VALUE")
        if name.strip() in pairs:
            raise ConfigurationError(f"{name.strip()!r} is given twice; give it once")
        pairs[name.strip()] = value
    return pairs


def read_as_of(text: str | None) -> AsOf | None:
    """Return a time as it was typed.

    Raises:
        ConfigurationError: it is not a time.
    """
    if text is None or text == "now":
        return text  # type: ignore[return-value]  # mypy does not narrow to the literal
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"--as-of {text!r} should be now, or a time such as 2026-01-31 or 2026-01-31T06:00"
        ) from None


def new_run_id() -> str:
    """Return the id of a run that begins."""
    return str(uuid.uuid4())


def run_app() -> NoReturn:
    """Run the command line. Exit code: 0 done, 1 refused (data, gate), 2 usage, 128 + n signal."""
    try:
        with exit_on_signals():
            app(standalone_mode=True)
    except ValidationError as error:
        _refuse(_explanation(error), ConfigurationError.exit_code)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, SettingsError) as error:
        _refuse(f"the settings can't be read: {error}", ConfigurationError.exit_code)
    except RecsysError as error:
        clear_frames(error.__traceback__)
        _refuse(str(error), error.exit_code)
    except (duckdb.Error, OSError) as error:
        from recsys.lake.engine import first_line  # here: a command that fails has time

        _refuse(f"{type(error).__name__}: {first_line(error)}", RecsysError.exit_code)
    sys.exit(0)


def _refuse(text: str, code: int) -> NoReturn:
    print_line(f"recsys: {text}")
    sys.exit(code)


def _explanation(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "it"
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return f"{error.title} is not valid: " + "; ".join(lines)
