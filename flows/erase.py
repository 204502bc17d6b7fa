"""Erase a user from every table, cache and page; a salted hash of the id stays."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import run_step
from flows.deliver import deliver_lists
from flows.runs import flow_run, retrying_task, run_name
from recsys.operations.erase import EraseResult, erase
from recsys.operations.runs import Run
from recsys.version import code_version


@retrying_task("erase")
def erase_task(run: Run, why: str, user: str) -> EraseResult:
    """Erase the user; a second try does what the first one left."""
    return run_step(run, "erase", lambda _: erase(run.lake, user, why))


@flow(name="erase", flow_run_name=run_name, version=code_version())
def erase_flow(user: str, why: str) -> None:
    """Erase a user from every table, cache and page of the lake. No source brings them back.

    Prefect keeps the parameters of its runs: delete the flow run afterwards, or use the command
    `recsys erase`.

    Args:
        user: the user's id.
        why: the reason, which stays; it must not name the user.
    """
    with flow_run("erase", hidden=("user",)) as run:
        erase_task(run, why, user)
        deliver_lists(run, ())
