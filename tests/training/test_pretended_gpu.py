"""All that computes on a GPU, on one that is pretended: no mix of devices, and few waits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recsys.errors import ConfigurationError
from recsys.evaluation.protocol import evaluation_report, validator
from recsys.evaluation.splits import leave_one_out
from recsys.model.fold_in import fold_in
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.settings import Settings
from recsys.training.trainer import fit
from tests.pretended_gpu import PretendedGpu
from tests.worlds import small, successor_world

Counts = tuple[Counter[Any], Counter[Any]]


def fitted_on(gpu: PretendedGpu, **overrides: Any) -> tuple[Any, list[Counts]]:
    """A model, and the waits and copies up to the end of each of its gradient steps."""
    world = successor_world(users=60)
    split, runtime = leave_one_out(world.histories), Runtime("cuda", threads=1)
    preset = small("best", blocks=1, max_length=12, width=16, batch_size=64, **overrides)
    counts: list[Counts] = []
    fitted = fit(
        split.train,
        world.n_items,
        preset,
        seed=0,
        runtime=runtime,
        validate=validator(split.validation, seed=0, runtime=runtime),
        epochs=2,
        after_step=lambda _: counts.append((Counter(gpu.waits), Counter(gpu.copies))),
    )
    return fitted.model, counts


def test_one_of_several_gpus_has_a_number_and_one_that_is_not_there_is_refused() -> None:
    with PretendedGpu():
        for name in ("cuda", "cuda:0", "cuda:1"):
            runtime = Runtime(Settings(device=name).device)
            assert runtime.torch_device == torch.device(name)
        with pytest.raises(ConfigurationError, match="finds 2 CUDA devices"):
            Runtime("cuda:2")
    with pytest.raises(ConfigurationError, match="CUDA devices here"):
        Runtime("cuda:99")
    with pytest.raises(ValidationError, match="device"):
        Settings(device="cuda1")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, {"negatives": 8}], ids=["all items", "negatives"])
def test_a_gradient_step_waits_for_the_gpu_once_with_negatives_and_never_without(
    overrides: dict[str, int],
) -> None:
    with PretendedGpu() as gpu:
        _, counts = fitted_on(gpu, **overrides)
    (waits, copies), (waits_before, copies_before) = counts[2], counts[1]
    assert (waits - waits_before).total() == len(overrides), waits - waits_before
    assert (copies - copies_before).total() <= 6, "those of a batch"


def test_a_training_is_judged_and_makes_lists_without_a_mix_of_devices() -> None:
    world = successor_world(users=60)
    split = leave_one_out(world.histories)
    with PretendedGpu() as gpu:
        model, _ = fitted_on(gpu)
        runtime = Runtime("cuda", threads=1)
        scorer = ModelScorer(model, runtime=runtime)
        report = evaluation_report(scorer, split.test, split.train, world.n_items)
        before = gpu.waits.total()
        (lists,) = top_k(model, world.histories, 5, runtime=runtime)
        assert gpu.waits.total() - before <= 7
        extended, _ = fold_in(scorer, split.train.remap_items(_last_is_new(30)), 31)
        assert extended.items.weight.device.type == "cuda"
    assert report.users == 60
    on_cpu = Runtime("cpu", threads=1, precision="fp32")
    (expected,) = top_k(model, world.histories, 5, runtime=on_cpu)
    assert np.array_equal(lists.items, expected.items)


def test_what_a_gpu_refuses_is_refused() -> None:
    with PretendedGpu() as gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match=r"add at .*: operands on \['cpu', 'cuda'\]"):
            here + there
        with pytest.raises(RuntimeError, match="a generator of cpu on cuda"):
            torch.randn(3, generator=torch.Generator(), device="cuda")
        with pytest.raises(TypeError, match="no array"):
            there.numpy()
        with pytest.raises(RuntimeError, match="operands"):
            torch.nn.Linear(3, 3).to("cuda")(torch.from_numpy(np.ones(3, dtype=np.float32)))
        assert not gpu.waits
        assert [bool(there.any()), there.sum().item(), len(there[there > 0])] == [True, 3, 3]
        assert there.cpu().numpy().sum() == 3
        assert gpu.waits.total() == 4
        assert gpu.copies.total() == 2  # the layer's weight and bias


def _last_is_new(count: int) -> np.ndarray:
    """The map in which item 1 becomes the one beyond ``count``."""
    index = np.arange(count + 1, dtype=np.int32)
    index[1] = count + 1
    return index
