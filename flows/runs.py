"""A flow run as a run of the library: its id, its row in `runs`, what is worth a retry."""

from __future__ import annotations

import signal
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run as current
from pydantic import ValidationError
from pydantic_settings import SettingsError

from flows.logs import shorten_refusals
from recsys.errors import RecsysError
from recsys.operations.runs import Run, record_run
from recsys.settings import Settings
from recsys.signals import is_stopping, stop_signal, watch_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import date

    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

shorten_refusals()


@contextmanager
def flow_run(flow: str, hidden: Collection[str] = ()) -> Iterator[Run]:
    """Do the current Prefect flow run as a run of the library, under the same id.

    Args:
        flow: its name.
        hidden: parameters that `runs` must not hold.

    Raises:
        TerminationSignal, KeyboardInterrupt: the process was asked to stop, which Prefect has to
            know by these, whatever became of them on their way: it calls the run cancelled then.
    """
    with watch_signals():
        try:
            given = current.get_parameters()
            parameters = {name: value for name, value in given.items() if name not in hidden}
            with record_run(flow, str(current.get_id()), Settings(), parameters) as run:
                yield run
        except Exception:
            if not (stopped := stop_signal()):
                raise
            if stopped is signal.SIGINT:
                raise KeyboardInterrupt from None
            raise TerminationSignal(stopped) from None


def run_name() -> str:
    """Return the name of the current flow run: the flow, and the day that the run is for."""
    day = current.get_parameters().get("run_date")
    if day is None:
        start = current.get_scheduled_start_time()
        try:
            day = Settings().run_date(start)
        except (ValidationError, SettingsError, tomllib.TOMLDecodeError):  # the run will say it
            day = start.date()
    return f"{current.get_flow_name()} {day}"


def checked_run_date(run: Run, run_date: date | None) -> date:
    """Return the run_date of the current flow run: by default the day it was scheduled for.

    Not the day it is now: a night that starts before midnight, waits, or is tried again after it
    is still that night.

    Raises:
        ConfigurationError: the day lies in the future.
    """
    run_date = run_date or run.settings.run_date(current.get_scheduled_start_time())
    run.settings.check_run_date(run_date)
    return run_date


def retrying_task(
    name: str, seconds: tuple[float, ...] = (10, 60)
) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Make a step a task, tried again after so many seconds each where that may help."""
    return task(
        name=name,
        retries=len(seconds),
        retry_delay_seconds=list(seconds),
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
    )


def is_transient(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's signature
    """Say whether trying again may help: after a passing fault of network or storage only."""
    if is_stopping():
        return False
    error = state.result(raise_on_failure=False)
    return error.transient if isinstance(error, RecsysError) else isinstance(error, OSError)
