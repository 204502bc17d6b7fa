"""A few parameters of a test for every run; the others for `make test-long`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable


def sample(values: Iterable[Any], *places: int) -> list[Any]:
    """Parameters of a test; those at other places than these are long."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=() if place in places else pytest.mark.long,
        )
        for place, value in enumerate(values)
    ]
