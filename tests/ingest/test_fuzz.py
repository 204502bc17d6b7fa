"""Random small sources: every row is accounted for, a second run changes nothing.

`FUZZ_SOURCES=1000` takes that many of them; a failure names its seed. The ten thousand of
`make test-long` are in tests/long/test_fuzz.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.ingest import batch
from tests.ingest.fuzz import ingest_made, make, no_contract

SOURCES = int(os.environ.get("FUZZ_SOURCES", "8"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SOURCES))
def test_every_row_of_a_random_source_is_accounted_for(
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: pytest.RecordProperty,
) -> None:
    monkeypatch.setattr(batch, "check_contract", no_contract)
    made = make(tmp_path, seed)
    print(f"seed {seed}: {made.what}")
    ingest_made(made, tmp_path)
    record_property("counted fuzzed sources", made.kind)
