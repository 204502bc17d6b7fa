"""One batch: pull what is new, check it, and take it into the lake in one commit.

The append to `interactions` is the commit point. What is written before it (the verdicts, the
quarantine) is undone by the next run when that commit never came; what is written after it (the
row of `batches`) travels in the commit as a note, and is written from it. Where objects hold
nothing but what the lake has, that row alone is written, so that they are not read again.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.errors import (
    BrokenCheckError,
    ContractError,
    LakeError,
    SourceError,
)
from recsys.ingest import sources
from recsys.ingest.commit import ACCEPTED, record, recover
from recsys.ingest.contract import (
    ID_TYPES,
    PROFILE,
    ROWS,
    Verdict,
    breakage_report,
    contract_rules,
    evaluate_contract,
    refusal_report,
)
from recsys.ingest.row_checks import classify_rows, is_usual_size, profile_batch
from recsys.ingest.staging import ARROW, DUCKDB, as_schema
from recsys.lake import object_store
from recsys.lake.engine import open_duckdb
from recsys.progress import silent
from recsys.temporary import temporary_folder
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import duckdb

    from recsys.lake.object_store import Stored
    from recsys.lake.tables import Lake
    from recsys.progress import Progress
    from recsys.settings import Contract, Settings, Source

REFUSED, NOTHING_NEW = "refused", "nothing new"
_STEPS = ("looking for what is new", "pulling", "checking rows", "judging the batch", "writing")


@dataclass(frozen=True)
class IngestResult:
    """What an ingest came to."""

    batch_id: str | None
    status: str
    rows_in: int
    accepted: int
    quarantined: int
    duplicates: int
    objects: int
    interactions_version: int | None
    seconds: float


def ingest(
    lake: Lake,
    settings: Settings,
    source: Source | None = None,
    *,
    progress: Progress = silent,
    now: datetime | None = None,
) -> IngestResult:
    """Take what is new at a source into the lake. Doing it again changes nothing.

    Args:
        lake: where to.
        settings: the contract, the S3 endpoint, the memory that DuckDB may hold.
        source: where from; the configured one when not given.
        progress: told of each step.
        now: the moment that timestamps are held against and that the rows carry; the clock's.

    Raises:
        ConfigurationError: no source is given or configured.
        SourceError: the source is missing, unreadable, or lacks what the mapping says.
        ContractError: the batch broke its contract; nothing of it was taken.
        BrokenCheckError: a check failed to run; nothing was taken.
        LakeError: the lake can't be read or written.
    """
    source = source or settings.required_source()
    now = (now or datetime.now(UTC)).astimezone(UTC)
    with temporary_folder() as folder, open_duckdb(settings) as con:
        return _ingest(lake, settings, source, con, folder, partial(_say, progress), now)


def _ingest(
    lake: Lake,
    settings: Settings,
    source: Source,
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    say: Callable[[int], None],
    now: datetime,
) -> IngestResult:
    begun = time.monotonic()
    name = sources.identity(source)
    say(0)
    recover(lake)
    batches = _accepted(lake)
    found = _not_taken(sources.find(source, settings.s3), batches)
    if not found:
        say(len(_STEPS))
        return _nothing_new(lake, begun)
    say(1)
    paths = sources.fetch(found, folder / "objects", settings.s3)
    held = _held_types(lake)
    try:
        pulled = sources.pull(con, source, found, paths, held)
        if not pulled.rows:
            raise SourceError(
                f"{name} is empty and was refused: {', '.join(each.key for each in found[:5])} "
                "holds 0 rows, the limit is at least 1; if that is as it should be, leave it out "
                "of the source"
            )
    except SourceError as error:
        _keep_refusal(lake, name, error, now)
        raise
    say(2)
    latest = now + settings.contract.max_future
    classify_rows(con, lake, name, settings.contract, latest, compare=held is not None)
    profile = profile_batch(con, pulled, name, batches)
    batch_id = _batch_id(lake, name, found, profile, batches)
    batch = {
        "batch_id": batch_id,
        "source": name,
        "status": ACCEPTED,
        "objects": [vars(stored) for stored in found],
        "rows_in": profile["row_count"],
        "accepted": profile["accepted"],
        "quarantined": profile["quarantined"],
        "duplicates": profile["duplicates"],
        "started": now,
    }
    if not profile["accepted"] and not profile["quarantined"]:
        # Objects need not be read again; a table, which has no ETag, is read each time anyway, and
        # goes on to be judged, and refused, where it has lost most of its rows.
        read_once = all(stored.etag is not None for stored in found)
        if read_once:
            record(lake, batch)
        if read_once or is_usual_size(profile, name, batches, settings.contract):
            say(len(_STEPS))
            return _nothing_new(lake, begun, batch)
    say(3)
    documents = folder / "data_docs"
    verdicts = _judge(con, settings.contract, profile, held, latest, batch_id, documents)
    types = ARROW[pulled.user_type], ARROW[pulled.item_type]
    lake.create(*types)
    lake.retype(*types)
    _write_verdicts(lake, batch_id, verdicts, now)
    _keep_documents(lake, documents)
    if any(verdict.status == "broken" for verdict in verdicts):
        raise BrokenCheckError(breakage_report(batch_id, verdicts))
    if any(verdict.status == "failed" for verdict in verdicts):
        refused = {"status": REFUSED, "accepted": 0, "quarantined": 0, "duplicates": 0}
        record(lake, batch | refused)
        raise ContractError(refusal_report(con, batch_id, name, verdicts))
    say(4)
    version = _write(lake, con, batch, now)
    say(len(_STEPS))
    return _result(ACCEPTED, batch_id, batch, version, begun)


def _say(progress: Progress, step: int) -> None:
    progress("ingest", step, len(_STEPS), _STEPS[step] if step < len(_STEPS) else "done")


def _result(
    status: str, batch_id: str | None, batch: dict[str, Any], version: int | None, begun: float
) -> IngestResult:
    return IngestResult(
        batch_id,
        status,
        batch["rows_in"],
        batch["accepted"],
        batch["quarantined"],
        batch["duplicates"],
        len(batch["objects"]),
        version,
        time.monotonic() - begun,
    )


def _nothing_new(lake: Lake, begun: float, batch: dict[str, Any] | None = None) -> IngestResult:
    there = lake.exists(columns.INTERACTIONS)
    version = lake.version(columns.INTERACTIONS) if there else None
    nothing = {"rows_in": 0, "accepted": 0, "quarantined": 0, "duplicates": 0, "objects": []}
    return _result(NOTHING_NEW, None, batch or nothing, version, begun)


# --- what is new


def _accepted(lake: Lake) -> list[dict[str, Any]]:
    """Return the rows of the accepted batches."""
    if not lake.exists(columns.BATCHES):
        return []
    kept = ["batch_id", "source", "status", "objects", "rows_in", "accepted", "started"]
    table = lake.open(columns.BATCHES).to_pyarrow_table(columns=kept)
    return [row for row in table.to_pylist() if row["status"] == ACCEPTED]


def _not_taken(found: Sequence[Stored], batches: Sequence[dict[str, Any]]) -> list[Stored]:
    """Return the files that no batch took, whatever pattern they were found by."""
    taken = {
        (stored["key"], stored["etag"])
        for row in batches
        for stored in row["objects"]
        if stored["etag"] is not None
    }
    return [stored for stored in found if (stored.key, stored.etag) not in taken]


def _batch_id(
    lake: Lake,
    source: str,
    found: Sequence[Stored],
    profile: dict[str, Any],
    batches: Sequence[dict[str, Any]],
) -> str:
    """Name a batch by what it holds, so that a run after a kill gives it the same name."""
    digest = hashlib.sha256(source.encode())
    for stored in found:
        digest.update(f"\n{stored.key} {stored.etag}".encode())
    if any(stored.etag is None for stored in found):
        digest.update(profile["fingerprint"].encode())
        if not profile["accepted"] and not profile["quarantined"]:
            digest.update(f" of {profile['row_count']}".encode())
    name = plain = digest.hexdigest()[:24]
    # Rows that were taken once, deleted from the lake, and are there again at the source.
    taken, again = {row["batch_id"] for row in batches}, 2
    while name in taken or lake.has(columns.INTERACTIONS, name):
        name, again = f"{plain}-{again}", again + 1
    return name


# --- checks


def _held_types(lake: Lake) -> tuple[str, str] | None:
    """Return the lake's id types, unless no table holds an id yet."""
    if not lake.exists(columns.INTERACTIONS):
        return None
    with_ids = (columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS)
    if not any(lake.open(name).file_uris() for name in with_ids):
        return None
    schema = lake.schema(columns.INTERACTIONS)
    return DUCKDB[schema.field("user_id").type], DUCKDB[schema.field("item_id").type]


def _judge(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    profile: dict[str, Any],
    held: tuple[str, str] | None,
    latest: datetime,
    batch_id: str,
    documents: Path,
) -> list[Verdict]:
    import pandas as pd

    words = None if held is None else (ID_TYPES[held[0]], ID_TYPES[held[1]])
    rules = contract_rules(contract, profile, words, latest)
    judged = {name: profile[name] for name in {r.column for r in rules if r.suite == PROFILE}}
    frames = {PROFILE: pd.DataFrame([judged])}
    if profile["accepted"]:
        most = {"most": contract.sample_rows, "accepted": profile["accepted"], "seed": 0}
        sample = con.sql(load("ingest/row_sample"), params=most)
        frames[ROWS] = sample.to_arrow_table().to_pandas()
    return evaluate_contract(rules, frames, batch_id, documents)


# --- what is written, in this order


def _keep_refusal(lake: Lake, name: str, error: SourceError, now: datetime) -> None:
    """Keep in `quality_results` why a source was refused before it was a batch to be judged.

    A lake that has no tables yet has nowhere to keep it.
    """
    if not lake.exists(columns.INTERACTIONS):
        return
    row = {
        "subject": name,
        "suite": "source",
        "rule": "can be read, has its columns and is not empty",
        "status": "failed",
        "observed": str(error),
        "threshold": "at least 1 row of the mapped columns",
        "checked_at": now,
    }
    table = pa.Table.from_pylist([row], schema=lake.schema(columns.QUALITY_RESULTS))
    where = f"subject = {literal(name)} and suite = 'source'"
    lake.replace(columns.QUALITY_RESULTS, table, where=where)


def _write_verdicts(lake: Lake, batch_id: str, verdicts: Sequence[Verdict], now: datetime) -> None:
    rows = [verdict.row(batch_id, now) for verdict in verdicts]
    table = pa.Table.from_pylist(rows, schema=lake.schema(columns.QUALITY_RESULTS))
    lake.replace(columns.QUALITY_RESULTS, table, where=f"subject = {literal(batch_id)}")


def _keep_documents(lake: Lake, documents: Path) -> None:
    """Put the HTML pages under the lake, beside those of earlier batches."""
    if not lake.is_local:
        object_store.upload_folder(documents, lake.uri("data_docs"), lake.storage, once=("static",))
        return
    try:
        shutil.copytree(documents, lake.uri("data_docs"), dirs_exist_ok=True)
    except OSError as error:
        raise LakeError(f"could not write {lake.uri('data_docs')}: {error}") from error


def _write(lake: Lake, con: duckdb.DuckDBPyConnection, batch: dict[str, Any], now: datetime) -> int:
    batch_id = batch["batch_id"]
    stamp = {"batch_id": batch_id, "now": now}
    if batch["quarantined"]:
        rows = con.sql(load("ingest/quarantine"), params={**stamp, "source": batch["source"]})
        lake.replace(
            columns.QUARANTINE,
            as_schema(lake.schema(columns.QUARANTINE), rows),
            where=f"batch_id = {literal(batch_id)}",
        )
    batch = batch | {"finished": datetime.now(UTC)}
    moments = {name: batch[name].isoformat() for name in ("started", "finished")}
    rows = con.sql(load("ingest/interactions"), params=stamp)
    version = lake.append(
        columns.INTERACTIONS,
        as_schema(lake.schema(columns.INTERACTIONS), rows),
        transaction=batch_id,
        note={"batch": batch | moments},
    )
    record(lake, batch | {"interactions_version": version})
    return version
