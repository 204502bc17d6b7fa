"""The machine stops at random moments of each command; what was not on its disk yet is lost.

A test that fails has its seed in its name. `make test-long` prints how many power cuts there were.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.long import kills, power_cuts

CUTS = 8  # of each command
MOST_CUTS = 4  # in a round

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not power_cuts.COMPILER, reason="no C compiler"),
]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kills.Worlds]:
    folder = tmp_path_factory.mktemp("power")
    with power_cuts.told_writes(folder):
        yield kills.Worlds(folder / "shops", "")


@pytest.mark.parametrize("seed", range(1, CUTS + 1))
@pytest.mark.parametrize("work", kills.COMMANDS)
def test_after_a_power_cut_the_next_run_ends_as_if_undisturbed(
    work: str, seed: int, worlds: kills.Worlds, record_property: pytest.RecordProperty
) -> None:
    world = worlds.of(work, is_flow=False)
    draw = random.Random(f"{work} {seed}")  # noqa: S311 - not a secret
    lost: list[int] = []

    def cut_power(log: Path) -> None:
        lost.append(power_cuts.cut_power(log, draw))

    done = kills.kill_and_run_again(
        world, f"cut-{work}-{seed}", draw.randrange(2**32), MOST_CUTS, cut_power
    )
    shutil.rmtree(done.home.folder)  # it stays where the test fails
    record_property("counted power cuts", (work, len(done.moments)))
    record_property("counted files that they damaged", (work, sum(lost)))
