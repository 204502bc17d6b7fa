"""What this machine can do: rates of matrix products and copies, and what a model asks of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.model.config import ModelConfig
from recsys.model.runtime import Runtime
from tests.benchmarks.common import Measured, Setup, rate


def rates(setup: Setup) -> Measured:
    """Measure operations/s of products, at the model's shape and large, and bytes/s of a copy."""
    runtime, sizes = Runtime(setup.device), setup.sizes
    device = runtime.torch_device
    figures: dict[str, Any] = {"machine": asdict(runtime.machine_info())}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for shape, (n, k, m) in {"model": (4096, 512, 128), "square": (sizes.square,) * 3}.items():
            left, right = (torch.randn(at, device=device).to(dtype) for at in ((n, k), (k, m)))

            def multiply(left: torch.Tensor = left, right: torch.Tensor = right) -> int:
                for _ in range(4):
                    made = left @ right
                made[0, 0].item()  # waits for the device
                return 4 * 2 * left.numel() * right.shape[1]

            figures[f"{name}_{shape}"] = rate(multiply, sizes.seconds / 2)["rate"]
        figures[name] = max(figures[f"{name}_model"], figures[f"{name}_square"])
    held = torch.zeros(sizes.copy_mb * 250_000)  # the host's memory, where the data stages run
    copy = torch.empty_like(held)
    figures["copy"] = rate(lambda: 2 * copy.copy_(held).nbytes, sizes.seconds / 2)["rate"]
    return Measured(figures)


def network_flops(config: ModelConfig, lengths: NDArray[np.int64]) -> float:
    """Return operations of one forward pass over rows of so many items, padding left out.

    A block costs a token 12 D^2 multiplications and additions (4 D^2 attention's projections,
    8 D^2 the feed-forward layer), and 2 D for each key it sees: all n of a prefix, (n + 1) / 2 on
    average under a causal mask. Training costs three forward passes.
    """
    n = np.minimum(lengths, config.max_length).astype(float)
    keys = (n + 1) / 2 if config.objective == "causal" else n
    return float(2 * config.blocks * (n * (12 * config.width**2 + 2 * config.width * keys)).sum())


def scoring_flops(width: int, n_items: int, targets: int) -> float:
    """Return operations of scoring all items for so many targets."""
    return 2.0 * width * n_items * targets
