"""Threads leave the cores of other processes alone."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from recsys.model import runtime
from recsys.model.cores import FreeCores
from recsys.model.runtime import Runtime

CORES = os.cpu_count() or 1


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux says what others use")
def test_cores_that_others_use_are_not_free() -> None:
    free = FreeCores(seconds=0.5)
    others = [multiprocessing.Process(target=_spin, args=(30,)) for _ in range(CORES)]
    for process in others:
        process.start()
    time.sleep(0.5)
    count = free.count()
    for process in others:
        process.kill()
        process.join()
    assert count == 1


@pytest.mark.parametrize(("others", "expected"), [(0, CORES), (CORES - 1, 1), (2 * CORES, 1)])
def test_what_others_use_is_taken_off(tmp_path: Path, others: int, expected: int) -> None:
    stat, ticks = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    free = FreeCores(stat, tmp_path / "none", seconds=0)
    began, own = time.monotonic(), time.process_time()
    time.sleep(0.5)
    busy = others * (time.monotonic() - began) + time.process_time() - own
    stat.write_text(f"cpu  {round(busy * ticks)} 0 0 999999 999999 0 0 0 0 0\n")
    assert free.count() == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", CORES), ("100000 100000", 1), ("20000 100000", 1), ("9900000 100000", CORES)],
)
def test_a_container_s_limit_counts(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert FreeCores(tmp_path / "none", tmp_path / "cpu.max").count() == expected


def test_without_a_number_of_threads_the_free_cores_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    free = FreeCores(tmp_path / "none", tmp_path / "cpu.max")
    monkeypatch.setattr(runtime, "free_cores", free)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Runtime("cpu").applied():
            assert torch.get_num_threads() == 1
        with Runtime("cpu", threads=2).applied():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
