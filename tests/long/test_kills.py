"""Over 1,000 kills: `kill -9` at random moments of each command and flow, which then runs again.

A test that fails has its seed in its name. `make test-long` prints how many kills there were, the
looks at the catalog meanwhile, and the processor time of all attempts.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator

import pytest

from tests import servers
from tests.long import kills

MOST_KILLS = 8  # in a round
LOCAL, ON_S3 = "", " on S3"
# Each with its rounds.
WORK = [
    *((name, False, LOCAL, 14) for name in kills.COMMANDS),
    *((name, True, LOCAL, 14 if name == "nightly" else 5) for name in kills.FLOWS),
    *((name, False, ON_S3, 4) for name in kills.COMMANDS if name != "backfill"),
    ("nightly", True, ON_S3, 4),
]

# A round takes seconds of CPU time, and on a busy machine minutes.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> kills.Worlds:
    """What each command or flow starts and ends with, in a folder."""
    return kills.Worlds(tmp_path_factory.mktemp("kills"), prefect_api)


@pytest.fixture(scope="module")
def on_s3(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[kills.Worlds]:
    """What each command or flow starts and ends with, in a bucket."""
    folder = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as patch, servers.rclone_s3(folder) as endpoint:
        servers.use_credentials(patch)
        servers.client(endpoint).create_bucket(Bucket="kills")
        yield kills.Worlds(folder / "buckets" / "kills", prefect_api, endpoint)


@pytest.mark.parametrize(
    ("work", "is_flow", "place", "seed"),
    [
        pytest.param(
            work, is_flow, place, seed, id=f"{work}{' flow' if is_flow else ''}{place}-{seed}"
        )
        for seed in range(1, max(rounds for *_, rounds in WORK) + 1)
        for work, is_flow, place, rounds in WORK
        if seed <= rounds
    ],
)
def test_what_is_killed_and_run_again_ends_as_if_undisturbed(
    work: str,
    is_flow: bool,
    place: str,
    seed: int,
    request: pytest.FixtureRequest,
    record_property: pytest.RecordProperty,
) -> None:
    worlds: kills.Worlds = request.getfixturevalue("on_s3" if place else "local")
    world, ours = worlds.of(work, is_flow=is_flow), time.process_time()
    kind = f"{work}{' flow' if is_flow else ''}{place}"
    moments = random.Random(f"{kind} {seed}").randrange(2**32)  # noqa: S311 - not a secret
    name = f"killed-{work}{'-flow' if is_flow else ''}-{seed}"
    done = kills.kill_and_run_again(world, name, moments, MOST_KILLS)
    shutil.rmtree(done.home.folder)  # it stays where the test fails
    record_property("counted kills", (kind, len(done.moments)))
    record_property("counted looks at the catalog", (kind, done.looks))
    spent = done.cpu + time.process_time() - ours
    record_property("counted CPU seconds of kills", (kind, round(spent)))


def test_every_flow_that_writes_is_killed() -> None:
    """The flow watch reads alone, and leaves no row."""
    assert kills.FLOWS.keys() | {"watch"} == kills.flow_names().keys()
