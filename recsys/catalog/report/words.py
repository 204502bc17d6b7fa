"""Figures as a person reads them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

NONE = "\u2013"
"""What stands where there is no figure."""


def count(number: float | None) -> str:
    """Return e.g. ``1,234``; a dash for nothing."""
    return NONE if number is None else f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """Return e.g. ``1 list`` or ``1,234 lists``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def times(number: int) -> str:
    """Return e.g. ``once`` or ``1,234 times``."""
    return "once" if number == 1 else f"{number:,} times"


def percent(share: float | None) -> str:
    """Return e.g. ``12 %`` or ``0.4 %``; never 0 or 100 for what is not."""
    if share is None:
        return NONE
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    if abs(value) < 0.1:
        return "under 0.1 %"
    if abs(value) < 10 or 99 < value < 100:
        return f"{value:.1f} %" if value < 99.95 else "over 99.9 %"
    return f"{value:.0f} %"


def day(value: date | datetime | None) -> str:
    """Return e.g. ``27 November 2026``."""
    return NONE if value is None else f"{value.day} {value:%B %Y}"


def date_of(value: date | datetime | None) -> str:
    """Return e.g. ``2026-11-27``."""
    return NONE if value is None else f"{value:%Y-%m-%d}"


def time(value: datetime | None) -> str:
    """Return e.g. ``2026-11-27 02:10``, in UTC."""
    return NONE if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"


def shown(value: object) -> str:
    """Return a text of the data's; what would move a cursor or turn the line is spelled out."""
    text = NONE if value is None else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def first_line(error: str | None) -> str:
    """Return what a run says of its end; sample rows of a refused batch stay out of the page."""
    return shown((error or "").partition("\n")[0][:300])


def score(value: float | None) -> str:
    """Return a score in few digits."""
    return NONE if value is None else f"{value:.3f}"


def short(number: float) -> str:
    """Return e.g. ``950``, ``12k`` or ``3.4M``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f}".removesuffix(".0") + unit
    return f"{number:.0f}"


def is_link(value: object) -> bool:
    """Say whether a text of the data's is an address that a page may link to."""
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s\"'<>]+", value) is not None
