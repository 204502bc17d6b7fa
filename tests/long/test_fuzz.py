"""Ten thousand random small sources, each ingested twice: no row is lost, and none is doubled.

A source that breaks a promise is printed with its seed; `python -m tests.ingest.fuzz 1 SEED`
takes it again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import servers
from tests.ingest.fuzz import Ends, ingest_seeds, make_cheap

BLOCKS, OF_BLOCK = 20, 500
ON_S3 = 100


@pytest.mark.long
@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_row_of_random_sources_is_accounted_for(
    block: int, monkeypatch: pytest.MonkeyPatch, record_property: pytest.RecordProperty
) -> None:
    make_cheap(monkeypatch)
    ends, broken = ingest_seeds(range(block * OF_BLOCK, (block + 1) * OF_BLOCK))
    assert not broken, "\n".join(broken)
    _count(ends, record_property)


@pytest.mark.long
def test_every_row_of_random_sources_on_s3_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: pytest.RecordProperty
) -> None:
    make_cheap(monkeypatch)
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        ends, broken = ingest_seeds(range(1_000_000, 1_000_000 + ON_S3), endpoint)
    assert not broken, "\n".join(broken)
    _count(ends, record_property)


def _count(ends: Ends, record_property: pytest.RecordProperty) -> None:
    for (kind, end), many in ends.items():
        record_property("counted fuzzed sources", (kind, many))
        record_property("counted ends of fuzzed sources", (end, many))
