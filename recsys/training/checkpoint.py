"""A model on disk: weights as safetensors, everything else as JSON beside them. Never pickle.

torch is imported when a model is written or read: who asks for the rows of models needs none of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recsys.errors import ConfigurationError, DamagedError, LakeError, MissingError
from recsys.model.config import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from recsys.model.recommender import Recommender

_WEIGHTS = "model.safetensors"
_CARD = "model.json"
FILES = (_CARD, _WEIGHTS)
"""What `save` writes and `load` reads."""
SERVED = "served.safetensors"
"""Other weights of the same network, which `save_weights` writes and `load` may read instead."""

_MOST_STEPS = 1_000_000  # of a history, or of the diffusion


def save(folder: Path, model: Recommender, metadata: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` (configuration, n_items, metadata).

    Raises:
        LakeError: the folder can't be written.
    """
    card = {"model": asdict(model.config), "n_items": model.n_items, "metadata": metadata}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / _WEIGHTS, model)
        text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        (folder / _CARD).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise LakeError(
            f"the model can't be written to {folder}: {error}. Check that this user may write "
            "there, and that the disk has room"
        ) from error


def save_weights(file: Path, model: Recommender) -> None:
    """Write the weights alone.

    Raises:
        OSError: the file can't be written.
    """
    from safetensors.torch import save as as_bytes  # here: the model itself runs without it

    weights = {name: part.detach().cpu().contiguous() for name, part in model.state_dict().items()}
    file.write_bytes(as_bytes(weights))


def load(
    folder: Path, device: str = "cpu", weights_name: str = _WEIGHTS
) -> tuple[Recommender, dict[str, Any]]:
    """Read a model and its metadata back.

    Args:
        folder: what `save` wrote.
        device: "cpu", "cuda", "cuda:1" or "auto".
        weights_name: the file of the weights, in the folder.

    Raises:
        MissingError: a file is not there.
        DamagedError: a file was read and is not what `save` wrote, or the two do not fit together.
        LakeError: a file can't be read, and nothing is known about it.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from recsys.model.recommender import Recommender
    from recsys.model.runtime import Runtime

    card_file, weights_file = folder / _CARD, folder / weights_name
    text, weights = read_file(card_file), read_file(weights_file)
    try:
        tensors = from_bytes(weights)
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise damaged(weights_file, error) from error
    try:
        card = json.loads(text)
        metadata: dict[str, Any] = card["metadata"]
        config, n_items = ModelConfig(**card["model"]), card["n_items"]
        _require_weights(config, n_items, len(weights))
        model = Recommender(config, n_items)
    except (ValueError, KeyError, TypeError, RecursionError, ConfigurationError) as error:
        raise damaged(card_file, error) from error
    try:
        model.load_state_dict(tensors)
    except (ValueError, KeyError, RuntimeError) as error:
        raise damaged(weights_file, error) from error
    model.to(Runtime(device=device).torch_device)
    if not all(bool(torch.isfinite(part).all()) for part in model.parameters()):
        raise DamagedError(f"the model's file {weights_file} holds numbers that are not finite")
    return model, metadata


def _require_weights(config: ModelConfig, n_items: int, size: int) -> None:
    """Refuse a card whose network has more numbers than its file of weights has bytes.

    Raises:
        ValueError: it would take memory that no model here takes.
    """
    numbers = n_items * config.width + config.blocks * config.width**2
    if numbers > size or max(config.max_length, config.timesteps, config.steps) > _MOST_STEPS:
        raise ValueError(f"a network of that size does not fit to {size:,} bytes of weights")


def read_file(file: Path) -> bytes:
    """Read a model's file; tell one that is missing from one that can't be read.

    Raises:
        MissingError: it is not there.
        LakeError: it can't be read, and nothing is known about it.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"the model has no file {file}") from error
    except OSError as error:
        raise LakeError(
            f"the model's file {file} could not be read: {error.strerror}; try again, and check "
            "that this user may read it",
            transient=not isinstance(error, PermissionError),
        ) from error


def damaged(file: Path, error: Exception) -> DamagedError:
    """Return the error of a model's file that was read and makes no sense."""
    reason = " ".join(str(error).split()) or repr(error)
    return DamagedError(
        f"the model's file {file} is damaged or from another version ({reason:.200})"
    )
