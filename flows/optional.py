"""What is optional in a night: whatever goes wrong in it, the night goes on and tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prefect import get_run_logger

from recsys.signals import is_stopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.operations.runs import Run

Result = TypeVar("Result")


def try_step(run: Run, step: str, failure: str, work: Callable[[], Result]) -> Result | None:
    """Do a step and return its result; None where it failed, which the run's row then says.

    Args:
        run: the night.
        step: its name in `runs.outcome`.
        failure: what did not happen, such as "not trained".
        work: does it.
    """
    try:
        return work()
    except Exception as error:
        if is_stopping():
            raise
        get_run_logger().warning(run.record_failure(step, failure, error))
        return None
