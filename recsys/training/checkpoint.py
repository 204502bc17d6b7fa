"""A model on disk: weights as safetensors, everything else as JSON beside them. Never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from recsys.errors import ConfigurationError, LakeError
from recsys.model.config import ModelConfig
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

_WEIGHTS = "model.safetensors"
_CARD = "model.json"
FILES = (_CARD, _WEIGHTS)
"""What `save` writes and `load` reads."""


def save(folder: Path, model: Recommender, metadata: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` (configuration, n_items, metadata).

    Raises:
        LakeError: the folder can't be written.
    """
    from safetensors.torch import save as as_bytes  # here: the model itself runs without it

    card = {"model": asdict(model.config), "n_items": model.n_items, "metadata": metadata}
    weights = {name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _WEIGHTS).write_bytes(as_bytes(weights))
        text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        (folder / _CARD).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise LakeError(f"the model can't be written to {folder}: {error}") from error


def load(folder: Path, device: str = "cpu") -> tuple[Recommender, dict[str, Any]]:
    """Read a model and its metadata back; ``device`` is "cpu", "cuda" or "auto".

    Raises:
        LakeError: a file is missing or damaged, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    at = folder / _CARD
    try:
        card = json.loads(at.read_text(encoding="utf-8"))
        model = Recommender(ModelConfig(**card["model"]), card["n_items"])
        metadata: dict[str, Any] = card["metadata"]
        at = folder / _WEIGHTS
        model.load_state_dict(from_bytes(at.read_bytes()))
    except FileNotFoundError as error:
        raise LakeError(f"the model has no file {at}; train again") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        ConfigurationError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise LakeError(f"the model's file {at} is damaged ({reason}); train again") from error
    model.to(Runtime(device=device).torch_device)
    if not all(bool(torch.isfinite(each).all()) for each in model.parameters()):
        raise LakeError(f"the model's file {at} holds numbers that are not finite; train again")
    return model, metadata
