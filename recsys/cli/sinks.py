"""What commands do after they changed lists: deliver them to sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.errors import RecsysError, SinkError
from recsys.signals import is_stopping
from recsys.terminal import bars, print_line

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date

    from recsys.operations.runs import Run
    from recsys.settings import Sink


def deliver_lists(
    run: Run, days: Collection[date], sinks: tuple[Sink, ...] | None = None
) -> list[RecsysError]:
    """Deliver lists of a run to sinks; return what went wrong, which the run's row says too.

    Nothing is raised: the lists in the lake are served whatever becomes of these.
    """
    from recsys.lists.sinks.deliver import deliver

    failed: list[RecsysError] = []
    for sink in run.settings.sinks if sinks is None else sinks:
        step = f"deliver {sink.name}"
        try:
            with run.lake.unlocked(), bars() as progress:
                result = deliver(
                    run.lake, run.settings, sink, days, run_id=run.run_id, progress=progress
                )
        except Exception as error:
            if is_stopping():
                raise
            told = run.record_failure(step, f"not delivered to {sink.name}", error)
            print_line(f"recsys: {told}")
            failed.append(error if isinstance(error, RecsysError) else SinkError(told))
        else:
            run.record(step, result)
            print_line(str(result))
    return failed
