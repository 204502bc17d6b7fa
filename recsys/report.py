"""What a run came to: its row in `runs`, the catalog after it, the Markdown that people read."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import __version__, catalog, columns
from recsys.errors import RecsysError
from recsys.lake import Lake
from recsys.registry import as_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.settings import Settings


@dataclass
class Run:
    """A run that is going on: where it works, and what has come out of it so far."""

    run_id: str
    lake: Lake
    settings: Settings
    outcome: dict[str, Any] = field(default_factory=dict)

    def came_to(self, step: str, result: Any) -> None:
        """Keep a step's result dataclass for `runs.outcome`."""
        self.outcome[step] = dataclasses.asdict(result)


@contextmanager
def run(flow: str, run_id: str, settings: Settings, parameters: Mapping[str, Any]) -> Iterator[Run]:
    """Do a run: however it ends, write its row of `runs`, then publish the catalog.

    A lake without tables yet (its first ingest was refused before it knew the type of an id) has
    nowhere to record, and stays empty.
    """
    started = datetime.now(UTC)
    this = Run(run_id, Lake.at(settings), settings)
    status, error = "completed", None
    try:
        yield this
    except RecsysError as refusal:
        status, error = "refused", str(refusal)
        raise
    except BaseException as failure:
        status, error = "failed", f"{type(failure).__name__}: {failure}"
        raise
    finally:
        if this.lake.exists(columns.RUNS):
            finished = datetime.now(UTC)
            row = {
                "run_id": run_id,
                "flow": flow,
                "status": status,
                "started": started,
                "finished": finished,
                "seconds": (finished - started).total_seconds(),
                "parameters": as_json(dict(parameters)),
                "outcome": as_json(this.outcome),
                "error": error,
                "code_version": __version__,
            }
            schema = this.lake.schema(columns.RUNS)
            this.lake.append(columns.RUNS, pa.Table.from_pylist([row], schema=schema))
            catalog.publish(this.lake)


def markdown(title: str, values: Mapping[str, Any]) -> str:
    """Return a small Markdown table of names and values."""
    lines = [f"# {title}", "", "| | |", "|---|---|"]
    for name, value in values.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines)
