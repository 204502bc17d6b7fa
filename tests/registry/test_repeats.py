"""What a training tells of repeats, and advises."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.results import Protocol
from recsys.evaluation.splits import leave_one_out
from recsys.histories import HAD, INPUT, TARGET, Histories
from recsys.registry.repeats import advice, repeat_share
from tests.worlds import pack


def test_a_repeat_is_a_last_item_that_the_user_had_before() -> None:
    histories = pack([[1, 2, 1, 1], [3, 4], [5, 5], [6, 7, 6]])
    assert repeat_share(leave_one_out(histories).test) == 0.75
    roles = np.full(len(histories.items), TARGET | INPUT | HAD, np.uint8)
    roles[[0, 2]] = TARGET | INPUT  # user 0 did not buy item 1 before
    with_roles = Histories(histories.items, histories.starts, histories.ends, roles)
    assert repeat_share(leave_one_out(with_roles).test) == 0.5


@pytest.mark.parametrize(
    ("share", "protocol", "told"),
    [(0.886, "masked", "89%"), (0.9, "unmasked", ""), (0.09, "masked", "")],
)
def test_advice_names_the_setting_where_it_would_help(
    share: float, protocol: Protocol, told: str
) -> None:
    text = advice(share, protocol) or ""
    assert text[:3] == told
    assert ('recommending.seen = "include"' in text) == bool(told)
