"""How long work tells where it is, to whoever watches: a terminal, a flow run, or nobody."""

import time
from typing import Protocol


class Progress(Protocol):
    """Called as work goes on, at most a few times a second."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say that ``done`` of ``total`` units of ``stage`` are behind us.

        Args:
            stage: what is going on, stable while it goes on, e.g. ``"training"``.
            done: units done so far, 0..total.
            total: units in all.
            note: the newest figure, e.g. ``"epoch 3, validation NDCG@10 0.061"``.
        """


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Tell nobody."""


def throttled(progress: Progress, seconds: float = 0.3) -> Progress:
    """Return a progress that passes one call in ``seconds`` on, and each one at the end."""
    last_call = -float("inf")

    def passed_on(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal last_call
        now = time.monotonic()
        if done == total or now - last_call > seconds:
            last_call = now
            progress(stage, done, total, note)

    return passed_on
