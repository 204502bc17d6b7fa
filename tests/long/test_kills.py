"""At least 200 kills: `kill -9` at a random moment of each command, which then is run again.

A test that fails has its seed in its name. `make test-long` prints how many kills there were.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.long import kills

KILLS = 30  # of each command

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def worlds() -> dict[str, kills.World]:
    """What each command starts and ends with, made when it is first needed."""
    return {}


@pytest.mark.parametrize("seed", range(1, KILLS + 1))
@pytest.mark.parametrize("command", kills.COMMANDS)
def test_a_killed_command_that_is_run_again_ends_as_an_undisturbed_one(
    command: str,
    seed: int,
    worlds: dict[str, kills.World],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: pytest.RecordProperty,
) -> None:
    if command not in worlds:
        folder = tmp_path_factory.mktemp(command)
        api = request.getfixturevalue("prefect_api") if command == "nightly" else ""
        worlds[command] = kills.make_world(command, folder, api)
    moment = random.Random(f"{command} {seed}").randrange(2**32)  # noqa: S311 - not a secret
    kills.kill_and_run_again(worlds[command], tmp_path / "lake", moment)
    record_property("counted kills", command)
