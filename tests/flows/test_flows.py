"""The flows on a real Prefect API, in this process."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import httpx
import pyarrow as pa
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.backfill import backfill_flow
from flows.deliver import deliver_task
from flows.erase import erase_flow
from flows.ingest import ingest_flow
from flows.lists_rollback import lists_rollback_flow
from flows.maintain import maintain_flow
from flows.nightly import nightly_flow
from flows.promote import promote_flow, rollback_flow
from flows.train import train_flow
from flows.watch import watch_flow
from recsys.account import current_account
from recsys.catalog.query import query_catalog
from recsys.errors import ConfigurationError, ContractError, LakeError, SourceError
from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.model.config import ModelConfig, TrainingConfig
from recsys.model.presets import PRESETS
from recsys.model.recommender import Recommender
from recsys.operations.summary import night_summary
from recsys.registry.models import model_rows, save_model
from recsys.registry.promote import promote, register_model
from recsys.settings import RecommendingChanges, Settings, Source
from tests import lakes, worlds
from tests.flows import nights
from tests.flows.processes import until

DAY = date(2026, 1, 2)


@pytest.fixture
def shop(tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Lake]:
    """A source, and a lake that is not there yet."""
    nights.make_source(tmp_path / "source.duckdb")
    return configured(tmp_path, prefect_api, monkeypatch)


def configured(folder: Path, api: str, patch: pytest.MonkeyPatch) -> tuple[Path, Lake]:
    source, lake = folder / "source.duckdb", folder / "lake"
    for name, value in nights.environment(source, lake, api).items():
        if name.startswith("RECSYS_"):
            patch.setenv(name, value)
    return source, Lake.from_settings(Settings())


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Path:
    """A folder with a source and its lake after a night of DAY that trained nothing; and a copy."""
    folder = tmp_path_factory.mktemp("night") / "shop"
    folder.mkdir()
    nights.make_source(folder / "source.duckdb")
    with pytest.MonkeyPatch.context() as patch:
        configured(folder, prefect_api, patch)
        nightly_flow(train="never", run_date=DAY, as_of="now")
    shutil.copytree(folder, folder.with_name("kept"))
    return folder


@pytest.fixture
def night(
    first_night: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Lake]:
    """The source and the lake after that night, put back: a source is known by its path."""
    shutil.rmtree(first_night)
    shutil.copytree(first_night.with_name("kept"), first_night)
    return configured(first_night, prefect_api, monkeypatch)


def rows(lake: Lake, statement: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query_catalog(lake, statement).to_pylist()
    return found


def artifacts(run_id: str) -> dict[str, Any]:
    """Key -> data of the artifacts of one flow run."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        return {found.key: found.data for found in client.read_artifacts(artifact_filter=wanted)}


def events(run_id: str, number: int) -> set[str]:
    """Names of our events that a flow run told, as soon as there are so many."""
    related = {"id": [f"prefect.flow-run.{run_id}"]}
    asked = {"filter": {"event": {"prefix": ["recsys."]}, "related": related}}

    def told() -> set[str]:
        with get_client(sync_client=True) as client:
            found = client._client.post("/events/filter", json=asked).raise_for_status().json()
        names = {event["event"] for event in found["events"]}
        return names if len(names) >= number else set()

    found: set[str] = until(told, 30)
    return found


@pytest.mark.slow
def test_what_cannot_be_shown_stops_no_night(
    shop: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's API answers, but not to what only shows how it goes."""
    asked: list[object] = []

    def refuse(*given: object, **named: object) -> None:
        asked.append((given, named))
        raise httpx.ConnectError("no route")

    for name in ("create_progress_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(f"flows.artifacts.{name}", refuse)
    nightly_flow(train="never", run_date=DAY, as_of="now")
    assert asked
    (found,) = rows(shop[1], "select count(distinct user_id) as users from latest_recommendations")
    assert found["users"] == nights.USERS


def test_a_night_ends_with_lists_a_row_in_runs_and_artifacts(
    shop: tuple[Path, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, lake = shop
    sink = tmp_path / "delivered"
    monkeypatch.setenv("RECSYS_SINKS", json.dumps([{"name": "shop", "to": str(sink)}]))
    state = nightly_flow(train="always", run_date=DAY, as_of="now", return_state=True)
    assert re.fullmatch(
        r"360 new interactions, 2 refused; 40 users served, \d+ by popularity; "
        r"trained m-\w+: (champion|rejected)",
        state.message or "",
    )
    (run,) = rows(lake, "select * from runs")
    assert (run["flow"], run["status"]) == ("nightly", "completed")
    outcome = json.loads(run["outcome"])
    assert outcome["ingest"]["accepted"] == nights.USERS * 9
    assert outcome["ingest"]["quarantined"] == 2
    assert outcome["recommend"]["rows"] == nights.USERS * nights.K
    lists = rows(lake, "select distinct run_id, run_date from latest_recommendations")
    assert lists == [{"run_id": run["run_id"], "run_date": DAY}]
    (manifest,) = sink.glob(f"run_date={DAY}/_manifest.json")
    delivered = json.loads(manifest.read_text())
    assert (delivered["run_id"], delivered["rows"]) == (run["run_id"], nights.USERS * nights.K)
    found = artifacts(run["run_id"])
    assert {"ingest", "live-metrics", "drift", "train", "recommend"} <= set(found)
    assert found["progress-ingest"] == found["progress-recommending"] == 100.0
    assert f"| users served | {nights.USERS} |" in found["recommend"]
    assert "# m-" in found["train"], "the model's card"
    assert (
        Path(lake.root, "checks", f"{outcome['ingest']['batch_id']}.html").as_uri()
        in found["checks"]
    )
    assert f"file://{lake.root}/reports/2026-01-02.html" in found["report"]
    assert Path(f"{lake.root}/reports/2026-01-02.html").exists()
    with get_client(sync_client=True) as client:
        shown = client.read_flow_run(run["run_id"])
    assert (shown.name, shown.flow_version) == ("nightly 2026-01-02", run["code_version"])
    fate = "promoted" if outcome["train"]["status"] == "champion" else "rejected"
    assert events(run["run_id"], 2) == {f"recsys.model.{fate}", "recsys.lists.published"}

    late = watch_flow(return_state=True)
    assert late.name == "Late lists"
    assert late.message
    assert late.message.endswith("the newest are of 2026-01-02")
    assert events(str(late.state_details.flow_run_id), 1) == {"recsys.lists.late"}

    nights.next_day(source)
    state = nightly_flow(train="never", return_state=True)  # today's
    assert watch_flow(return_state=True).is_completed()
    assert state.message
    assert state.message.startswith("40 new interactions, 1 refused; 40 users served, ")
    assert state.message.endswith("days old") == (fate == "promoted")
    page = artifacts(rows(lake, "select * from runs order by started desc")[0]["run_id"])["ingest"]
    assert "| new interactions | 40 | 360 | -320 |" in page

    trained = train_flow(overrides={"warmup": 3}, return_state=True)
    assert (trained.name, trained.type) in [("Completed", "COMPLETED"), ("Rejected", "FAILED")]
    made = rows(lake, "select config from models order by trained_at")
    one, other = (json.loads(row["config"])["training"] for row in made)
    assert other == {**one, "warmup": 3}, "what is configured holds beside what is given"


@pytest.mark.slow
def test_a_person_rolls_a_model_back_and_promotes_it_again_by_flows(
    shop: tuple[Path, Lake],
) -> None:
    _, lake = shop
    lakes.fill(lake, {1: [7]})
    model = Recommender(worlds.small("best").model, 1)
    save_model(lake, "m-a", model, ItemIds(pa.array([7])), {}, "# m-a")
    register_model(lake, lakes.model_row("m-a"))
    rollback_flow(why="it sold less")
    assert rows(lake, "select model_id from champion") == []
    promote_flow(model_id="m-a", why="it was the weather")
    assert rows(lake, "select model_id from champion") == [{"model_id": "m-a"}]
    changes = rows(
        lake,
        "select action, model_id, flow, status from promotions left join runs using (run_id) "
        "order by promoted_at",
    )
    assert [tuple(change.values()) for change in changes] == [
        ("gate", "m-a", None, None),
        ("rollback", None, "rollback", "completed"),
        ("promote", "m-a", "promote", "completed"),
    ]
    with pytest.raises(ConfigurationError, match="no model 'm-x'"):
        promote_flow(model_id="m-x", why="why")


@pytest.mark.slow
def test_a_refused_batch_stops_the_night_and_the_lists_of_before_stand(
    night: tuple[Path, Lake],
) -> None:
    source, lake = night
    before = rows(lake, "select * from latest_recommendations order by user_id, rank")
    with duckdb.connect(str(source)) as con:
        con.execute(
            "insert into events select null, 1, '2026-01-03' from range(200) union all "
            "select 1, 2, timestamp '2026-01-03'"
        )
    with pytest.raises(ContractError, match=r"rejected"):
        nightly_flow(run_date=date(2026, 1, 3), as_of="now")
    assert rows(lake, "select * from latest_recommendations order by user_id, rank") == before
    run = rows(lake, "select * from runs order by started desc")[0]
    assert run["status"] == "refused"
    assert "rejected" in run["error"]
    assert "rejected" in artifacts(run["run_id"])["ingest-refused"]
    assert events(run["run_id"], 1) == {"recsys.batch.refused"}
    assert rows(lake, "select count(*) as n from quarantine") == [{"n": 2}]


@pytest.mark.usefixtures("shop")
def test_a_missing_source_is_refused_without_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SOURCE", json.dumps({"uri": "nowhere.duckdb", "table": "t"}))
    with pytest.raises(SourceError, match=r"nowhere\.duckdb"):
        nightly_flow(run_date=DAY, as_of="now")


@pytest.mark.slow
def test_users_with_one_interaction_each_are_served_by_popularity(
    shop: tuple[Path, Lake],
) -> None:
    source, lake = shop
    with duckdb.connect(str(source)) as con:
        con.execute("delete from events where extract(minute from timestamp) > 0")
        con.execute("delete from events where user_id is null or item_id is null")
    nightly_flow(train="always", run_date=DAY, as_of="now")
    reasons = rows(lake, "select distinct reason, model_id from latest_recommendations")
    assert reasons == [{"reason": "popular", "model_id": None}]
    outcome = json.loads(rows(lake, "select outcome from runs")[0]["outcome"])
    assert "interactions" in outcome["train"]["refused"]


@pytest.mark.slow
def test_a_training_that_fails_does_not_take_the_lists_with_it(shop: tuple[Path, Lake]) -> None:
    source, lake = shop
    nightly_flow(train="always", run_date=DAY, as_of="now")
    with lake.write_lock():
        promote(lake, model_rows(lake)[0].model_id, why="a test", run_id="test")
    nights.next_day(source)
    state = nightly_flow(
        train="always",
        run_date=date(2026, 1, 3),
        training={"width": 400_000},
        as_of="now",
        return_state=True,
    )
    assert state.is_completed()
    assert "not trained" in str(state.message)
    assert "memory" in str(state.message)
    (run,) = rows(lake, "select * from runs order by started desc limit 1")
    assert (run["status"], "memory" in run["error"]) == ("completed", True)
    served = rows(lake, "select count(distinct user_id) as users from latest_recommendations")
    assert served == [{"users": nights.USERS}]
    assert "memory" in night_summary(lake)


@pytest.mark.slow
def test_a_night_judges_the_lists_of_before_and_goes_on_where_it_can_not(
    night: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, lake = night
    best = rows(lake, "select user_id, item_id from latest_recommendations where rank = 1")
    taken = [(row["user_id"], row["item_id"]) for row in best if row["user_id"] < 10]
    with duckdb.connect(str(source)) as con:
        con.executemany("insert into events values (?, ?, timestamp '2026-01-03 12:00')", taken)
        con.execute("insert into events values (20, 777, timestamp '2026-01-03 12:00')")
    state = nightly_flow(train="never", run_date=date(2026, 1, 4), as_of="now", return_state=True)
    told = "live hits of 2026-01-02: 90.9% of 11 active users (popularity: 90.9%)"
    assert told in str(state.message)
    assert "90.9% took one of their first 5; of popularity's, 90.9%" in night_summary(lake)

    def fail(*_: object) -> None:
        raise LakeError("the disk is gone")

    monkeypatch.setattr("recsys.operations.monitoring.judged_lists", fail)
    state = nightly_flow(train="never", run_date=date(2026, 1, 5), as_of="now", return_state=True)
    assert state.is_completed()
    assert "the disk is gone" in night_summary(lake)
    (run,) = rows(lake, "select * from runs order by started desc limit 1")
    assert run["error"] == "no live metrics: the disk is gone"
    served = rows(lake, "select max(run_date) as day from latest_recommendations")
    assert served == [{"day": date(2026, 1, 5)}]


@pytest.mark.slow
def test_a_night_that_hangs_in_a_query_is_stopped_and_failed(
    night: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, lake = night
    endless = {"uri": str(source), "query": nights.CROSS_JOIN}
    monkeypatch.setenv("RECSYS_SOURCE", json.dumps(endless))
    monkeypatch.setenv("RECSYS_TIME_LIMIT", "PT3S")
    state = nightly_flow(train="never", run_date=date(2026, 1, 3), return_state=True)
    assert state.is_failed()
    assert "longer than time_limit = 0:00:03" in str(state.message)
    statuses = {row["status"] for row in lake.rows("runs").to_pylist()}
    assert statuses == {"completed", "failed"}


@pytest.mark.slow
def test_a_training_that_the_gate_rejected_is_not_completed(night: tuple[Path, Lake]) -> None:
    """Every user's next item is theirs to guess: after one epoch, popularity is as good."""
    state = train_flow(epochs=1, overrides={"learning_rate": 1e-9}, return_state=True)
    assert (state.name, state.is_failed()) == ("Rejected", True)
    found = {row["flow"]: row for row in rows(night[1], "select * from runs")}
    outcome = json.loads(found["train"]["outcome"])["train"]
    assert (outcome["status"], found["train"]["status"]) == ("rejected", "rejected")
    assert found["nightly"]["status"] == "completed"


def test_wrong_parameters_are_refused_before_anything_runs(shop: tuple[Path, Lake]) -> None:
    with pytest.raises(ParameterTypeError, match="epochs"):
        train_flow(epochs=0)
    with pytest.raises(ParameterTypeError, match="train"):
        nightly_flow(train="sometimes")  # type: ignore[arg-type]
    with pytest.raises(ParameterTypeError, match="seed"):
        train_flow(seed=99999999999999999999)
    with pytest.raises(ParameterTypeError, match="k"):
        nightly_flow(recommending={"k": 20_000})  # type: ignore[arg-type]
    assert not Path(shop[1].root).exists()


@pytest.mark.slow
def test_what_cannot_be_done_is_refused_before_anything_is_ingested(
    shop: tuple[Path, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lake = shop
    with pytest.raises(ConfigurationError, match="lies in the future"):
        nightly_flow(run_date=date(2999, 1, 1))
    with pytest.raises(ConfigurationError, match="no preset 'none-such'; there are best"):
        train_flow(preset="none-such")
    monkeypatch.setenv("RECSYS_TRAINING", json.dumps({"preset": "none-such"}))
    for train in ("always", "policy"):
        with pytest.raises(ConfigurationError, match="no preset 'none-such'; there are best"):
            nightly_flow(train=train)  # type: ignore[arg-type]
    assert not lake.exists("interactions")


def test_the_schema_of_a_training_knows_presets_and_bounds() -> None:
    """Prefect's API checks parameters by it, and makes no run of wrong ones."""
    properties = train_flow.parameters.model_dump()["properties"]
    preset = properties["preset"]["anyOf"][0]
    assert preset["enum"] == list(PRESETS)
    assert properties["seed"]["anyOf"][0]["maximum"] == 2**63 - 1
    overrides = properties["overrides"]["anyOf"][0]
    assert overrides["additionalProperties"] is False
    for config in (ModelConfig, TrainingConfig):
        for field in fields(config):
            schema = overrides["properties"][field.name]
            assert "enum" in schema or {"minimum", "exclusiveMinimum"} & set(schema), field.name
            if "minimum" in schema:  # the same bound as the configuration's own
                with pytest.raises(ConfigurationError, match=field.name):
                    config(**{field.name: type(field.default)(schema["minimum"] - 1)})


@pytest.mark.slow
def test_a_night_may_change_what_is_configured_for_lists(shop: tuple[Path, Lake]) -> None:
    nightly_flow(train="never", run_date=DAY, as_of="now", recommending=RecommendingChanges(k=3))
    assert rows(shop[1], "select max(rank) as k from latest_recommendations") == [{"k": 3}]


@pytest.mark.slow
def test_maintenance_and_an_erasure_are_flows_and_runs_do_not_keep_who_was_erased(
    shop: tuple[Path, Lake],
) -> None:
    _, lake = shop
    lakes.fill(lake, {4711: [7, 8], 2: [7]})
    lakes.fill(lake, {4711: [9]}, batch_id="later", day=1)
    maintain_flow()
    assert len(lake.open("interactions").file_uris()) == 1
    erase_flow(user="4711", why="asked for it")
    (maintained, erased) = rows(lake, "select * from runs order by started")
    assert (maintained["flow"], maintained["status"]) == ("maintain", "completed")
    assert (erased["flow"], erased["status"]) == ("erase", "completed")
    assert json.loads(erased["outcome"])["erase"]["interactions"] == 3
    assert "4711" not in repr(erased)
    assert rows(lake, "select distinct user_id from interactions") == [{"user_id": 2}]
    assert "erase" in artifacts(erased["run_id"])


def scheduled_night(deployment_id: UUID, time: datetime, **parameters: Any) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(
            deployment_id, parameters=parameters, state=Scheduled(scheduled_time=time)
        )


@pytest.mark.slow
def test_three_missed_nights_end_in_one(shop: tuple[Path, Lake]) -> None:
    """After an outage they run one after the other, oldest first, as a worker takes them."""
    _, lake = shop
    deployment_id = nightly_flow.to_deployment("late").apply()
    now = datetime.now(UTC) - timedelta(seconds=5)
    missed = [
        scheduled_night(deployment_id, now - timedelta(days=days), train="never")
        for days in (2, 1, 0)
    ]
    yesterday = Settings().run_date() - timedelta(days=1)
    look = scheduled_night(watch_flow.to_deployment("late").apply(), now - timedelta(days=1))
    told = run_flow(watch_flow, flow_run=look, return_type="state")
    assert told.message == f"the day that this was due, {yesterday}, is over"
    # A day older, and started last: lists of a newer day stand by then.
    oldest = scheduled_night(deployment_id, now - timedelta(days=3), train="never")
    states = [
        run_flow(nightly_flow, flow_run=run, parameters=run.parameters, return_type="state")
        for run in (*missed, oldest)
    ]
    assert [state.name for state in states] == ["Skipped", "Skipped", "Completed", "Skipped"]
    today = Settings().run_date()
    assert states[0].message == f"skipped: the night of {today} is due as well"
    assert states[3].message == f"skipped: edition 1 of {today} stands already"
    assert rows(lake, "select run_date, edition from editions") == [
        {"run_date": today, "edition": 1}
    ]
    # Before the first ingest a lake has no place for the row of a run.
    found = rows(lake, "select outcome ->> 'skipped' as why from runs where outcome like '%skip%'")
    assert found == [{"why": f"edition 1 of {today} stands already"}]
    every = scheduled_night(
        deployment_id, now - timedelta(days=1), train="never", catch_up="all", as_of="now"
    )
    run_flow(nightly_flow, flow_run=every, parameters=every.parameters)
    assert [row["run_date"] for row in rows(lake, "select run_date from editions order by 1")] == [
        today - timedelta(days=1),
        today,
    ]


@pytest.mark.slow
def test_a_backfill_and_a_rollback_of_lists_are_flows(
    night: tuple[Path, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink follows them; another one that fails stops nothing, and is told of."""
    _, lake = night
    lists = tmp_path / "lists"
    (tmp_path / "taken").touch()
    sinks = [{"name": "good", "to": str(lists)}, {"name": "bad", "to": str(tmp_path / "taken")}]
    monkeypatch.setenv("RECSYS_SINKS", json.dumps(sinks))
    monkeypatch.setattr(deliver_task, "retries", 0)
    last = DAY + timedelta(days=1)
    backfill_flow(DAY, last, dry_run=True, as_of="now")
    assert len(rows(lake, "from editions")) == 1
    backfill_flow(DAY, last, as_of="now")
    assert json.loads((lists / f"run_date={last}" / "_manifest.json").read_text())["edition"] == 1
    (run,) = rows(lake, "select * from runs where flow = 'backfill' order by started desc limit 1")
    assert run["status"] == "completed"
    assert run["error"].startswith("not delivered to bad: ")
    assert json.loads(run["outcome"])["deliver good"]["delivered"] == [str(last)]
    assert rows(lake, "select run_date, users from editions order by 1") == [
        {"run_date": DAY, "users": nights.USERS},
        {"run_date": last, "users": nights.USERS},
    ]
    lists_rollback_flow(last, "sold out")
    assert not (lists / f"run_date={last}" / "_manifest.json").exists()
    newest = rows(lake, "select distinct run_date from latest_recommendations")
    assert newest == [{"run_date": DAY}]
    runs = rows(lake, "select parameters, outcome from runs where flow = 'lists-rollback'")
    assert json.loads(runs[0]["parameters"])["why"] == "sold out"
    assert json.loads(runs[0]["outcome"])["rollback"]["who"] == current_account()


@pytest.mark.slow
def test_a_run_brings_a_source_of_its_own_only_where_that_is_allowed(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, other = tmp_path / "source.duckdb", tmp_path / "other.duckdb"
    for path in (configured, other):
        nights.make_source(path)
    lake = tmp_path / "lake"
    for name, value in nights.environment(configured, lake, prefect_api).items():
        if name.startswith("RECSYS_"):
            monkeypatch.setenv(name, value)
    source = Source(uri=str(other), table="events")
    for flow in (nightly_flow, ingest_flow):
        with pytest.raises(ConfigurationError, match="set allow_source_parameter = true"):
            flow(source=source)
    assert not (lake / "interactions").exists()
    monkeypatch.setenv("RECSYS_ALLOW_SOURCE_PARAMETER", "true")
    ingest_flow(source=source)
    assert (lake / "interactions").exists()
