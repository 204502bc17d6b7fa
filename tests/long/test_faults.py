"""At least 5,000 faults of an S3 endpoint, in over a hundred scenarios of whole commands.

A test that fails has its seed in its name. `make test-long` prints how many faults there were.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faulty_s3 import faulty_s3
from tests.long import faults

SEEDS = 1  # of each scenario; the seed says where a burst begins

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[faults.World]:
    folder = tmp_path_factory.mktemp("faults")
    with faulty_s3(folder) as s3, faults.make_world(s3, folder, prefect_api) as made:
        yield made


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
@pytest.mark.parametrize(("work", "plan"), faults.SCENARIOS, ids=str)
def test_a_command_whose_store_fails_and_that_is_run_again_ends_as_if_undisturbed(
    world: faults.World,
    work: str,
    plan: faults.Plan,
    seed: int,
    record_property: pytest.RecordProperty,
) -> None:
    count = faults.disturb(world, work, plan, seed)
    record_property("counted faults", (plan.fault, count))
    record_property("counted fault scenarios", (work, int(seed == 1)))
