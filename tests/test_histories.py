"""The map between the ids of items and their indices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.histories import ItemIds


@pytest.mark.parametrize("ids", [[30, 10, 20], ["x'", "", "🙂"]])
def test_ids_and_indices_are_each_others_inverse(ids: list[object]) -> None:
    items = ItemIds(pa.array(ids))
    indices = np.array([3, 1, 2, 3], dtype=np.int32)
    assert items.of_indices(indices).to_pylist() == [ids[2], ids[0], ids[1], ids[2]]
    assert items.indices_of(items.of_indices(indices)).tolist() == indices.tolist()
    assert items.indices_of(items.ids).dtype == np.int32


def test_padding_has_no_id_and_an_unknown_id_no_index() -> None:
    items = ItemIds(pa.array([30, 10]))
    with pytest.raises(IndexError):
        items.of_indices(np.array([1, 0]))
    assert items.indices_of(pa.array([10, 99, None])).tolist() == [2, 0, 0]


def test_a_map_to_other_ids_sends_what_they_lack_to_padding() -> None:
    items, other = ItemIds(pa.array(["a", "b", "c"])), ItemIds(pa.array(["c", "x", "a"]))
    assert items.index_map_to(other).tolist() == [0, 3, 0, 1]
    assert items.index_map_to(items).tolist() == [0, 1, 2, 3]


def test_ids_that_follow_others_leave_their_indices_alone() -> None:
    both = ItemIds(pa.array([5, 3])).followed_by(ItemIds(pa.array([9, 3, 1])))
    assert both.ids.to_pylist() == [5, 3, 9, 1]


def test_a_new_order_tells_where_every_index_went() -> None:
    items, index_map = ItemIds(pa.array([5, 3, 9])).reordered(np.array([2, 0, 1]))
    assert items.ids.to_pylist() == [9, 5, 3]
    assert index_map.tolist() == [0, 2, 3, 1]


def test_a_mask_over_indices_chooses_ids() -> None:
    items = ItemIds(pa.array([5, 3, 9]))
    assert items.where(np.array([True, True, False, True])).to_pylist() == [5, 9]
