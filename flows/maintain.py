"""Keep the lake small: merge small files, expire what is old, remove what nothing needs."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import run_step
from flows.runs import flow_run, retrying_task, run_name
from recsys.operations.maintain import MaintainResult, maintain
from recsys.operations.runs import Run
from recsys.version import code_version


@retrying_task("maintain")
def maintain_task(run: Run, dry_run: bool) -> MaintainResult:
    """Do the upkeep of the lake; a second try goes on where the first one stopped."""
    return run_step(
        run,
        "maintain",
        lambda progress: maintain(run.lake, run.settings, dry_run=dry_run, progress=progress),
    )


@flow(name="maintain", flow_run_name=run_name, version=code_version())
def maintain_flow(dry_run: bool = False) -> None:
    """Merge small files; expire old lists, results of checks, models and versions.

    Args:
        dry_run: say what would be done, in the artifact, and change nothing.
    """
    with flow_run("maintain") as run:
        maintain_task(run, dry_run)


if __name__ == "__main__":
    maintain_flow()
