"""`recsys serve` on a real Prefect server of its own, each piece a process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.flows import nights
from tests.flows.conftest import completed
from tests.flows.processes import (
    ask_for_run,
    cancel,
    in_use,
    kill,
    servers_of,
    start_run,
    state_of,
    until,
)

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.flows.conftest import Served


@pytest.mark.timeout(400)
def test_a_served_night_comes_by_schedule_in_a_folder_with_other_flows(served: Served) -> None:
    outcome = json.loads(served.rows(completed("nightly"))[0]["outcome"])
    assert outcome["recommend"]["users"] == nights.USERS
    assert "train" not in outcome


def test_a_training_comes_by_hand_with_parameters_that_are_checked(served: Served) -> None:
    refused = ask_for_run(served.env, "train/on-demand", epochs=0)
    assert refused.is_client_error
    assert "epochs" in refused.text
    start_run(served.env, "train/on-demand", epochs=1, seed=5)
    trained = until(lambda: served.rows(completed("train")), 120)[0]
    parameters = json.loads(trained["parameters"])
    assert (parameters["epochs"], parameters["seed"]) == (1, 5)
    model = json.loads(trained["outcome"])["train"]
    assert (model["epochs"], model["status"]) == (1, "champion") or model["status"] == "rejected"


def test_a_night_cancelled_within_a_query_is_cancelled_and_recorded(served: Served) -> None:
    nights.make_endless(served.source)
    night = start_run(served.env, "nightly/daily")
    until(lambda: in_use(served.process.pid, served.source), 120)
    cancel(served.env, night)
    until(lambda: state_of(served.env, night) == "CANCELLED", 60)
    rows = served.rows("select status, error from runs where run_id = $night", night=night)
    assert rows == [{"status": "cancelled", "error": "stopped by SIGTERM"}]


def test_a_killed_serve_leaves_no_process_behind(served: Served) -> None:
    """The last test: it ends what the others use. A night reads the endless source."""
    start_run(served.env, "nightly/daily")
    until(lambda: in_use(served.process.pid, served.source), 120)
    started = psutil.Process(served.process.pid).children(recursive=True)
    assert len(started) >= 2, "a server and a night"
    kill(served.process)
    served.process.wait(60)
    assert not psutil.wait_procs(started, 40)[1]
    assert not servers_of(served.port)
