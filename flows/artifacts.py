"""What Prefect's pages show of a flow run: progress while it goes on, a report of each step."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from flows.events import tell_refusal, tell_result
from flows.story import step_told
from recsys.errors import RecsysError
from recsys.ingest.check_page import check_page_address
from recsys.markdown import code_block
from recsys.terminal import bars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from recsys.operations.runs import Run
    from recsys.progress import Progress

Result = TypeVar("Result")

_EVERY = 2.0
"""Seconds between two updates of a progress artifact: each is a request to the API."""


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show progress as bars in a terminal and as artifacts of the flow run."""
    artifacts: dict[str, UUID] = {}
    updated: dict[str, float] = {}
    api_lost = False
    with bars() as terminal:

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            nonlocal api_lost
            terminal(stage, done, total, note)
            now = time.monotonic()
            if api_lost or (done < total and now - updated.get(stage, -_EVERY) < _EVERY):
                return
            updated[stage] = now
            api_lost = not _show(partial(_progress, artifacts, stage, done, total, note))

        yield report


def _progress(artifacts: dict[str, UUID], stage: str, done: int, total: int, note: str) -> None:
    percent = 100.0 * done / max(1, total)
    if stage in artifacts:
        update_progress_artifact(artifacts[stage], percent, description=note or stage)
    else:
        # A key of its own: the report of the step `ingest` has the key `ingest`.
        key = f"progress-{_key(stage)}"
        artifacts[stage] = cast("UUID", create_progress_artifact(percent, key, note or stage))


def _key(name: str) -> str:
    """Return a name as Prefect takes one for an artifact."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _show(create: Callable[[], object]) -> bool:
    """Show or tell something, and say whether that went well: it must not stop the work."""
    try:
        create()
    except Exception as error:  # of httpx, of Prefect, of any layer between
        get_run_logger().warning("Prefect can't show this: %s: %s", type(error).__name__, error)
        return False
    return True


def run_step(run: Run, name: str, work: Callable[[Progress], Result]) -> Result:
    """Do a step of a run: show its progress, then its result or why it was refused.

    Args:
        run: records the result, a dataclass, for `runs.outcome`.
        name: name of the step and of its artifact.
        work: does the step and reports its progress.
    """
    try:
        with show_progress() as progress:
            result = work(progress)
    except RecsysError as error:
        text = f"# {name.capitalize()}: refused\n\n{code_block(str(error))}"
        _report(text, f"{_key(name)}-refused", f"why {name} was refused")
        _show(partial(tell_refusal, run, name, error))
        raise
    run.record(name, result)
    _show(partial(_tell, run, name))
    _show(partial(tell_result, run, name))
    return result


def _tell(run: Run, step: str) -> None:
    """Tell of a step in the log and as an artifact; of a batch also where its checks lie."""
    line, page = step_told(run, step)
    get_run_logger().info(line)
    create_markdown_artifact(page, key=_key(step), description=line)
    if step == "ingest" and (batch_id := run.outcome[step]["batch_id"]):
        page = check_page_address(run.lake, batch_id)
        _link(run, page, "Checks", "checks", "every check of the batch")


def link_report(run: Run) -> None:
    """Link the report that a run wrote at its end, where it wrote one."""
    if run.report:
        _show(partial(_link, run, run.report, "Report", "report", "the night's lists on one page"))


def _link(run: Run, address: str, text: str, key: str, description: str) -> None:
    link = Path(address).absolute().as_uri() if run.lake.is_local else address
    create_link_artifact(link, link_text=text, key=key, description=description)


def _report(text: str, key: str, description: str) -> None:
    _show(partial(create_markdown_artifact, text, key=key, description=description))
