"""Serve the deployments from this machine, with a Prefect server of our own when none is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prefect
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.nightly import nightly_flow
from flows.server import prefect_server
from flows.train import train_flow
from recsys.errors import ConfigurationError
from recsys.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect import Flow


def serve_deployments(
    cron: str, timezone: str | None, train: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve ``nightly/daily`` on a schedule and ``train/on-demand`` until stopped.

    Two runs at a time: a night that is due does not wait for a training. The lake's lock lets one
    write at a time.

    Args:
        cron: when nightly runs, e.g. ``"0 2 * * *"``.
        timezone: of the schedule and of run dates, e.g. ``"Europe/Berlin"``; the settings' own
            when not given.
        train: when a night trains: ``train`` of `nightly_flow`.
        port: port of the Prefect server, where one has to be started.
        say: told where the server is.

    Raises:
        ConfigurationError: the schedule is not valid, no source is configured, or the port is
            taken.
    """
    if timezone is not None:
        timezone = Settings(timezone=timezone).timezone
        os.environ["RECSYS_TIMEZONE"] = timezone  # the processes that run the flows read it
    else:
        timezone = Settings().timezone
    try:
        schedule = Cron(cron, timezone=timezone)
        daily = _deployment(nightly_flow, "daily", schedule=schedule, parameters={"train": train})
    except ValueError as error:
        raise ConfigurationError(
            f"schedule {cron!r} in time zone {timezone!r} is not valid: {error}"
        ) from error
    Settings().required_source()
    with prefect_server(port, say):
        prefect.serve(daily, _deployment(train_flow, "on-demand"), limit=2)


def _deployment(flow: Flow[Any, Any], name: str, **options: Any) -> RunnerDeployment:
    """Return a deployment whose runs load the flow from `flows.entrypoints`."""
    deployment = flow.to_deployment(name, **options)
    assert isinstance(deployment, RunnerDeployment)  # noqa: S101 - we are in no event loop
    deployment.entrypoint = f"{Path(__file__).with_name('entrypoints.py')}:{flow.fn.__name__}"
    return deployment
