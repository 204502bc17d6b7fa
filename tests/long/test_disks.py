"""Disks that are full, or can only be read, under whole commands on a local lake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.long import disks

SEEDS = {"full lake": 4, "full temporary folder": 1, "read-only lake": 1}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[disks.Disks]:
    with disks.make_disks(tmp_path_factory.mktemp("disks")) as made:
        yield made


@pytest.mark.parametrize(
    ("work", "fault", "seed"),
    [
        (work, fault, seed)
        for work in disks.WORKS
        for fault, seeds in SEEDS.items()
        for seed in range(1, seeds + 1)
    ],
)
def test_a_command_on_a_disk_that_fails_is_refused_and_run_again_ends_as_if_undisturbed(
    world: disks.Disks,
    work: str,
    fault: disks.DiskFault,
    seed: int,
    record_property: pytest.RecordProperty,
) -> None:
    refused = disks.disturb(world, work, fault, seed)
    assert refused or fault != "read-only lake"
    if refused:
        record_property("counted faults", fault)
    record_property("counted fault scenarios", (work, int(seed == 1)))
