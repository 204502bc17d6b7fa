"""What every measure shares: its setup, its result, and how time is taken. No heavy imports."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults end within five minutes on two cores."""

    rounds: int = 2  # times that every speed is taken, ours and reference by turns; the best counts
    seconds: float = 2.0  # least time of one speed, where it can be repeated
    prefix_targets: int = 4096  # training samples of an epoch of ours, prefix
    causal_targets: int = 100_000  # training targets of an epoch of ours, one pass
    reference_steps: int = 2  # gradient steps of the reference
    quality_targets: int = 8192  # training samples of the model that inference is compared on
    users: int = 2048  # users served by ours in one step
    users_all_steps: int = 1024  # users served by ours in all 32 steps
    reference_users: int = 64  # users served by the reference
    quality_users: int = 256  # users whose held-out item is ranked
    rows: int = 2_000_000  # synthetic interactions to ingest and pack, and lists' rows to commit
    reference_rows: int = 500_000  # synthetic interactions that pandas packs
    catalogue: int = 100_000  # items that a top-K is chosen from
    queries: int = 512  # users that it is chosen for
    square: int = 2048  # rows of the large matrix product
    copy_mb: int = 512  # size of the large copy


@dataclass(frozen=True)
class Setup:
    """What a measure is given."""

    folder: str  # scratch, shared by all measures of a run
    data: str | None  # Parquet of user_id, item_id, timestamp; MovieLens-100K when None
    cache: str  # where MovieLens-100K is kept
    device: str
    sizes: Sizes


@dataclass(frozen=True)
class Measured:
    """What a measure came to: figures by name, a speed is called "rate".

    ``needs`` is what one unit of the rate needs of the machine: operations, or bytes moved; and
    ``kind`` which of the machine's rates they draw on: "bf16", "fp32" (products) or "copy".
    """

    figures: dict[str, Any] = field(default_factory=dict)
    needs: float = 0.0
    kind: str = "copy"


def rate(
    work: Callable[[], int], seconds: float, warm: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Return units a second of ``work``, which returns its units, as figures.

    It is repeated for ``seconds``, after an untimed ``warm``, or once itself without one.
    """
    (warm or work)()
    units, began = 0, time.perf_counter()
    while True:
        units += work()
        if (spent := time.perf_counter() - began) >= seconds:
            return {"rate": units / spent}
