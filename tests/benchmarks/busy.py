"""Training beside busy processes: `python -m tests.benchmarks.busy`.

Targets a second on one thread, on as many as there are free cores (the default), and on one for
each core: on an idle machine, and beside processes that keep all cores but one busy. Each figure is
the median of three runs, made by turns.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time

import numpy as np

SECONDS, WIDTH, ITEMS, USERS = 8.0, 64, 1500, 400
CORES = os.cpu_count() or 1
THREADS = {"one thread": 1, "free cores": 0, "all cores": CORES}


def _measure(threads: int) -> float:
    """Return targets a second of trainings of one epoch, for some seconds after a first one."""
    from recsys.histories import Histories
    from recsys.model.presets import resolve
    from recsys.model.runtime import Runtime
    from recsys.training.trainer import fit

    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 100, USERS)
    ends = np.cumsum(lengths)
    items = rng.integers(1, ITEMS + 1, ends[-1]).astype(np.int32)
    histories = Histories(items, ends - lengths, ends)
    preset = resolve("best", {"width": WIDTH})
    epochs, began = -1, time.perf_counter()
    while epochs < 0 or time.perf_counter() - began < SECONDS:
        fit(histories, ITEMS, preset, seed=0, runtime=Runtime("cpu", threads), epochs=1)
        if epochs < 0:
            began = time.perf_counter()
        epochs += 1
    return epochs * float((lengths - 1).sum()) / (time.perf_counter() - began)


def _spin() -> None:
    while True:
        pass


def main() -> None:
    """Print a table of both machines, idle and busy."""
    for title, neighbours in (("idle", 0), ("busy", CORES - 1)):
        others = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(neighbours)]
        for process in others:
            process.start()
        rates: dict[str, list[float]] = {name: [] for name in THREADS}
        for _ in range(3):
            for name, threads in THREADS.items():
                command = [sys.executable, "-m", __spec__.name, str(threads)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rates[name].append(float(done.stdout))
        for process in others:
            process.kill()
        one = statistics.median(rates["one thread"])
        for name, measured in rates.items():
            rate = statistics.median(measured)
            print(f"{title}, {name}: {rate:,.0f} targets/s, {rate / one:.2f} of one thread")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(_measure(int(sys.argv[1])))
    else:
        main()
