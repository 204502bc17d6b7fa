"""What `[rules]` say of each item: conditions and columns in SQL on `items`, asked in a sandbox."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.histories import PADDING
from recsys.lake.engine import first_line, open_duckdb
from recsys.lists.rules import ListRules
from sql import literal, load, quote

if TYPE_CHECKING:
    from datetime import date

    from numpy.typing import NDArray

    from recsys.histories import ItemIds
    from recsys.lake.tables import Lake
    from recsys.settings import Rules, Settings


@dataclass(frozen=True)
class RuledItems:
    """What the rules say of each row of `items`.

    Attributes:
        rules: the settings.
        table: item_id, then a column a condition (whether it holds) and one a column of a cap.
    """

    rules: Rules
    table: pa.Table

    def of(self, items: ItemIds) -> ListRules:
        """Return the rules over the indices of items; an item without a row meets no condition."""
        index = items.indices_of(self.table[columns.ITEM_ID].combine_chunks())
        size = len(items) + 1

        def holds(place: str) -> NDArray[np.bool_]:
            mask = np.zeros(size, dtype=bool)
            mask[index[self.table[place].to_numpy().astype(bool)]] = True
            mask[PADDING] = False
            return mask

        def codes(column: str) -> NDArray[np.int32]:
            values = self.table[_value_of(column)].combine_chunks().dictionary_encode()
            coded = np.full(size, -1, dtype=np.int32)
            coded[index] = values.indices.fill_null(-1).to_numpy()
            coded[PADDING] = -1
            return coded

        rules = self.rules
        pins = np.zeros(size, dtype=np.int32)
        for nth in reversed(range(len(rules.pins))):
            pins[holds(f"rules.pins[{nth}]")] = nth + 1
        boost = np.zeros(size, dtype=np.float32)
        for nth, each in enumerate(rules.boosts):
            boost[holds(f"rules.boosts[{nth}].when")] += np.log(each.factor)
        return ListRules(
            shown=holds("rules.show_only") if rules.show_only else np.ones(size, dtype=bool),
            pins=pins,
            boost=boost,
            caps={name: (codes(name), most) for name, most in rules.max_per.items()},
            diversity=(codes(rules.diversity_by), rules.diversity) if rules.diversity else None,
        )

    def caps(self) -> pa.Table | None:
        """Return item_id, name, value and most, a row per item and cap; None without caps."""
        parts = [
            pa.table(
                {
                    columns.ITEM_ID: self.table[columns.ITEM_ID],
                    "name": pa.repeat(name, len(self.table)),
                    "value": self.table[_value_of(name)],
                    "most": pa.repeat(most, len(self.table)),
                }
            ).filter(pc.is_valid(pc.field("value")))
            for name, most in self.rules.max_per.items()
        ]
        return pa.concat_tables(parts) if parts else None


def evaluate_rules(
    lake: Lake, settings: Settings, items_version: int, run_date: date
) -> RuledItems | None:
    """Ask each condition of the rules of each row of `items`; None where there are no rules.

    Conditions run in a DuckDB that sees nothing but that table: no file, no network, no setting.

    Raises:
        ConfigurationError: a condition is not one, or a column does not exist.
        LakeError: `items` can't be read.
    """
    rules = settings.rules
    if not rules.is_set:
        return None
    with open_duckdb(settings) as con:
        lake.view(con, columns.ITEMS, items_version)
        stored = con.sql("from items").to_arrow_table()
    columns_asked = [*rules.max_per, *([rules.diversity_by] if rules.diversity else [])]
    with open_duckdb(settings) as con:
        _create_items(con, stored, run_date)
        table = con.sql("select item_id from items order by item_id").to_arrow_table()
        for place, when in rules.conditions.items():
            _require_condition(con, place, when)
            holds = f"coalesce(cast(({when}\n) as boolean), false)"
            answers = _answers(con, holds, _told(place, when))
            table = table.append_column(place, answers)
        for name in dict.fromkeys(columns_asked):
            told = _told("a column of [rules]", name)
            answers = _answers(con, f"cast({quote(name)} as varchar)", told)
            table = table.append_column(_value_of(name), answers)
    return RuledItems(rules, table)


def _create_items(con: duckdb.DuckDBPyConnection, stored: pa.Table, run_date: date) -> None:
    """Make the table ``items`` with what ``extra`` holds as columns; nothing else can be read."""
    con.register("stored", stored)
    con.execute("create temp table stored_items as from stored")
    con.unregister("stored")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")
    ((structure,),) = con.execute(load("lists/extra_structure")).fetchall()
    extra = ""
    if structure and structure.startswith("{"):
        extra = f", unnest(json_transform(cast(extra as json), {literal(structure)}))"
    con.execute(
        f"create temp table items as select * exclude (extra){extra}, "  # noqa: S608 - literals
        f"date {literal(run_date.isoformat())} as run_date from stored_items"
    )


def _require_condition(con: duckdb.DuckDBPyConnection, place: str, when: str) -> None:
    """Refuse what is more than one expression."""
    statement = f"select (\n{when}\n)"
    ((text,),) = con.execute("select json_serialize_sql($1::varchar)", [statement]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        raise ConfigurationError(f"{_told(place, when)}: {parsed['error_message']}")
    statements = parsed["statements"]
    if len(statements) != 1 or len(statements[0]["node"].get("select_list", [])) != 1:
        raise ConfigurationError(f"{_told(place, when)}: give one condition, such as price < 10")


def _answers(con: duckdb.DuckDBPyConnection, expression: str, told: str) -> pa.ChunkedArray:
    """Return what an expression gives for each item; ``told`` says what it is."""
    try:
        statement = f"select {expression} as answer from items order by item_id"  # noqa: S608 - it is the user's own
        return con.sql(statement).to_arrow_table()["answer"]
    except duckdb.Error as error:
        names = ", ".join(con.sql("from items limit 0").columns)
        raise ConfigurationError(f"{told}: {first_line(error)}. The columns are {names}") from error


def _told(place: str, expression: str) -> str:
    return f"{place} = {expression!r} can't be asked of `items`"


def _value_of(column: str) -> str:
    return f"value of {column}"
