"""A process that lives through many nights does not grow by them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NIGHTS = 60


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_last_half_of_many_nights_grows_by_less_than_5_percent() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.memory", str(NIGHTS)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    held = [float(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(held) == NIGHTS // 10
    assert held[-1] < 1.05 * held[len(held) // 2 - 1], done.stdout
