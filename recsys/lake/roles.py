"""What each interaction is for, by `[events]`: to be predicted, to be read, to count as had."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sql import load

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

    from recsys.settings import Events

ROLES = 8
"""Combinations of the roles of `recsys.histories`: a code is so many times the item's, plus one."""


@dataclass(frozen=True)
class Roles:
    """What decides the roles of an interaction.

    Attributes:
        events: the settings.
        seen_since: interactions before it don't count as had; None for no such bound.
        with_seconds: whether the times of interactions are packed, too.
    """

    events: Events
    seen_since: datetime | None = None
    with_seconds: bool = False

    @classmethod
    def of(cls, events: Events) -> Roles | None:
        """Return the roles that training and its judges need; None where all are for everything."""
        if not events.is_set:
            return None
        return cls(events, with_seconds=events.seen_window is not None)

    @classmethod
    def until(cls, events: Events, until: datetime) -> Roles | None:
        """Return the roles for lists that know what happened before a time."""
        roles, window = cls.of(events), events.seen_window
        return (
            replace(roles, seen_since=until - window, with_seconds=False)
            if roles and window
            else roles
        )

    @property
    def depend_on_time(self) -> bool:
        """Whether an interaction's roles, or what is asked of it, are of one night only."""
        return self.seen_since is not None or self.with_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return what decides the roles, as JSON holds it."""
        return self.events.model_dump(mode="json")

    def create_macro(self, con: duckdb.DuckDBPyConnection) -> None:
        """Give ``con`` the macro ``roles_of``; see sql/packing/create_roles.sql."""
        events = self.events
        variables = {
            "target_events": events.targets,
            "context_events": events.context,
            "seen_events": events.seen_events,
            "min_value": events.min_value,
            "seen_since": self.seen_since,
        }
        for name, value in variables.items():
            bound = list(value) if isinstance(value, tuple) else value
            con.execute(f"set variable {name} = $1", [bound])
        con.execute(load("packing/create_roles"))
