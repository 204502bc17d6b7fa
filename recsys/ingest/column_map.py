"""Which column of a source is which of ours, which are left over, and how a person is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LISTED = 50


@dataclass(frozen=True)
class ColumnMap:
    """What an ingest understood of a source's columns.

    Attributes:
        names: our column -> the source's, for those that the source has.
        unused: a column of the source that none of ours takes -> why, or nothing.
        notes: our column -> what its values were taken for, such as integers.
    """

    names: Mapping[str, str]
    unused: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: ColumnMap) -> ColumnMap:
        """Return the columns of two files of one source together."""
        names = {**self.names, **other.names}
        unused = {**self.unused, **other.unused}
        used = set(names.values())
        return ColumnMap(
            names,
            {column: why for column, why in unused.items() if column not in used},
            {**self.notes, **other.notes},
        )

    def without(self, ours: str, why: str) -> ColumnMap:
        """Return the map without one of our columns, for a reason."""
        names = dict(self.names)
        return ColumnMap(names, {**self.unused, names.pop(ours): why}, self.notes)

    def noted(self, notes: Mapping[str, str]) -> ColumnMap:
        """Return the map with more notes."""
        return ColumnMap(self.names, self.unused, {**self.notes, **notes})

    def explain(self, what: str, rows: int, ours: Sequence[str]) -> str:
        """Say in one line what was understood.

        Args:
            what: the table that the rows are for.
            rows: how many rows were read.
            ours: our columns, in the order to tell them.
        """
        parts = [f"{what}: {rows:,} rows"]
        if used := [self._explain_one(name) for name in ours if name in self.names]:
            parts.append(", ".join(used))
        if absent := [name for name in ours if name not in self.names]:
            parts.append(f"no {', '.join(absent)}")
        if self.unused:
            listed = [f"{name} ({why})" if why else name for name, why in self.unused.items()]
            more = f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else ""
            parts.append(f"not used: {', '.join(listed[:_LISTED])}{more}")
        return "; ".join(parts)

    def _explain_one(self, ours: str) -> str:
        theirs, note = self.names[ours], self.notes.get(ours)
        text = ours if theirs == ours else f"{ours} <- {theirs}"
        return f"{text} ({note})" if note else text


def resolve(
    mapping: Mapping[str, str],
    source_columns: Sequence[str],
    name: str,
    ours: Sequence[str] = (*columns.REQUIRED, *columns.OPTIONAL),
    required: Sequence[str] = columns.REQUIRED,
) -> ColumnMap:
    """Find our columns among those of a source.

    A name in the source's own spelling comes first; else one that differs in case alone, where
    there is one such column.

    Args:
        mapping: our column -> the source's, where their names differ; "" where it has none.
        source_columns: the columns of the source.
        name: the source's name in an error.
        ours: our columns.
        required: those of them that the source has to have.

    Raises:
        SourceError: a required or a mapped column is missing, or two columns could be it.
    """
    names: dict[str, str] = {}
    # Mapped columns first, so that no other column of ours takes one of them by its name.
    for column in sorted(ours, key=lambda column: column not in mapping):
        wanted = mapping.get(column, column)
        free = [theirs for theirs in source_columns if theirs not in names.values()]
        found = [theirs for theirs in free if theirs == wanted] or [
            theirs for theirs in free if theirs.casefold() == wanted.casefold()
        ]
        is_needed = column in required or mapping.get(column)
        if len(set(found)) == 1:
            names[column] = found[0]
        elif found and is_needed:
            raise SourceError(
                f"{name} has the columns {', '.join(map(repr, found))}, which differ in case "
                f"alone: say which one is {column}, e.g. {column}={found[0]}"
            )
        elif is_needed:
            raise SourceError(_missing(column, wanted, mapping, source_columns, name))
    unused = {theirs: "" for theirs in source_columns if theirs not in names.values()}
    return ColumnMap({column: names[column] for column in ours if column in names}, unused)


def _missing(
    column: str, wanted: str, mapping: Mapping[str, str], source_columns: Sequence[str], name: str
) -> str:
    listed = ", ".join(source_columns[:_LISTED]) or "none"
    if column in mapping:
        hint = f"the mapping says {column}={wanted}"
    else:
        hint = f"map it, e.g. {column}=<one of them>"
    return f"{name} has no column {wanted!r}; it has {listed}; {hint}"
