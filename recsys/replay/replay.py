"""Replays of several variants: run, compared by user, kept in the table `replays`."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.evaluation.metrics import paired_interval
from recsys.lake.maintenance import REPLAYED
from recsys.lake.schemas import as_json
from recsys.lake.tables import Lake
from recsys.progress import Progress, silent
from recsys.registry.models import model_rows
from recsys.replay.nights import CUTOFF, Past, replay_nights
from recsys.version import code_version
from sql import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recsys.replay.variants import Variant
    from recsys.settings import AsOf, Settings

_METRICS = ("hr", "ndcg")
_MOST_NIGHTS = 1_000
_DIGITS = 12


@dataclass(frozen=True)
class ReplayRow:
    """A row of `replays`; the data dictionary (`recsys.lake.schemas`) says what it means."""

    replay_id: str
    setting: str
    run_date: date | None
    metric: str
    model_id: str | None
    users: int
    result: float | None
    popularity: float | None
    compared_with: str | None
    difference: float | None
    low: float | None
    high: float | None
    trainings: int
    settings: str
    replayed_at: datetime


@dataclass(frozen=True)
class ReplayResult:
    """What a replay found.

    Attributes:
        replay_id: key of `replays`.
        first: the first day.
        last: the last day.
        nights: days that were replayed.
        rows: of `replays`.
    """

    replay_id: str
    first: date
    last: date
    nights: int
    rows: list[ReplayRow]


def days_of(settings: Settings, first: date, last: date, every: timedelta) -> list[date]:
    """Return the days from ``first`` to ``last``.

    Raises:
        ConfigurationError: there are none, too many, or they lie in the future.
    """
    settings.check_run_date(last)
    step = every.days
    if step < 1 or every != timedelta(days=step):
        raise ConfigurationError(f"--every {every} should be whole days, such as 7d")
    count = (last - first).days // step + 1
    if not 0 < count <= _MOST_NIGHTS:
        raise ConfigurationError(
            f"a replay goes from one day to the same or a later one, over at most {_MOST_NIGHTS:,} "
            f"nights; {first} to {last} every {step} days does not"
        )
    return [first + timedelta(days=step * nth) for nth in range(count)]


def replay(
    lake: Lake,
    variants: Sequence[Variant],
    days: Sequence[date],
    *,
    as_of: AsOf | None = None,
    folder: Path | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> ReplayResult:
    """Replay the nights of some days with each variant, and write the table `replays`.

    The nights work in lakes of their own. Those of a killed replay go on where they were.

    Args:
        lake: whose past is replayed; its lists and models stay as they are.
        variants: the settings; the first is what the others are compared with.
        days: run_dates, in order.
        as_of: "now" where a day knew all that had happened by then, also what came into the lake
            later; None where only what had been ingested by then.
        folder: where the lakes of the nights lie; in the lake, where that is local, by default.
        keep: whether they stay.
        progress: called as the work goes on.

    Raises:
        ConfigurationError: two variants have one name, or a lake on S3 comes without a folder.
        LakeError: a lake can't be read or written.
        GateError: there is nobody to serve on the first day.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"two settings have one name: {', '.join(names)}")
    if folder is None and not lake.is_local:
        raise ConfigurationError("the lake lies on S3: say where nights may work, with --folder")
    folder = folder or Path(lake.uri(REPLAYED))
    past = Past(lake, lake.version(columns.INTERACTIONS), as_of)
    keys = [_key(past, variant, days) for variant in variants]
    tables, trainings = [], []
    with lake.unlocked():  # nights that are due meanwhile do not wait
        for key, variant in zip(keys, variants, strict=True):
            scratch = Lake(str(folder / key), lake.storage, lake.limits)
            tables.append(replay_nights(past, scratch, variant, days, progress))
            trainings.append(len(model_rows(scratch)))
    replay_id = "r-" + hashlib.sha256(as_json([*keys, days[-1]]).encode()).hexdigest()[:12]
    rows = _rows(replay_id, variants, days, tables, trainings)
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=lake.schema(columns.REPLAYS))
    lake.replace(columns.REPLAYS, table, where=f"replay_id = {literal(replay_id)}")
    if not keep:
        for key in keys:
            shutil.rmtree(folder / key)
    return ReplayResult(replay_id, days[0], days[-1], len(days), rows)


def _key(past: Past, variant: Variant, days: Sequence[date]) -> str:
    """Return the name of a variant's lake: a hash of all that decides its nights."""
    step = (days[1] - days[0]).days if len(days) > 1 else 0
    decides = {
        **variant.as_dict(),
        "first": days[0],
        "every": step,
        "as_of": past.as_of,
        "interactions_version": past.version,
        "items_version": past.lake.version(columns.ITEMS),
        "code_version": code_version(),
    }
    return hashlib.sha256(as_json(decides).encode()).hexdigest()[:16]


def _rows(
    replay_id: str,
    variants: Sequence[Variant],
    days: Sequence[date],
    tables: Sequence[pa.Table],
    trainings: Sequence[int],
) -> list[ReplayRow]:
    now = datetime.now(UTC)
    rows = []
    for nth, (variant, table) in enumerate(zip(variants, tables, strict=True)):
        for metric in _METRICS:
            shared: dict[str, Any] = {
                "replay_id": replay_id,
                "setting": variant.name,
                "metric": f"{metric}@{CUTOFF}",
                "trainings": trainings[nth],
                "settings": as_json(variant.as_dict()),
                "replayed_at": now,
            }
            own, first = _sums(table, metric), _sums(tables[0], metric)
            figures: dict[str, Any] = {"compared_with": None, "difference": None}
            low = high = None
            if nth:
                ours, theirs = _paired(own, first)
                low, high = paired_interval(ours, theirs) if len(ours) else (None, None)
                difference = float((ours - theirs).mean()) if len(ours) else None
                figures = {"compared_with": variants[0].name, "difference": difference}
            rows.append(
                ReplayRow(
                    **shared,
                    **figures,
                    run_date=None,
                    model_id=None,
                    low=low,
                    high=high,
                    **_means(table, metric),
                )
            )
            for day in days:
                part = table.filter(pc.equal(table["run_date"], pa.scalar(day)))
                rows.append(
                    ReplayRow(
                        **shared,
                        run_date=day,
                        model_id=part["model_id"][0].as_py() if len(part) else None,
                        compared_with=None,
                        difference=None,
                        low=None,
                        high=None,
                        **_means(part, metric),
                    )
                )
    return rows


def _means(table: pa.Table, metric: str) -> dict[str, Any]:
    """Return users, result and popularity: means over users and nights."""
    if not len(table):
        return {"users": 0, "result": None, "popularity": None}
    result, popularity = (
        round(float(table[name].to_numpy().mean()), _DIGITS)
        for name in (metric, f"popular_{metric}")
    )
    return {"users": len(table), "result": result, "popularity": popularity}


def _sums(table: pa.Table, metric: str) -> dict[tuple[date, Any], float]:
    """Return (run_date, user) -> figure."""
    keys = zip(table["run_date"].to_pylist(), table["user_id"].to_pylist(), strict=True)
    return dict(zip(keys, table[metric].to_pylist(), strict=True))


def _paired(
    ours: dict[tuple[date, Any], float], theirs: dict[tuple[date, Any], float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (U,) figures of each user in both, summed over nights and scaled to their means.

    A user's nights are alike, so that users are drawn, and not nights.
    """
    shared = sorted(ours.keys() & theirs.keys(), key=lambda key: (str(key[1]), key[0]))
    users = {user: nth for nth, user in enumerate(dict.fromkeys(user for _, user in shared))}
    sums = np.zeros((2, len(users)))
    for key in shared:
        sums[:, users[key[1]]] += ours[key], theirs[key]
    sums *= len(users) / max(1, len(shared))
    return sums[0], sums[1]
