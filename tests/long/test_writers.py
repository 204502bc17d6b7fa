"""At least 100 rounds of two writers at once on a lake on S3, some stopped longer than a lease.

A test that fails has its seed in its name. `make test-long` prints how many rounds there were.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.long import writers

ROUNDS = 21  # of each pair


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[writers.World]:
    """A prepared lake on a moto server."""
    folder = tmp_path_factory.mktemp("writers")
    with pytest.MonkeyPatch.context() as patch, servers.moto_server(folder) as endpoint:
        servers.use_credentials(patch)
        made = writers.World(endpoint, folder)
        made.prepare()
        yield made


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(1, ROUNDS + 1))
@pytest.mark.parametrize("pair", writers.PAIRS)
def test_two_writers_at_once_end_as_one_after_the_other(
    world: writers.World, pair: str, seed: int, record_property: pytest.RecordProperty
) -> None:
    refused = writers.two_at_once(world, pair, seed)
    record_property("counted rounds of two writers", pair)
    if refused:
        record_property("counted writers refused and run again", (pair, refused))
