"""Write docs/reference: pages made from the code, so that they say what the code does.

`python -m docs.generate` writes them; tests/test_docs.py fails when a page is stale.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import tempfile
import textwrap
import typing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import duckdb
import pyarrow as pa
import typer
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from flows import cli
from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import fetch_catalog
from recsys.catalog.views import VIEWS
from recsys.lake.schemas import COUNT, FILES, REAL, TABLES, TEXT, TIMESTAMP, Column
from recsys.lake.tables import Lake
from recsys.model import config
from recsys.model.presets import PRESETS
from recsys.settings import ObjectStorage, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic.fields import FieldInfo

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by `python -m docs.generate`. Change the code it is made from, not this page. -->"


def tables() -> str:
    """Return the page of all tables and views with their columns."""
    text = [
        MADE,
        "# Tables",
        "Every table is a Delta table in the lake. `catalog.duckdb` shows all of them as views of "
        "the same name, and adds some of its own. `user_id` and `item_id` have the type that your "
        "source gives them: integer or text.",
        "The same sentences are comments in the catalog: "
        '`recsys sql "select column_name, comment from duckdb_columns() '
        "where table_name = 'recommendations'\"`.",
        "## Tables of the lake",
    ]
    for table in TABLES.values():
        text += [f"### {table.name}", table.meaning]
        if table.partitions:
            text += [f"Partitioned by `{', '.join(table.partitions)}`."]
        rows = [
            (
                f"`{column.name}`",
                _arrow_type(column) + (", never null" if column.required else ""),
                column.meaning,
            )
            for column in table.columns
        ]
        text += [_table(("column", "type", "meaning"), rows)]
    text += ["## Views of the catalog"]
    types = _catalog_types()
    for view in VIEWS.values():
        rows = [
            (f"`{name}`", types[view.name, name], meaning) for name, meaning in view.columns.items()
        ]
        text += [f"### {view.name}", view.meaning, _table(("column", "type", "meaning"), rows)]
    return _page(text)


def _catalog_types() -> dict[tuple[str, str], str]:
    """Return (view, column) -> type, read from the catalog of an empty lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder, ObjectStorage())
        lake.create(pa.int64(), pa.int64())
        publish_catalog(lake)
        with duckdb.connect(str(fetch_catalog(lake, Path(folder))), read_only=True) as catalog:
            rows = catalog.execute(
                "select table_name, column_name, data_type from duckdb_columns() where not internal"
            ).fetchall()
    return {
        (view, column): "integer or text" if column in _IDS else _DUCKDB_TYPES.get(kind, _FILES)
        for view, column, kind in rows
    }


def settings() -> str:
    """Return the page of everything that can be set."""
    text = [
        MADE,
        "# Settings",
        "Settings come from three places. Arguments of a command come first, then `RECSYS_*` "
        "environment variables, then `recsys.toml` in the folder where the command is started.",
        "A setting in a TOML table has a variable with two underscores: `s3.endpoint_url` is "
        "`RECSYS_S3__ENDPOINT_URL`. A variable may also hold a whole table as JSON: "
        "`RECSYS_TRAINING='{\"epochs\": 5}'`.",
    ]
    models = {name: _model_of(field.annotation) for name, field in Settings.model_fields.items()}
    general = [
        _setting(name, field) for name, field in Settings.model_fields.items() if not models[name]
    ]
    text += ["## General", _table(_SETTING_HEAD, general)]
    for name, model in models.items():
        if model:
            is_list = _is_list(Settings.model_fields[name].annotation)
            text += _settings_table(name, model, is_list=is_list)
    return _page([*text, *_preset_parts()])


def _settings_table(name: str, model: type[BaseModel], *, is_list: bool = False) -> list[str]:
    """Return the part about one TOML table, or a list of them, and about the tables in it."""
    inner = {name: _model_of(field.annotation) for name, field in model.model_fields.items()}
    rows = [_setting(key, field) for key, field in model.model_fields.items() if not inner[key]]
    heading = f"## [[{name}]]" if is_list else f"## [{name}]"
    text = [heading, _sentence(inspect.cleandoc(model.__doc__ or ""))]
    text += [_table(_SETTING_HEAD, rows)]
    for key, table in inner.items():
        is_list = _is_list(model.model_fields[key].annotation)
        text += _settings_table(f"{name}.{key}", table, is_list=is_list) if table else []
    return text


def _preset_parts() -> list[str]:
    """Return the part of the settings page about the fields of a preset."""
    text = [
        "## Fields of a preset",
        "A preset sets these fields for you (see [the presets](../model.md#the-presets)). Change "
        "single ones with `recsys train --set NAME=VALUE`, or for every training in `recsys.toml`:",
        "```toml\n[training]\noverrides = { width = 128, dropout = 0.2 }\n```",
        "The table shows the value that the preset `best` has.",
    ]
    best = PRESETS["best"]
    head = ("field", "`best`", "takes", "meaning")
    fields = {
        **_preset_fields(best.model, best.auto_fields),
        **_preset_fields(best.training, best.auto_fields),
    }
    for title, values in (("The network", best.model), ("The training", best.training)):
        names = [field.name for field in dataclasses.fields(values)]
        rows = [fields[name] for name in names if name not in config.RESEARCH_FIELDS]
        text += [f"### {title}", _table(head, rows)]
    text += [
        "### Fields for experiments",
        "No preset changes these, and no trial found a better value. You can leave them as they "
        "are. The [experiment log](../experiment-log.md) has the trials.",
        _table(head, [row for name, row in fields.items() if name in config.RESEARCH_FIELDS]),
    ]
    return text


def commands() -> str:
    """Return the page of all commands with their arguments and options."""
    app: Any = cli.app  # type: ignore[attr-defined]  # its commands are typer's own, untyped
    text = [
        MADE,
        "# Commands",
        app.info.help,
        "Exit codes: 0 done, 1 refused (by a check of the data, or by the gate), 2 wrong usage or "
        "settings, 128 + n stopped by signal n (130 after Ctrl-C, 143 after SIGTERM).",
        "Options of `recsys` itself stand before the command: `recsys --lake demo/lake models`.",
        _options(list(_parameters(app.registered_callback.callback))),
    ]
    for name, callback in sorted(_commands(app, "recsys")):
        parameters = list(_parameters(callback))
        words = [parameter.usage.replace(" ", "\0") for parameter in parameters]
        usage = " ".join([name, *words])
        text += [f"## {name}", _prose(callback.__doc__)]
        usage = textwrap.fill(usage, 88, subsequent_indent="    ", break_on_hyphens=False)
        text += [f"```\n{usage}\n```".replace("\0", " "), _options(parameters)]
    return _page(text)


def _commands(app: Any, name: str) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield every command with its full name: ``recsys models show``."""
    for command in app.registered_commands:
        yield f"{name} {_name(command.callback)}", command.callback
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner.registered_callback:
            yield f"{name} {group.name}", inner.registered_callback.callback
        yield from _commands(inner, f"{name} {group.name}")


PAGES: dict[str, Callable[[], str]] = {
    "tables.md": tables,
    "settings.md": settings,
    "commands.md": commands,
}

_WIDEST = (2**31 - 1, 2**63 - 1, 2**63)  # what fits into a field; nobody chooses it
_IDS = ("user_id", "item_id")
_FILES = "list of key, etag, size"
_ARROW_TYPES = {
    TEXT: "text",
    COUNT: "integer",
    pa.int32(): "integer",
    REAL: "number",
    pa.float32(): "number",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    TIMESTAMP: "timestamp",
    pa.list_(TEXT): "list of text",
    FILES: _FILES,
}
_DUCKDB_TYPES = {
    "VARCHAR": "text",
    "BIGINT": "integer",
    "INTEGER": "integer",
    "DOUBLE": "number",
    "FLOAT": "number",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "VARCHAR[]": "list of text",
}
_SETTING_HEAD = ("setting", "default", "takes", "meaning")


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _arrow_type(column: Column) -> str:
    return "integer or text" if isinstance(column.type, str) else _ARROW_TYPES[column.type]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _is_list(annotation: Any) -> bool:
    parts = [getattr(kind, "__origin__", kind) for kind in (annotation, *get_args(annotation))]
    return any(get_origin(kind) is tuple or kind is tuple for kind in (annotation, *parts))


def _setting(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    return f"`{name}`", _default(field), _allowed(field), _sentence(field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, {}, (), PydanticUndefined) else f"`{_literal(value)}`"


def _literal(value: Any) -> str:
    if isinstance(value, timedelta):
        return f'"{TypeAdapter(timedelta).dump_python(value, mode="json")}"'
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _allowed(field: FieldInfo) -> str:
    kinds = list(get_args(field.annotation) or (field.annotation,))
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{_literal(choice)}`" for choice in get_args(field.annotation))
    if get_origin(field.annotation) is dict:
        return "a table"
    if _is_list(field.annotation):
        return "a list of texts"
    metadata = [*field.metadata]
    for kind in kinds:
        for part in getattr(kind, "__metadata__", ()):
            metadata += getattr(part, "metadata", [part])
    bounds = [bound for part in metadata for bound in _bounds(part)]
    kinds = [getattr(kind, "__origin__", kind) for kind in kinds]
    names = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}
    names[timedelta] = 'a duration, e.g. `"30d"` or `"PT12H"`'
    name = next((names[kind] for kind in kinds if kind in names), "")
    return ", ".join([name, *bounds])


def _bounds(part: Any) -> Iterator[str]:
    for name, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        bound = getattr(part, name, None)
        if bound is not None and bound not in _WIDEST:
            yield f"{words} {_number(bound)}"


def _number(bound: Any) -> str:
    if isinstance(bound, timedelta):
        return f"{bound.days:,} days"
    return f"{bound:,}"


def _preset_fields(values: Any, auto_fields: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return name -> field, value in `best`, what it takes, and its meaning from the docstring."""
    rows: dict[str, tuple[str, ...]] = {}
    meanings = config.meanings(type(values))
    hints = typing.get_type_hints(type(values), vars(config))
    for field in dataclasses.fields(values):
        name, hint = field.name, hints[field.name]
        takes = {int: "integer", float: "number"}.get(hint, "")
        if get_origin(hint) is Literal:
            takes = ", ".join(f"`{choice}`" for choice in get_args(hint))
        value = "from the data" if name in auto_fields else f"`{getattr(values, name)}`"
        rows[name] = (f"`{name}`", value, takes, _sentence(meanings[name]))
    return rows


def _sentence(text: str) -> str:
    """Return a description as Markdown: single backticks, a capital at the start."""
    return re.sub("`+", "`", text[:1].upper() + text[1:])


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """An argument or an option of a command, as its signature has it."""

    names: tuple[str, ...]
    placeholder: str
    required: bool
    repeated: bool
    takes: str
    default: str
    meaning: str

    @property
    def usage(self) -> str:
        name = next((name for name in self.names if name.startswith("--")), self.names[0])
        many = "..." if self.repeated else ""
        if not name.startswith("-"):
            return f"{name}{many}" if self.required else f"[{name}{many}]"
        return f"[{name} {self.placeholder}]{many}"


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown: options and variables as code."""
    return re.sub(
        r"(?<![`\w-])(--[a-z-]+|PREFECT_[A-Z_]+|RECSYS_[A-Z_]+)(?!`)",
        r"`\1`",
        inspect.cleandoc(docstring),
    )


def _name(function: Any) -> str:
    return str(function.__name__).replace("_", "-")


def _parameters(function: Any) -> Iterator[_Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:
            continue
        kind, info = get_args(hints[name])[:2]
        repeated = list in (kind, get_origin(kind), *map(get_origin, get_args(kind)))
        default = parameter.default
        names = tuple(info.param_decls or ())
        if isinstance(info.default, str):  # typer's way to hold the first name given
            names = (info.default, *names)
        if isinstance(info, typer.models.ArgumentInfo):
            names = (name.upper(),)
        elif not any(word.startswith("--") for word in names):
            names = (f"--{name.replace('_', '-')}", *names)
        yield _Parameter(
            names,
            _placeholder(kind, info, name),
            required=default is inspect.Parameter.empty,
            repeated=repeated,
            takes="" if isinstance(info, typer.models.ArgumentInfo) else _takes(kind, info, name),
            default="" if default in (None, inspect.Parameter.empty) else f"`{default}`",
            meaning=_sentence(info.help or ""),
        )


def _choices(kind: Any) -> tuple[str, ...]:
    literals = (part for part in (kind, *get_args(kind)) if get_origin(part) is Literal)
    return next((get_args(part) for part in literals), ())


def _placeholder(kind: Any, info: Any, name: str) -> str:
    if info.formats:
        return "YYYY-MM-DD"
    if _choices(kind):
        return "|".join(_choices(kind))
    return info.metavar or ("NUMBER" if "int" in str(kind) else name.upper())


def _takes(kind: Any, info: Any, name: str) -> str:
    if _choices(kind):
        return ", ".join(f"`{choice}`" for choice in _choices(kind))
    text = f"`{_placeholder(kind, info, name)}`"
    if info.min is not None:
        text += f", at least {info.min}"
    if info.max is not None and info.max not in _WIDEST:
        text += f", at most {info.max:,}"
    return text


def _options(parameters: list[_Parameter]) -> str:
    rows = [
        (
            ", ".join(f"`{name}`" for name in parameter.names),
            parameter.takes,
            parameter.default,
            parameter.meaning,
        )
        for parameter in parameters
    ]
    return _table(("option", "takes", "default", "meaning"), rows) if rows else ""


def main() -> None:
    """Write every generated page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
