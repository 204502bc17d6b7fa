"""Blocks of users that the model has scored, kept in the lake until their lists are published.

A night that is killed in the middle of its scoring goes on behind the users that it had scored. The
folder's name is a hash of all that decides the scores, so that a night with other data, another
champion, other settings or other code does not find them. A user's list does not depend on the
block, see :func:`recsys.model.scoring.top_k`, so that the lists are those of an unbroken run.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.maintenance import SCORED
from recsys.lake.schemas import as_json
from recsys.lists.ranking import Ranked
from recsys.temporary import replace_file, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

    from recsys.lake.tables import Lake

_ARRAYS = ("items", "scores", "confidence")
_BYTES = 1 << 25  # of blocks that wait to be saved
_log = logging.getLogger(__name__)


class ScoredBlocks:
    """Saves scored blocks every few minutes, and gives them back.

    Args:
        lake: where they lie.
        inputs: all that decides the scores.
        every: how long after one save the next one comes.
        is_used: whether another process may have saved some.
    """

    def __init__(
        self, lake: Lake, inputs: Mapping[str, Any], every: timedelta, *, is_used: bool = False
    ) -> None:
        self._lake, self._every = lake, every.total_seconds()
        key = as_json({**inputs, "torch": torch.__version__})
        self._folder = lake.uri(SCORED, hashlib.sha256(key.encode()).hexdigest()[:24])
        self._is_used = is_used

    def blocks(self, score: Callable[[int], Iterator[Ranked]]) -> Iterator[Ranked]:
        """Yield all blocks in order: those that were saved, then what ``score`` makes behind them.

        Args:
            score: scores the users from a place on.

        Raises:
            LakeError: it can't be known what was saved.
        """
        scored = 0
        for block in self._saved():
            yield block
            scored = block.start + len(block.items)
        if scored:
            _log.info("going on after %d users that were scored before", scored)
        waiting: list[Ranked] = []
        last, size = time.monotonic(), 0
        for block in score(scored):
            arrays = [getattr(block, name) for name in _ARRAYS]
            # Copies, since whoever gets the block fills it up.
            waiting.append(Ranked(block.start, *(array.copy() for array in arrays)))
            size += sum(array.nbytes for array in arrays)
            if time.monotonic() - last >= self._every or size >= _BYTES:
                self._save(waiting)
                waiting, last, size = [], time.monotonic(), 0
            yield block

    def remove(self) -> None:
        """Remove what was saved: the lists are published."""
        try:
            if self._lake.is_local:
                shutil.rmtree(self._lake.uri(SCORED), ignore_errors=True)
            elif self._is_used:
                object_store.delete([*self._files()], self._lake.storage)
        except LakeError as error:
            _log.warning("%s could not be removed: %s", self._folder, error)

    def _saved(self) -> Iterator[Ranked]:
        scored = 0
        for uri in self._files():
            try:
                block = load(self._read(uri))
            except (SafetensorError, FileNotFoundError) as error:
                _log.warning("%s can't be used (%s): its users are scored again", uri, error)
                return
            if int(block["start"][0]) != scored:
                return
            items, scores, confidence = (np.array(block[name]) for name in _ARRAYS)
            yield Ranked(scored, items, scores, confidence)
            scored += len(items)

    def _files(self) -> list[str]:
        if self._lake.is_local:
            return sorted(map(str, Path(self._folder).glob("*.safetensors")))
        pattern = f"{self._folder}/*.safetensors"
        return [stored.key for stored in object_store.find(pattern, self._lake.storage)]

    def _read(self, uri: str) -> bytes:
        self._is_used = True
        if self._lake.is_local:
            return Path(uri).read_bytes()
        with temporary_folder() as folder:
            object_store.download(uri, folder / "block", self._lake.storage)
            return (folder / "block").read_bytes()

    def _save(self, blocks: list[Ranked]) -> None:
        """Save blocks that follow each other; scoring goes on where that fails."""
        start = blocks[0].start
        arrays = {
            name: np.concatenate([getattr(block, name) for block in blocks]) for name in _ARRAYS
        }
        content = save({"start": np.array([start]), **arrays})
        uri = f"{self._folder}/{start:012}.safetensors"
        self._is_used = True
        try:
            if self._lake.is_local:
                with replace_file(Path(uri)) as new:
                    new.write_bytes(content)
            else:
                with temporary_folder() as folder:
                    (folder / "block").write_bytes(content)
                    object_store.upload(folder / "block", uri, self._lake.storage)
        except (OSError, LakeError) as error:
            _log.warning("scores could not be saved to %s: %s", uri, error)
