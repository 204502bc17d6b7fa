"""At least 200 kills: `kill -9` at a random moment of each command and flow, which then runs again.

A test that fails has its seed in its name. `make test-long` prints how many kills there were.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.long import kills

KILLS = 30  # of each command
FLOW_KILLS = 4  # of each flow; of the flow nightly as many as of a command

WORK = [(name, False, KILLS) for name in kills.COMMANDS]
WORK += [(name, True, KILLS if name == "nightly" else FLOW_KILLS) for name in kills.FLOWS]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def worlds() -> dict[str, kills.World]:
    """What each command or flow starts and ends with, made when it is first needed."""
    return {}


@pytest.mark.parametrize(
    ("work", "is_flow", "seed"),
    [
        pytest.param(work, is_flow, seed, id=f"{work}{' flow' if is_flow else ''}-{seed}")
        for work, is_flow, count in WORK
        for seed in range(1, count + 1)
    ],
)
def test_what_is_killed_and_run_again_ends_as_if_undisturbed(
    work: str,
    is_flow: bool,
    seed: int,
    worlds: dict[str, kills.World],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: pytest.RecordProperty,
) -> None:
    kind = f"{work} flow" if is_flow else work
    if kind not in worlds:
        folder = tmp_path_factory.mktemp(work)
        api = request.getfixturevalue("prefect_api") if is_flow else ""
        worlds[kind] = kills.make_world(work, is_flow, folder, api)
    moment = random.Random(f"{kind} {seed}").randrange(2**32)  # noqa: S311 - not a secret
    kills.kill_and_run_again(worlds[kind], tmp_path / "lake", moment)
    record_property("counted kills", kind)


def test_every_flow_that_writes_is_killed() -> None:
    """The flow watch reads alone, and leaves no row."""
    assert kills.FLOWS.keys() | {"watch"} == kills.flow_names().keys()
