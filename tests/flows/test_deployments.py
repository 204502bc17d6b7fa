"""prefect.yaml, once for `recsys serve` and for a work pool; what an operator set stays set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Running

from flows import server
from flows.deployments import Served, describe, keep_what_was_set, read_deployments
from recsys.catalog.query import query_catalog
from recsys.errors import ConfigurationError
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import ROOT, prefect, start_run

DAILY = "nightly/daily"
CLOCKS = [("daily", "0 2 * * *", True), ("weekly", "0 4 * * 0", False)]


def serve(cron: str | None = None) -> dict[str, Served]:
    """As `recsys serve` does it, up to the runs."""
    served = read_deployments("UTC", {DAILY: cron} if cron else {})
    for name, each in served.items():
        keep_what_was_set(each.deployment, new_schedule=cron is not None and name == DAILY)
        each.deployment.apply()
    return served


def schedules(client: SyncPrefectClient, name: str) -> list[tuple[str | None, str, bool]]:
    """Slug, cron and whether it is active of the schedules on the server."""
    return sorted(
        (each.slug, each.schedule.cron, each.active)
        for each in client.read_deployment_by_name(name).schedules
    )


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_what_an_operator_set_survives_the_next_start_and_a_new_schedule_replaces_ours_alone() -> (
    None
):
    served = serve()
    assert [describe(each.deployment) for each in served.values()][:3] == [
        "nightly/daily: 0 2 * * * (UTC)",
        "train/weekly: 0 4 * * 0 (UTC), switched off",
        "train/on-demand: when you start it",
    ]
    with get_client(sync_client=True) as client:
        assert [schedules(client, name) for name in (DAILY, "train/weekly")] == [
            [clock] for clock in CLOCKS
        ]
        training = client.read_deployment_by_name("train/on-demand")
        by_hand = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 5 * * 1"))
        client._client.post(
            f"/deployments/{training.id}/schedules", json=[by_hand.model_dump(mode="json")]
        ).raise_for_status()
        daily = client.read_deployment_by_name(DAILY)
        client._client.patch(
            f"/deployments/{daily.id}/schedules/{daily.schedules[0].id}", json={"active": False}
        ).raise_for_status()
        client.pause_deployment(client.read_deployment_by_name("train/weekly").id)

        served = serve()
        assert schedules(client, "train/on-demand") == [(None, "0 5 * * 1", True)]
        assert schedules(client, DAILY) == [("daily", "0 2 * * *", False)]
        assert client.read_deployment_by_name("train/weekly").paused
        assert describe(served["train/weekly"].deployment).endswith("paused on Prefect's page")

        serve("30 3 * * *")
        assert schedules(client, DAILY) == [("daily", "30 3 * * *", True)]
        assert schedules(client, "train/on-demand") == [(None, "0 5 * * 1", True)]
        for name in served:
            client.delete_deployment(client.read_deployment_by_name(name).id)


@pytest.mark.long
def test_a_pool_runs_the_installed_flows_in_a_folder_with_other_flows_and_serve_leaves_it_alone(
    prefect_api: str, tmp_path: Path
) -> None:
    home = tmp_path / "shop"
    for package in ("flows", "recsys", "sql"):  # of the user's, beside recsys.toml
        (home / package).mkdir(parents=True)
        (home / package / "__init__.py").touch()
    nights.make_source(home / "source.duckdb")
    (home / "recsys.toml").write_text(
        'lake = "./lake"\n[source]\nuri = "source.duckdb"\ntable = "events"\n'
    )
    env = {**os.environ, "PREFECT_API_URL": prefect_api, "RECSYS_HOME": str(home)}
    env |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    assert prefect(env, "work-pool", "create", "recsys", "--type", "process").returncode == 0
    file = str(ROOT / "deployments" / "prefect.yaml")
    done = prefect(env, "--no-prompt", "deploy", "--all", "--prefect-file", file)
    assert done.returncode == 0, done.stdout + done.stderr

    served = read_deployments("UTC", {})
    with get_client(sync_client=True) as client:
        for name, each in served.items():
            pooled = client.read_deployment_by_name(name)
            assert (pooled.work_pool_name, pooled.work_queue_name) == ("recsys", each.queue)
            for part in ("tags", "parameters", "description"):
                assert getattr(pooled, part) == getattr(each.deployment, part), (name, part)
        assert [schedules(client, name) for name in (DAILY, "train/weekly")] == [
            [clock] for clock in CLOCKS
        ]
        with pytest.raises(ConfigurationError, match="runs on the work pool 'recsys'"):
            serve()

        night = start_run(env, DAILY, train="never")
        worker = prefect(env, "worker", "start", "--pool", "recsys", "--run-once")
        assert worker.returncode == 0, worker.stdout + worker.stderr
        run = client.read_flow_run(night)
        assert run.state_type == StateType.COMPLETED, (run.state, worker.stdout, worker.stderr)
        for name in served:
            client.delete_deployment(client.read_deployment_by_name(name).id)
    rows = query_catalog(
        Lake(str(home / "lake"), ObjectStorage()), "select outcome from runs", {}
    ).to_pylist()
    assert json.loads(rows[0]["outcome"])["recommend"]["users"] == nights.USERS


@pytest.mark.usefixtures("prefect_api")
def test_runs_that_were_lost_are_closed_and_those_of_other_flows_are_not() -> None:
    names = [("nightly", "daily"), ("train", "on-demand"), ("etl", "daily"), ("nightly", "hourly")]
    with get_client(sync_client=True) as client:
        runs = []
        for flow, deployment in names:
            identity = client.create_flow_from_name(flow)
            deployed = client.create_deployment(identity, deployment)
            run = client.create_flow_run_from_deployment(deployed)
            client.set_flow_run_state(run.id, Running(), force=True)
            runs.append(run.id)
        server._close_lost_runs(["nightly/daily", "train/on-demand"])
        states = [client.read_flow_run(run).state_type for run in runs]
    assert [state and state.value for state in states] == [
        "CRASHED",
        "CRASHED",
        "RUNNING",
        "RUNNING",
    ]
