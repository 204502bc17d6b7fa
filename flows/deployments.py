"""The deployments of prefect.yaml, for `recsys serve`; `prefect deploy` reads the same file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentScheduleUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.client.schemas.responses import DeploymentResponse

TAG = "recsys"
"""Of every deployment of ours, and of its runs."""


@dataclass(frozen=True)
class Served:
    """A deployment to serve.

    Attributes:
        deployment: as Prefect wants it.
        queue: runs of one queue go one after the other.
    """

    deployment: RunnerDeployment
    queue: str


def beside_flows(name: str) -> Path:
    """Return a file: beside the flows in an installed package, in deployments/ of a checkout."""
    flows = Path(__file__).parent
    installed = flows / name
    return installed if installed.exists() else flows.parent / "deployments" / name


def read_deployments(timezone: str, crons: Mapping[str, str]) -> dict[str, Served]:
    """Return every deployment of prefect.yaml by its full name, such as ``nightly/daily``.

    Args:
        timezone: of the schedules, in place of the file's.
        crons: full name -> when it runs, in place of the file's.

    Raises:
        ConfigurationError: no such time zone, or a cron that is not valid.
    """
    text = beside_flows("prefect.yaml").read_text(encoding="utf-8")
    served = [_read(entry, timezone, crons) for entry in yaml.safe_load(text)["deployments"]]
    return {each.deployment.full_name: each for each in served}


def _read(entry: dict[str, Any], timezone: str, crons: Mapping[str, str]) -> Served:
    module, _, name = entry["entrypoint"].rpartition(".")
    entrypoints = import_module(module)
    flow = getattr(entrypoints, name)
    cron = crons.get(f"{flow.name}/{entry['name']}")
    try:
        schedules = [
            Cron(cron or each["cron"], timezone, slug=each["slug"], active=each.get("active", True))
            for each in entry.get("schedules", [])
        ]
        deployment = flow.to_deployment(
            entry["name"],
            description=entry["description"],
            tags=entry["tags"],
            parameters=entry.get("parameters"),
            schedules=schedules,
            paused=False,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"schedule {cron!r} in time zone {timezone!r} is not valid: {error}"
        ) from error
    assert isinstance(deployment, RunnerDeployment)  # noqa: S101 - we are in no event loop
    deployment.entrypoint = f"{entrypoints.__file__}:{name}"
    return Served(deployment, entry["work_pool"]["work_queue_name"])


def keep_what_was_set(deployment: RunnerDeployment, *, new_schedule: bool) -> None:
    """Give a deployment the schedules, and the pause, that it has on the Prefect server.

    Whoever set them on Prefect's page or by its commands wants to find them there again.

    Args:
        deployment: is changed.
        new_schedule: its own schedule, known by its slug, replaces the server's.

    Raises:
        ConfigurationError: the deployment is of a work pool: its nights would be run twice.
    """
    with get_client(sync_client=True) as client:
        try:
            before = client.read_deployment_by_name(deployment.full_name)
        except ObjectNotFound:
            return
    if before.work_pool_name:
        raise ConfigurationError(
            f"{deployment.full_name} runs on the work pool {before.work_pool_name!r} of this "
            "Prefect server: start a worker of that pool instead, or delete it with `prefect "
            f"deployment delete {deployment.full_name}`, or unset PREFECT_API_URL for a server of "
            "your own"
        )
    if TAG not in before.tags:  # an earlier release made it: its schedule was not an operator's
        return
    deployment.paused = before.paused
    deployment.schedules = _merged(deployment, before, new_schedule)


def _merged(
    deployment: RunnerDeployment, before: DeploymentResponse, new_schedule: bool
) -> list[DeploymentScheduleCreate | DeploymentScheduleUpdate]:
    ours = (deployment.schedules or []) if new_schedule else []
    slugs = {schedule.slug for schedule in ours}
    kept = [
        DeploymentScheduleCreate(
            schedule=schedule.schedule,
            active=schedule.active,
            max_scheduled_runs=schedule.max_scheduled_runs,
            parameters=schedule.parameters,
            slug=schedule.slug,
        )
        for schedule in before.schedules
        if schedule.slug not in slugs or schedule.slug is None
    ]
    return [*kept, *ours]


def describe(deployment: RunnerDeployment) -> str:
    """Return a line on when a deployment runs, e.g. ``nightly/daily: 0 2 * * * (UTC)``."""
    if deployment.paused:
        return f"{deployment.full_name}: paused on Prefect's page"
    when = [
        _when(schedule.schedule) + ("" if schedule.active else ", switched off")
        for schedule in deployment.schedules or []
    ]
    return f"{deployment.full_name}: {'; '.join(when) or 'when you start it'}"


def _when(schedule: Any) -> str:
    rule = next(
        str(value)
        for name in ("cron", "rrule", "interval")
        if (value := getattr(schedule, name, None)) is not None
    )
    return f"{rule} ({schedule.timezone or 'UTC'})"
