"""Trained models: their files, their rows in `models`, and which of them is champion."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.errors import LakeError
from recsys.histories import ItemIds
from recsys.lake import object_store
from recsys.temporary import temporary_folder
from recsys.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.lake.tables import Lake
    from recsys.model.recommender import Recommender

Status = Literal["candidate", "champion", "retired", "rejected"]

# Not under `models/`: a Delta table lives there, whose vacuum deletes files it doesn't know.
_FOLDER = "weights"
_ITEMS = "items.parquet"
_TEXT = "model.md"


@dataclass(frozen=True)
class Model:
    """A trained model with the items it knows.

    Attributes:
        recommender: the network over the indices of ``items``.
        items: the ids of its V items.
        row: its row in `models`.
    """

    recommender: Recommender
    items: ItemIds
    row: dict[str, Any]

    @property
    def model_id(self) -> str:
        """The key of `models`."""
        return str(self.row["model_id"])


def model_rows(lake: Lake) -> list[dict[str, Any]]:
    """Return every row of `models`, newest first; none where the lake is still empty."""
    if not lake.exists(columns.MODELS):
        return []
    found: list[dict[str, Any]] = lake.open(columns.MODELS).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: (row["trained_at"], row["model_id"]), reverse=True)


def find_model(lake: Lake, model_id: str) -> dict[str, Any] | None:
    """Return the row of one model."""
    return next((row for row in model_rows(lake) if row["model_id"] == model_id), None)


def find_champion(lake: Lake) -> dict[str, Any] | None:
    """Return the row of the champion, or None while there is none."""
    return next((row for row in model_rows(lake) if row["status"] == "champion"), None)


def save_model(
    lake: Lake,
    model_id: str,
    recommender: Recommender,
    items: ItemIds,
    card: Mapping[str, Any],
    text: str,
) -> None:
    """Write a model's files: weights, its card as JSON and as ``text``, the item ids as Parquet.

    A model exists only once its row is registered, so that a kill in here leaves nothing behind
    that anyone reads.
    """
    with temporary_folder() as folder:
        checkpoint.save(folder, recommender, dict(card))
        (folder / _TEXT).write_text(text, encoding="utf-8")
        pq.write_table(pa.table({columns.ITEM_ID: items.ids}), folder / _ITEMS)
        if not lake.is_local:
            object_store.upload_folder(folder, lake.uri(_FOLDER, model_id), lake.storage)
            return
        target = Path(lake.uri(_FOLDER, model_id))
        target.parent.mkdir(parents=True, exist_ok=True)
        arriving = target.parent / f".{model_id}-{uuid.uuid4().hex}"
        shutil.copytree(folder, arriving)
        if target.exists():
            shutil.rmtree(target)
        os.replace(arriving, target)


def load_model(lake: Lake, row: Mapping[str, Any], device: str = "cpu") -> Model:
    """Read a model back.

    Raises:
        LakeError: its files are missing or damaged, or the lake's ids have become others.
    """
    model_id = row["model_id"]
    with temporary_folder() as folder:
        if lake.is_local:
            folder = Path(lake.uri(_FOLDER, model_id))
        else:
            object_store.download_folder(lake.uri(_FOLDER, model_id), folder, lake.storage)
        recommender, _ = checkpoint.load(folder, device)
        try:
            items = ItemIds(pq.read_table(folder / _ITEMS)[columns.ITEM_ID].combine_chunks())
        except (OSError, pa.ArrowException, KeyError) as error:
            raise LakeError(
                f"model {model_id}: {_ITEMS} can't be read ({error}); train again"
            ) from error
    kind = lake.schema(columns.ITEMS).field(columns.ITEM_ID).type
    if items.ids.type != kind:
        raise LakeError(
            f"model {model_id} knows items by {items.ids.type} ids, and the lake now holds {kind} "
            "ids; train again"
        )
    return Model(recommender, items, dict(row))


def register_model(lake: Lake, row: Mapping[str, Any]) -> None:
    """Add a model's row and, when it is champion, retire the one before, in one commit."""
    changed = [dict(row)]
    before = find_champion(lake)
    if row["status"] == "champion" and before and before["model_id"] != row["model_id"]:
        why = f"{before['why']}; retired by {row['model_id']}"
        changed.append({**before, "status": "retired", "why": why})
    table = pa.Table.from_pylist(changed, schema=lake.schema(columns.MODELS))
    lake.upsert(columns.MODELS, table, on="model_id")
