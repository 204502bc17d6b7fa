from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recsys.errors import DamagedError, LakeError
from recsys.model.presets import PRESETS
from recsys.model.recommender import Recommender
from recsys.training import checkpoint
from tests.worlds import pack, scores, small


def model(preset: str = "best") -> Recommender:
    return Recommender(small(preset).model, 9, torch.Generator().manual_seed(3))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_comes_back_as_it_was(preset: str, tmp_path: Path) -> None:
    saved = model(preset)
    checkpoint.save(tmp_path / "new", saved, {"seed": 3, "name": "é"})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]
    loaded, metadata = checkpoint.load(tmp_path / "new")
    assert metadata == {"seed": 3, "name": "é"}
    assert loaded.config == saved.config
    histories = pack([[1, 2, 3]])
    assert torch.equal(scores(loaded, histories), scores(saved, histories))


def test_damage_is_told_apart_from_absence(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"no file .*model\.json"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, model(), {})
    weights, card = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole, text = weights.read_bytes(), card.read_text()

    for broken in (whole[:100], whole[: len(whole) // 2], b""):
        weights.write_bytes(broken)
        with pytest.raises(LakeError, match=r"model\.safetensors is damaged"):
            checkpoint.load(tmp_path)
    weights.unlink()
    with pytest.raises(LakeError, match=r"no file .*model\.safetensors"):
        checkpoint.load(tmp_path)
    weights.write_bytes(whole)

    edited = json.loads(text)
    for broken_text in (
        text[:50],
        "[]",
        json.dumps({**edited, "n_items": 8}),
        json.dumps({**edited, "n_items": 0}),
        json.dumps({**edited, "model": {"depth": 3}}),
        json.dumps({**edited, "model": {**edited["model"], "heads": 3}}),
    ):
        card.write_text(broken_text)
        with pytest.raises(LakeError, match="is damaged"):
            checkpoint.load(tmp_path)


def test_weights_of_another_version_say_so(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, model(), {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b".up_proj.", b".upproj_."))
    message = r"damaged or from another version \(.*Missing key.*up_proj"
    with pytest.raises(DamagedError, match=message):
        checkpoint.load(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        broken.items.weight[2, 1] = torch.inf
    checkpoint.save(tmp_path, broken, {})
    with pytest.raises(LakeError, match="not finite"):
        checkpoint.load(tmp_path)


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="file"):
        checkpoint.save(tmp_path / "file", model(), {})
