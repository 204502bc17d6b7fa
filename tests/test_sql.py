"""Every statement says what it is, reads and makes; DuckDB's own parser checks that it is so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOMS = ("ingest", "packing", "registry", "lists", "operations", "benchmark", "report", "explore")
ROOT = Path(sql.__file__).parent
STATEMENTS = sorted(path for room in ROOMS for path in (ROOT / room).glob("*.sql"))
VERBS = {"create", "insert", "update", "delete"}

_CREATE = re.compile(
    r"create (?:or replace )?(?:temp )?(?P<kind>table|view|macro) (?P<name>[\w.]+)"
    r"\s*(?P<columns>\([^()]*\))?(?P<rest>.*)",
    re.DOTALL,
)
_INSERT = re.compile(r"insert into (?P<name>[\w.]+)\s+(?P<rest>.*)", re.DOTALL)
_UPDATE = re.compile(
    r"update (?P<name>[\w.]+)\s+set\b(?P<set>.*)^where\b(?P<where>.*)", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Contract:
    """What a statement reads (tables, macros, $parameters) and what it makes."""

    reads: tuple[str, ...]
    makes: str


def header(text: str) -> Contract:
    """Read the lines `-- reads:` and `-- makes:`, each of which may go on in indented comments."""
    fields = {"reads": "", "makes": ""}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"-- (reads|makes):(.*)", line):
            name = match[1]
            fields[name] = match[2]
        elif name and line.startswith("--    "):
            fields[name] += " " + line.removeprefix("--").strip()
        else:
            name = ""
    reads = tuple(re.split(r",\s*", fields["reads"].strip()))
    return Contract(() if reads == ("nothing",) else reads, fields["makes"].strip())


def parsed(text: str) -> Contract:
    """Say the same from the statement itself."""
    body = re.sub(r"--.*", "", text).strip()
    if match := _CREATE.match(body):
        kind, name, rest = match["kind"], match["name"], match["rest"].strip()
        if kind == "macro":
            return Contract(_reads(f"select {rest.removeprefix('as ')}"), f"macro {name}")
        if not rest:
            columns = re.findall(r"[\(,]\s*\"?(\w+)", match["columns"])
            return Contract((), f"{kind} {name} ({', '.join(columns)})")
        select = rest.removeprefix("as").strip()
        return Contract(_reads(select), f"{kind} {name} ({_columns(select)})")
    if match := _INSERT.match(body):
        return Contract(_reads(match["rest"]), f"rows of {match['name']}")
    if match := _UPDATE.match(body):
        # What it sets, `column = expression`, reads as a comparison in a select.
        select = f"select {match['set']} from {match['name']} where {match['where']}"
        return Contract(_reads(select), f"changes in {match['name']}")
    return Contract(_reads(body), f"rows ({_columns(body)})")


def _tree(select: str) -> dict[str, Any]:
    with duckdb.connect() as con:
        ((text,),) = con.execute("select json_serialize_sql(?::varchar)", [select]).fetchall()
    tree: dict[str, Any] = json.loads(text)
    assert not tree["error"], f"{tree.get('error_message')}: {select}"
    return tree


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Yield every JSON object within a tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    for child in tree if isinstance(tree, list) else ():
        yield from _nodes(child)


@cache
def _built_in() -> set[str]:
    with duckdb.connect() as con:
        rows = con.execute("select function_name from duckdb_functions()").fetchall()
    return {name for (name,) in rows}


def _reads(select: str) -> tuple[str, ...]:
    nodes = list(_nodes(_tree(select)))
    cte_maps = [node["cte_map"]["map"] for node in nodes if node.get("cte_map")]
    cte_names = {entry["key"] for cte_map in cte_maps for entry in cte_map}
    tables = {node["table_name"] for node in nodes if node.get("type") == "BASE_TABLE"}
    macros = {
        node["function_name"]
        for node in nodes
        if node.get("class") == "FUNCTION" and not node.get("is_operator")
    }
    parameters = {f"${node['identifier']}" for node in nodes if node.get("class") == "PARAMETER"}
    return tuple(sorted(tables - cte_names) + sorted(macros - _built_in()) + sorted(parameters))


def _columns(select: str) -> str:
    node = _tree(select)["statements"][0]["node"]
    while node["type"] == "SET_OPERATION_NODE":
        node = node["left"] or node["children"][0]
    return ", ".join(
        item["alias"] or ("*" if item["class"] == "STAR" else item["column_names"][-1])
        for item in node["select_list"]
    )


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_a_statement_says_what_it_reads_and_makes(path: Path) -> None:
    text = path.read_text()
    assert header(text) == parsed(text)


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_a_statement_says_its_grain_first(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    assert re.match(r"-- [A-Z]", first), "a sentence, not `-- reads:`"


@pytest.mark.parametrize("path", STATEMENTS, ids=name_of)
def test_a_statement_that_changes_state_is_named_by_a_verb(path: Path) -> None:
    with duckdb.connect() as con:
        (statement,) = con.extract_statements(path.read_text())
    kind = statement.type.name.lower()
    verb = path.stem.split("_")[0]
    assert verb == kind if kind in VERBS else verb not in VERBS


@pytest.mark.parametrize(
    ("header_line", "wrong"),
    [
        ("-- reads: pairs, as_item, $least", "-- reads: pair, as_item, $least"),
        ("-- reads: pairs, as_item, $least", "-- reads: pairs, as_item"),
        ("-- reads: pairs, as_item, $least", "-- reads: as_item, $least"),
        ("-- reads: pairs, as_item, $least", "-- reads: pairs, $least"),
        ("-- makes: table counts (item, users)", "-- makes: table count (item, users)"),
        ("-- makes: table counts (item, users)", "-- makes: view counts (item, users)"),
        ("-- makes: table counts (item, users)", "-- makes: table counts (item)"),
    ],
)
def test_a_wrong_header_is_found(header_line: str, wrong: str) -> None:
    text = (
        "-- One row per item.\n"
        "-- reads: pairs, as_item, $least\n"
        "-- makes: table counts (item, users)\n"
        "create temp table counts as\n"
        "with known as (select as_item(item_id) as item, user_id from pairs)\n"
        "select item, count(*) as users from known group by item having count(*) > $least"
    )
    assert header(text) == parsed(text)
    assert header_line in text
    changed = text.replace(header_line, wrong)
    assert header(changed) != parsed(changed)
