"""Trained models: their files, their rows in `models`, and which of them is the champion."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.errors import DamagedError, LakeError, MissingError
from recsys.evaluation.calibration import Calibration
from recsys.evaluation.results import SPLITS, Evaluation, SplitResults
from recsys.histories import ItemIds
from recsys.lake import object_store
from recsys.lake.faults import CHECK_DISK
from recsys.lake.schemas import as_json
from recsys.temporary import replace_file, replace_folder, temporary_folder
from recsys.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from typing import Self

    from recsys.evaluation.results import Protocol
    from recsys.lake.tables import Lake
    from recsys.model.recommender import Recommender

Status = Literal["champion", "retired", "rejected"]
"""A champion serves, a retired model served once, a rejected one failed the gate."""

CHAMPION = "champion"
"""Its name among the baselines in `models.baselines`, where it has a `model_id` beside its figures.
"""

# Not under `models/`: a Delta table lives there, whose vacuum deletes files it doesn't know.
WEIGHTS = "weights"
_ITEMS = "items.parquet"
_TEXT = "model.md"


@dataclass(frozen=True)
class ModelRow:
    """A row of `models`: one trained model.

    Attributes:
        model_id: key; the same data, settings and code give the same one.
        status: what became of it.
        why: the gate's reason.
        preset: the named model and training that it started from.
        seed: of every random draw.
        interactions_version: version of `interactions` that it learnt from.
        users: users in that version.
        items: items in that version.
        interactions: interactions in that version.
        validation_ndcg_10: NDCG@10 on the validation items, of lists as a night serves them.
        test_ndcg_10: NDCG@10 on the test items, likewise.
        test_hr_10: hit rate at 10 on the test items, likewise.
        popularity_validation_ndcg_10: popularity's, on the same users.
        popularity_test_ndcg_10: likewise.
        popularity_test_hr_10: likewise.
        metrics: its evaluation report by split, as JSON.
        baselines: evaluations of what it was compared with, by name and split, as JSON.
        config: its recipe, its network and the epochs it ran, as JSON.
        code_version: the code that trained it.
        seconds: wall time of the training and its evaluation.
        trained_at: when it was registered first, UTC.
    """

    model_id: str
    status: Status
    why: str
    preset: str
    seed: int
    interactions_version: int
    users: int
    items: int
    interactions: int
    validation_ndcg_10: float
    test_ndcg_10: float
    test_hr_10: float
    popularity_validation_ndcg_10: float
    popularity_test_ndcg_10: float
    popularity_test_hr_10: float
    metrics: str
    baselines: str
    config: str
    code_version: str
    seconds: float
    trained_at: datetime

    @property
    def protocol(self) -> Protocol:
        """Whether it was judged by lists without what a user has had."""
        protocol: Protocol = json.loads(self.config or "{}").get("judged", "masked")
        return protocol

    @property
    def refit_epochs(self) -> int | None:
        """Epochs on whole histories of the weights that serve; None: the judged ones serve."""
        epochs: int | None = json.loads(self.config or "{}").get("refit_epochs")
        return epochs

    @property
    def calibration(self) -> Calibration | None:
        """What makes a list's probability its confidence; None where the model was given none."""
        values = json.loads(self.config or "{}").get("confidence")
        return Calibration.from_dict(values) if values else None

    def with_refit(self, epochs: int) -> Self:
        """Return the row of the same model with weights that were refit for so many epochs."""
        return replace(
            self, config=as_json({**json.loads(self.config or "{}"), "refit_epochs": epochs})
        )

    def best_baseline(self) -> tuple[str, SplitResults[Evaluation]] | None:
        """Return the baseline that was best on its validation items; None where none is known."""
        results = {
            name: SplitResults(*(Evaluation.from_dict(values[split]) for split in SPLITS))
            for name, values in json.loads(self.baselines or "{}").items()
            if name != CHAMPION
        }
        return max(
            results.items(),
            key=lambda pair: pair[1].validation.metrics(self.protocol)["ndcg@10"],
            default=None,
        )


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
    row: ModelRow


def model_rows(lake: Lake) -> list[ModelRow]:
    """Return every row of `models`, newest first; none where the lake is still empty."""
    if not lake.exists(columns.MODELS):
        return []
    names = [field.name for field in fields(ModelRow)]
    table = lake.rows(columns.MODELS, names)
    rows = [ModelRow(**row) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row.trained_at, row.model_id), reverse=True)


def find_model(lake: Lake, model_id: str) -> ModelRow | None:
    """Return the row of one model, or None where it was never registered."""
    return next((row for row in model_rows(lake) if row.model_id == model_id), None)


def find_champion(lake: Lake) -> ModelRow | None:
    """Return the row of the champion, or None while there is none."""
    return next((row for row in model_rows(lake) if row.status == "champion"), None)


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
    that anyone reads. On a local lake the files of a previous attempt stay until all the new ones
    are there.

    Raises:
        LakeError: a file can't be written.
    """
    uri = lake.uri(WEIGHTS, model_id)
    try:
        with replace_folder(Path(uri)) if lake.is_local else temporary_folder() as folder:
            checkpoint.save(folder, recommender, dict(card))
            (folder / _TEXT).write_text(text, encoding="utf-8")
            pq.write_table(pa.table({columns.ITEM_ID: items.ids}), folder / _ITEMS)
            if not lake.is_local:
                object_store.upload_folder(folder, uri, lake.storage)
    except OSError as error:
        raise LakeError(f"could not write the model to {uri}: {error}. {CHECK_DISK}") from error


def save_served(lake: Lake, model_id: str, recommender: Recommender) -> None:
    """Put the weights that are to serve beside those that were judged; see `load_model`.

    Raises:
        LakeError: the file can't be written.
    """
    uri = lake.uri(WEIGHTS, model_id, checkpoint.SERVED)
    try:
        with temporary_folder() as folder:
            path = Path(uri) if lake.is_local else folder / checkpoint.SERVED
            with replace_file(path) as new:
                checkpoint.save_weights(new, recommender)
            if not lake.is_local:
                object_store.upload(path, uri, lake.storage)
    except OSError as error:
        raise LakeError(f"could not write {uri}: {error}. {CHECK_DISK}") from error


def read_card(lake: Lake, model_id: str) -> str:
    """Return the Markdown of a model's card.

    Raises:
        MissingError: the model has none.
        LakeError: it can't be read.
    """
    with temporary_folder() as folder:
        path = Path(lake.uri(WEIGHTS, model_id, _TEXT)) if lake.is_local else folder / _TEXT
        if not lake.is_local:
            object_store.download(lake.uri(WEIGHTS, model_id, _TEXT), path, lake.storage)
        return checkpoint.read_file(path).decode("utf-8")


class UnusableModelError(LakeError):
    """It is proven that a model can't serve: a file is missing or damaged, or its ids are others.

    Where a file only could not be read, the error is not of this kind.

    Args:
        model_id: key of `models`.
        reason: why it can't.
    """

    def __init__(self, model_id: str, reason: str) -> None:
        super().__init__(f"model {model_id}: {reason}; train again")
        self.reason = reason


def load_model(lake: Lake, row: ModelRow, device: str = "cpu", *, judged: bool = False) -> Model:
    """Read a model back, with the weights that serve.

    Args:
        lake: where it is.
        row: which model.
        device: "cpu", "cuda", "cuda:1" or "auto".
        judged: read the weights that the gate judged. Those that serve may have learnt from the
            items that a gate asks for, so that no later gate may judge by them.

    Raises:
        UnusableModelError: it can't serve, now or later.
        LakeError: it could not be read, and nothing is known about it.
    """
    try:
        recommender, items = _read_model(lake, row, device, judged=judged)
    except (MissingError, DamagedError) as error:
        raise UnusableModelError(row.model_id, str(error)) from error
    _check_ids(lake, row, items)
    return Model(recommender, items, row)


def load_items(lake: Lake, row: ModelRow) -> ItemIds:
    """Read the items that a model knows, and nothing else of it.

    Raises:
        UnusableModelError: it can't serve, now or later.
        LakeError: they could not be read, and nothing is known about them.
    """
    try:
        with _local_files(lake, row.model_id, _ITEMS) as folder:
            items = _read_items(folder)
    except (MissingError, DamagedError) as error:
        raise UnusableModelError(row.model_id, str(error)) from error
    _check_ids(lake, row, items)
    return items


def _check_ids(lake: Lake, row: ModelRow, items: ItemIds) -> None:
    id_type = lake.schema(columns.ITEMS).field(columns.ITEM_ID).type
    if items.ids.type != id_type:
        raise UnusableModelError(
            row.model_id,
            f"it knows items by {items.ids.type} ids, and the lake now holds {id_type} ids",
        )


@contextmanager
def _local_files(lake: Lake, model_id: str, *names: str) -> Iterator[Path]:
    """Give a folder on this machine that holds some of a model's files."""
    if lake.is_local:
        yield Path(lake.uri(WEIGHTS, model_id))
        return
    with temporary_folder() as folder:
        for name in names:
            uri = lake.uri(WEIGHTS, model_id, name)
            object_store.download(uri, folder / name, lake.storage)
        yield folder


def _read_items(folder: Path) -> ItemIds:
    content = checkpoint.read_file(folder / _ITEMS)
    try:
        table = pq.read_table(pa.BufferReader(content))
        return ItemIds(table[columns.ITEM_ID].combine_chunks())
    except (OSError, pa.ArrowException, KeyError) as error:
        raise checkpoint.damaged(folder / _ITEMS, error) from error


def _read_model(
    lake: Lake, row: ModelRow, device: str, *, judged: bool
) -> tuple[Recommender, ItemIds]:
    card, weights = checkpoint.FILES
    if row.refit_epochs and not judged:
        weights = checkpoint.SERVED
    with _local_files(lake, row.model_id, card, weights, _ITEMS) as folder:
        recommender, _ = checkpoint.load(folder, device, weights)
        items = _read_items(folder)
    if len(items) != recommender.n_items:
        raise DamagedError(
            f"its network knows {recommender.n_items:,} items and {_ITEMS} names {len(items):,}"
        )
    return recommender, items
