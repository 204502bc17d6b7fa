"""A refresh that goes on from the champion's judged weights, instead of training from scratch.

It must not leak what the gate asks for. The judged weights of then learnt, of each user, what came
before the two newest targets of then. Interactions that are appended, late ones too, only move a
row away from the end of its user's history: what was learnt then lies before the two newest targets
of today, and is in today's training part. So nothing that is held out today was learnt, and neither
was it by the models that the champion itself goes on from. Rows that were removed or corrected
would move others towards the end. A lake in which that happened since the champion was trained gets
a whole training, and so does one that has erased a user: weights that go on remember. The users who
stop a training are the same every night, so that the gate's users have chosen no weights either.
The weights that serve have learnt from all of it, and are never a start.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys import columns
from recsys.histories import PADDING
from recsys.model.fold_in import fold_in
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.registry.models import UnusableModelError, find_champion, find_model, load_model

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.evaluation.splits import Split
    from recsys.histories import ItemIds
    from recsys.lake.tables import Lake
    from recsys.registry.models import Model, ModelRow
    from recsys.registry.recipe import Recipe
    from recsys.settings import Settings, Training

_log = logging.getLogger(__name__)

# Operations of Delta that take no row away; of those named WRITE, the note says whether it did.
_GROW = {"WRITE", "CREATE TABLE", "ADD COLUMN", "SET TBLPROPERTIES", "OPTIMIZE"}
_GROW |= {"VACUUM START", "VACUUM END"}
_REMOVES = {"replaces", "withdrawn"}  # in the note of an ingest
_SET_FROM_DATA = {"dropout", "embedding_dropout", "item_dropout", "steps"}  # no shape depends on it


def with_start(
    lake: Lake, settings: Settings, training: Training, recipe: Recipe
) -> tuple[Recipe, Model | None]:
    """Return a recipe and the judged model that its training goes on from; None: from scratch.

    That is the champion, or what it went on from where it has learnt from this version already: the
    same training is the same model then.

    Raises:
        LakeError: `models` or the files could not be read, so that nothing is known.
    """
    start = _find_start(lake, settings, recipe) if training.warm_start else None
    if start is None:
        return recipe, None
    epochs = training.epochs or training.warm_epochs
    return replace(recipe, starts_from=start.row.model_id, epochs=epochs), start


def _find_start(lake: Lake, settings: Settings, recipe: Recipe) -> Model | None:
    champion = find_champion(lake)
    if champion is None:
        return None
    row: ModelRow | None = champion
    if champion.interactions_version >= recipe.interactions_version:
        parent = json.loads(champion.config or "{}").get("starts_from")
        row = find_model(lake, parent) if parent else None
    if row is None:
        return None
    if why := _why_not(lake, row, recipe):
        _log.info("training starts from scratch, not from %s: %s", row.model_id, why)
        return None
    try:
        return load_model(lake, row, settings.device, judged=True)
    except UnusableModelError as error:
        _log.warning("training starts from scratch: %s", error)
        return None


def _why_not(lake: Lake, row: ModelRow, recipe: Recipe) -> str | None:
    """Say why a training can't go on from a model; None where it can."""
    config = json.loads(row.config or "{}")
    network = {
        name: value
        for name, value in asdict(recipe.preset.model).items()
        if name not in _SET_FROM_DATA
    }
    if any(config.get("model", {}).get(name) != value for name, value in network.items()):
        return "its network is another"
    if config.get("split", "leave-one-out") != recipe.split:
        return "training.split has changed: it may have learnt what is held out now"
    if any(config.get(name) != value for name, value in recipe.events.as_dict().items()):
        return "[events] has changed"
    if not _only_grew(lake, row.interactions_version, recipe.interactions_version):
        return "interactions were removed or corrected since, or the log does not say"
    return None


def _only_grew(lake: Lake, since: int, until: int) -> bool:
    """Say whether all commits of `interactions` between two versions removed nothing."""
    seen = 0
    for version, operation, note in lake.commits(columns.INTERACTIONS):
        if version <= since:
            break
        if version > until:
            continue
        if operation not in _GROW or _REMOVES & set(note):
            return False
        seen += 1
    return seen == until - since


def initial_weights(
    start: Model, split: Split, items: ItemIds, recipe: Recipe, settings: Settings
) -> dict[str, Tensor]:
    """Return the weights that a training of a recipe starts with.

    Known items keep their rows. A new one starts from those who took it, see `fold_in`, or as in
    any training where nobody did after something known.

    Args:
        start: of `with_start`.
        split: today's; vectors come from its training part.
        items: what the indices in it stand for.
        recipe: of the training.
        settings: the device and its threads.
    """
    known, count = len(start.items), len(items)
    # Today's items in the order that folding in asks for: those of the start first, as it has them.
    order = items.index_map_to(start.items)
    new = np.flatnonzero(order[1:] == PADDING) + 1
    order[new] = known + 1 + np.arange(len(new))
    weights = start.recommender.state_dict()
    table, has_row = weights["items.weight"], order <= known
    if len(new) and start.recommender.config.similarity == "cosine":
        runtime = Runtime(settings.device, settings.threads)
        scorer = ModelScorer(start.recommender, seed=recipe.seed, runtime=runtime)
        train = split.train.remap_items(order)
        extended, folded = fold_in(scorer, train, known + len(new))
        table, has_row = extended.items.weight.detach(), has_row | folded[order]
    drawn = Recommender(
        start.recommender.config, count, torch.Generator().manual_seed(recipe.seed)
    ).items.weight.detach()
    places = torch.from_numpy(np.where(has_row, order, PADDING)).long()
    rows = torch.from_numpy(has_row).unsqueeze(1)
    weights["items.weight"] = torch.where(rows, table.cpu()[places], drawn)
    return weights
