"""What a flow run shows: progress while it goes on, a report when a step ends."""

from __future__ import annotations

import dataclasses
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from recsys.report import markdown
from recsys.terminal import bars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from recsys.progress import Progress

_EVERY = 2.0
"""Seconds between two updates of a progress artifact: each is a request to the API."""


@contextmanager
def watched() -> Iterator[Progress]:
    """Show progress as bars in a terminal and as artifacts of the flow run."""
    artifacts: dict[str, UUID] = {}
    last: dict[str, float] = {}
    with bars() as terminal:

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            terminal(stage, done, total, note)
            now = time.monotonic()
            if done < total and now - last.get(stage, -_EVERY) < _EVERY:
                return
            last[stage] = now
            percent = 100.0 * done / max(1, total)
            if stage in artifacts:
                update_progress_artifact(artifacts[stage], percent, description=note or stage)
            else:
                key = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
                artifacts[stage] = cast(
                    "UUID", create_progress_artifact(percent, key, note or stage)
                )

        yield tell


def report(step: str, result: Any) -> None:
    """Attach a step's result dataclass to the flow run, as a Markdown table."""
    create_markdown_artifact(
        markdown(step.capitalize(), dataclasses.asdict(result)),
        key=step,
        description=f"what {step} came to",
    )


def refusal(step: str, reason: str) -> None:
    """Attach the reason of a refusal to the flow run."""
    create_markdown_artifact(
        f"# {step.capitalize()}: refused\n\n```\n{reason}\n```",
        key=f"{step}-refused",
        description=f"why {step} was refused",
    )
