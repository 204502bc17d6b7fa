"""Ids that a person writes as text, in the type that they have in the lake."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from recsys.lake.tables import Lake


def typed_id(lake: Lake, table: str, name: str, text: str) -> int | str:
    """Return an id as the column ``name`` of a table has it.

    Raises:
        ConfigurationError: the column holds integers, and this is not how one of them is written.
    """
    is_integer = not pa.types.is_string(lake.schema(table).field(name).type)
    return read_id(name, text, is_integer=is_integer)


def read_id(name: str, text: str, *, is_integer: bool) -> int | str:
    """Return an id of the column ``name``, which holds integers or text.

    Raises:
        ConfigurationError: it holds integers, and this is not how one of them is written.
    """
    if not is_integer:
        return text
    if not re.fullmatch(r"0|-?[1-9]\d{0,18}", text) or not -(2**63) <= int(text) < 2**63:
        raise ConfigurationError(f"{name} is an integer in this lake, and {text!r} is not one")
    return int(text)
