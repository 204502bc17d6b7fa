"""What a CUDA device must do as the CPU does it; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.evaluation.protocol import evaluate
from recsys.evaluation.splits import leave_one_out
from recsys.model.loss import cross_entropy
from recsys.model.presets import PRESETS
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.model.top_k import top_k_items
from recsys.training.trainer import fit
from tests.worlds import small, successor_world

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("preset", PRESETS)
def test_what_cuda_learns_both_devices_serve(preset: str) -> None:
    world = successor_world(users=300)
    chosen = small(preset, max_length=12, learning_rate=3e-3)
    fitted = fit(
        world.histories,
        world.n_items,
        chosen,
        seed=0,
        runtime=Runtime(device="cuda"),
        validate=None,
        epochs=40 if chosen.model.objective == "causal" else 8,
    )
    for device in ("cuda", "cpu"):
        runtime = Runtime(device=device, precision="fp32")
        (lists,) = top_k(fitted.model, world.histories, 5, runtime=runtime)
        assert (lists.items[:, 0] == world.next_items()).mean() >= 0.95
    split = leave_one_out(world.histories)
    judged = evaluate(ModelScorer(fitted.model, runtime=Runtime(device="cuda")), split.test)
    assert judged.masked["hr@5"] >= 0.95


@pytest.mark.parametrize("n_items", [9000, 40_000])
def test_the_loss_and_its_gradients_are_those_of_the_cpu(n_items: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(700, 16, generator=generator)
    weight = torch.randn(n_items + 1, 16, generator=generator)
    target = torch.randint(1, n_items + 1, (700,), generator=generator)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [tensor.to(device).requires_grad_() for tensor in (hidden, weight)]
        loss = cross_entropy(*inputs, target.to(device))
        results.append([loss, *torch.autograd.grad(loss, inputs)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-4, atol=1e-6)


def test_lists_are_those_of_the_cpu_ties_included() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(-2, 3, (5000, 8), generator=generator).float()
    weight = torch.randint(-2, 3, (200_001, 8), generator=generator).float()
    scores, items = top_k_items(predicted, weight, 50)
    scores_cuda, items_cuda = top_k_items(predicted.cuda(), weight.cuda(), 50)
    assert np.array_equal(items.numpy(), items_cuda.cpu().numpy())
    torch.testing.assert_close(scores_cuda.cpu(), scores, rtol=1e-5, atol=1e-5)
