"""The state of a training in the lake, so that one that was stopped goes on, on any machine."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recsys.errors import DamagedError, LakeError, MissingError
from recsys.lake import object_store
from recsys.registry.models import WEIGHTS
from recsys.temporary import replace_file, temporary_folder
from recsys.training.state import load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from recsys.lake.tables import Lake
    from recsys.registry.recipe import Recipe
    from recsys.training.state import TrainingState

_NAME = "state.safetensors"
_log = logging.getLogger(__name__)


class SavedTraining:
    """Saves a training's state every few minutes, and gives it back.

    A state is of one recipe: of its data, settings and code, and of the version of torch.

    Args:
        lake: where it lies.
        recipe: of the training.
        every: how long after one save the next one comes.
    """

    def __init__(self, lake: Lake, recipe: Recipe, every: timedelta) -> None:
        self._lake = lake
        # Beside the models: what nobody goes on with is removed as files of a lost training are.
        self._uri = lake.uri(WEIGHTS, f"{recipe.model_id}-training", _NAME)
        self._key = f"{recipe.model_id}, torch {torch.__version__}"
        self._every = every.total_seconds()
        self._last = time.monotonic()

    def load(self) -> Mapping[str, Any] | None:
        """Return the state to go on from; None where there is none that fits.

        Raises:
            LakeError: it can't be read, and nothing is known about it.
        """
        try:
            if self._lake.is_local:
                saved = load_state(Path(self._uri), self._key)
            else:
                with temporary_folder() as folder:
                    object_store.download(self._uri, folder / _NAME, self._lake.storage)
                    saved = load_state(folder / _NAME, self._key)
        except (FileNotFoundError, MissingError):
            return None
        except DamagedError as error:
            _log.warning("%s: training from the start", error)
            return None
        except OSError as error:
            raise LakeError(
                f"could not read {self._uri}: {error}. Let this user read it, or delete it: the "
                "training starts afresh then",
            ) from error
        if saved is not None:
            _log.info("going on after epoch %d, step %d", saved["epoch"], saved["epoch_steps"])
        return saved

    def save_when_due(self, state: TrainingState) -> None:
        """Save where the last time is long enough ago; a training goes on where that fails."""
        if time.monotonic() - self._last < self._every:
            return
        try:
            if self._lake.is_local:
                with replace_file(Path(self._uri)) as new:
                    save_state(state, new, self._key)
            else:
                with temporary_folder() as folder:
                    save_state(state, folder / _NAME, self._key)
                    object_store.upload(folder / _NAME, self._uri, self._lake.storage)
        except (OSError, LakeError) as error:
            _log.warning("the training's state could not be saved to %s: %s", self._uri, error)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the state: the model is registered."""
        try:
            if self._lake.is_local:
                Path(self._uri).unlink(missing_ok=True)
                if Path(self._uri).parent.exists():
                    Path(self._uri).parent.rmdir()
            else:
                object_store.delete([self._uri], self._lake.storage)
        except (OSError, LakeError) as error:
            _log.warning("%s could not be removed: %s", self._uri, error)
