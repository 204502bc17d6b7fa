"""How many cores other processes leave free.

Threads of a matrix product wait for each other at its end. Where another process takes the core of
one of them, all wait, and two threads become several times slower than one (see
docs/experiment-log.md). So a run takes as many threads as there are free cores.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


class FreeCores:
    """Counts free cores, anew every few seconds.

    Args:
        stat: Linux's file of the machine's CPU times, see proc(5); where there is none, all cores
            count as free.
        quota: the file of a container's limit (control groups, version 2).
        seconds: between two looks; shorter ones would follow every burst.
    """

    def __init__(
        self,
        stat: Path = Path("/proc/stat"),
        quota: Path = Path("/sys/fs/cgroup/cpu.max"),
        seconds: float = 5.0,
    ) -> None:
        self._stat, self._quota, self._seconds = stat, quota, seconds
        self._cores = os.cpu_count() or 1
        self._seen = self._look()
        self._free = self._within_quota(self._cores)

    def count(self) -> int:
        """Return how many cores this process may use: 1 or more."""
        wall, own, busy = self._seen
        if time.monotonic() - wall >= self._seconds:
            self._seen = self._look()
            seconds = self._seen[0] - wall
            others = (self._seen[2] - busy - (self._seen[1] - own)) / seconds
            self._free = self._within_quota(max(1, round(self._cores - others)))
        return self._free

    def _look(self) -> tuple[float, float, float]:
        """Return the time, and the CPU seconds of this process and of all processes."""
        return time.monotonic(), time.process_time(), self._busy_seconds()

    def _busy_seconds(self) -> float:
        try:
            line = self._stat.read_text().partition("\n")[0]
        except OSError:
            return time.process_time()
        user, nice, system, _idle, _iowait, *others = map(int, line.split()[1:9])
        return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")

    def _within_quota(self, cores: int) -> int:
        try:
            quota, period = self._quota.read_text().split()
        except OSError:
            return cores
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


free_cores = FreeCores()
"""Of this process, looked at since it started."""
