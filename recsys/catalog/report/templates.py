"""How templates of pages are read: with the words of the report, and nothing taken for HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from recsys.catalog.report import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import BaseLoader


def page_environment(loader: BaseLoader, embedded: Callable[[object], str | None]) -> Environment:
    """Return an environment in which every value is escaped, and one that is missing is an error.

    Args:
        loader: of the templates.
        embedded: gives the address of a picture that becomes a part of the page, or None.
    """
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for text in (words.count, words.percent, words.day, words.time, words.date_of, words.shown):
        environment.filters[text.__name__] = text
    more = {"first_line": words.first_line, "score": words.score, "times": words.times}
    environment.filters |= more
    environment.filters["embedded"] = embedded
    environment.tests["link"] = words.is_link
    return environment
