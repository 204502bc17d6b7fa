"""A refusal is one line of a run's log: what was wrong, where, what to do; no traceback."""

from __future__ import annotations

import logging
from weakref import WeakSet

from recsys.errors import RecsysError

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


class _Refusals(logging.Filter):
    """Of all that Prefect says of one `RecsysError`, lets the first line through, shortened."""

    def __init__(self) -> None:
        super().__init__()
        self._told: WeakSet[RecsysError] = WeakSet()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is worth a line."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RecsysError):
            return True
        if error in self._told:
            return False
        self._told.add(error)
        record.msg, record.args = "refused: %s", (error,)
        record.exc_info = record.exc_text = None
        return True


_refusals = _Refusals()


def shorten_refusals() -> None:
    """Let Prefect's loggers of runs tell a refusal in one line."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_refusals)
