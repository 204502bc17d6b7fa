"""One batch: pull what is new, check it, and take it into the lake in one commit.

The append to `interactions` is the commit point. What is written before it (the verdicts, the
quarantine) is undone by the next run when that commit never came; what is written after it (the
row of `batches`) travels in the commit as a note, and is written from it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from recsys import columns, objects, quality, sources
from recsys.errors import (
    BrokenCheckError,
    ConfigurationError,
    ContractError,
    LakeError,
    SourceError,
)
from recsys.lake import Lake, connect
from recsys.progress import silent
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from recsys.config import ItemSource, Source
    from recsys.objects import Stored
    from recsys.progress import Progress
    from recsys.settings import Settings

ACCEPTED, REFUSED, NOTHING_NEW = "accepted", "refused", "nothing new"
_ARROW = {"BIGINT": pa.int64(), "VARCHAR": pa.string()}
_DUCKDB = {arrow: name for name, arrow in _ARROW.items()}
_ROWS_AT_A_TIME = 1_000_000
_BATCHES_TO_COMPARE = 3
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
    source = source or settings.source
    if source is None:
        raise ConfigurationError(
            "no source to ingest from: give one, e.g. `recsys ingest 'data/*.parquet'`, or set "
            "RECSYS_SOURCE__URI, or write a [source] table with a uri into recsys.toml"
        )
    now = (now or datetime.now(UTC)).astimezone(UTC)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recsys-ingest-") as folder, connect(settings) as con:
        con.execute(f"set temp_directory = {literal(folder + '/spill')}")
        return _Ingest(lake, settings, source, con, Path(folder), progress, now).run(begun)


def ingest_items(lake: Lake, settings: Settings, items: ItemSource | None = None) -> int:
    """Make `items` equal to a source, in one commit, or none where it is so already.

    Args:
        lake: where to; it has interactions already, whose item ids these are.
        settings: the S3 endpoint, the memory that DuckDB may hold.
        items: where from; the configured item source when not given.

    Returns:
        How many items there are.

    Raises:
        ConfigurationError: no item source is given or configured, or its mapping names a column
            that `items` does not have.
        SourceError: the source can't be read, lacks item_id, or has one that is null or repeated.
        LakeError: the lake can't be read or written, or has no tables yet.
    """
    items = items or settings.items
    if items is None:
        raise ConfigurationError(
            "no source of items: give one, or set RECSYS_ITEMS__URI, or write an [items] table "
            "with a uri into recsys.toml"
        )
    for ours in items.columns:
        if ours not in sources.ITEM_COLUMNS:
            raise ConfigurationError(
                f"the mapping of items names {ours!r}; it can name "
                f"{', '.join(sources.ITEM_COLUMNS)}; every other column goes into `extra`"
            )
    schema = lake.schema(columns.ITEMS)
    with tempfile.TemporaryDirectory(prefix="recsys-items-") as folder, connect(settings) as con:
        con.execute(f"set temp_directory = {literal(folder + '/spill')}")
        found = sources.find(items, settings.s3)
        paths = sources.fetch(found, Path(folder) / "objects", settings.s3)
        held = _DUCKDB[schema.field(columns.ITEM_ID).type]
        sources.pull_items(con, items, paths, held)
        for without_id, repeated, example in con.execute(load("sources/bad_items")).fetchall():
            raise SourceError(
                f"{sources.identity(items)}: {without_id:,} items have no item_id, and "
                f"{repeated:,} ids come more than once, {example!r} for one; `items` was left as "
                "it is. Give each item one row"
            )
        lake.view(con, columns.ITEMS)
        count = int(con.execute("select count(*) from new_items").fetchall()[0][0])
        if not count:
            raise SourceError(f"{sources.identity(items)} holds no item; `items` was left as it is")
        if con.execute(load("sources/changed_items")).fetchall()[0][0]:
            lake.replace(columns.ITEMS, _as(schema, con.sql("select * from new_items")))
        return count


class _Ingest:
    """One run of :func:`ingest`: the steps share a connection and what they found."""

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        source: Source,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        progress: Progress,
        now: datetime,
    ) -> None:
        self.lake, self.settings, self.source = lake, settings, source
        self.con, self.folder, self.now = con, folder, now
        self.name = sources.identity(source)
        self._progress = progress

    def run(self, begun: float) -> IngestResult:
        self._say(0)
        recover(self.lake)
        batches = self._batches()
        found = self._not_taken(sources.find(self.source, self.settings.s3), batches)
        if not found:
            return self._nothing_new(begun)
        self._say(1)
        paths = sources.fetch(found, self.folder / "objects", self.settings.s3)
        held = _held_types(self.lake)
        pulled = sources.pull(self.con, self.source, found, paths, held)
        if not pulled.rows:
            raise SourceError(
                f"{self.name} is empty: {', '.join(stored.key for stored in found[:5])} holds no "
                "row; if that is as it should be, leave it out of the source"
            )
        self._say(2)
        self._check_rows()
        profile = self._profile(pulled, batches)
        if not profile["accepted"] and not profile["quarantined"]:
            return self._nothing_new(begun, profile, len(found))
        batch_id = self._batch_id(found, profile, batches)
        batch = {
            "batch_id": batch_id,
            "source": self.name,
            "status": ACCEPTED,
            "objects": [vars(stored) for stored in found],
            "rows_in": profile["row_count"],
            "accepted": profile["accepted"],
            "quarantined": profile["quarantined"],
            "duplicates": profile["duplicates"],
            "started": self.now.isoformat(),
        }
        self._say(3)
        verdicts, documents = self._judge(profile, held, batch_id)
        types = _ARROW[pulled.user_type], _ARROW[pulled.item_type]
        self.lake.create(*types)
        self.lake.retype(*types)
        self._write_verdicts(batch_id, verdicts, documents)
        if any(verdict.status == "broken" for verdict in verdicts):
            raise BrokenCheckError(_broken_report(batch_id, verdicts))
        if any(verdict.status == "failed" for verdict in verdicts):
            refused = {"status": REFUSED, "accepted": 0, "quarantined": 0, "duplicates": 0}
            self._finish(batch | refused)
            raise ContractError(self._report(batch_id, verdicts))
        self._say(4)
        version = self._write(batch)
        self._say(5)
        return IngestResult(
            batch_id,
            ACCEPTED,
            profile["row_count"],
            profile["accepted"],
            profile["quarantined"],
            profile["duplicates"],
            len(found),
            version,
            time.monotonic() - begun,
        )

    def _say(self, step: int) -> None:
        self._progress("ingest", step, len(_STEPS), _STEPS[step] if step < len(_STEPS) else "done")

    # --- what is new

    def _batches(self) -> list[dict[str, Any]]:
        if not self.lake.exists(columns.BATCHES):
            return []
        kept = ["batch_id", "source", "status", "objects", "rows_in", "accepted"]
        table = self.lake.open(columns.BATCHES).to_pyarrow_table(columns=kept)
        return [row for row in table.to_pylist() if row["status"] == ACCEPTED]

    def _not_taken(self, found: list[Stored], batches: list[dict[str, Any]]) -> list[Stored]:
        taken = {
            (stored["key"], stored["etag"])
            for row in batches
            if row["source"] == self.name
            for stored in row["objects"]
            if stored["etag"] is not None
        }
        return [stored for stored in found if (stored.key, stored.etag) not in taken]

    def _nothing_new(
        self, begun: float, profile: dict[str, Any] | None = None, read: int = 0
    ) -> IngestResult:
        self._say(len(_STEPS))
        seen = profile or {"row_count": 0, "duplicates": 0}
        there = self.lake.exists(columns.INTERACTIONS)
        return IngestResult(
            None,
            NOTHING_NEW,
            seen["row_count"],
            0,
            0,
            seen["duplicates"],
            read,
            self.lake.version(columns.INTERACTIONS) if there else None,
            time.monotonic() - begun,
        )

    def _batch_id(
        self, found: Sequence[Stored], profile: dict[str, Any], batches: list[dict[str, Any]]
    ) -> str:
        """Name a batch by what it holds, so that a run after a kill gives it the same name."""
        digest = hashlib.sha256(self.name.encode())
        for stored in found:
            digest.update(f"\n{stored.key} {stored.etag}".encode())
        if any(stored.etag is None for stored in found):
            digest.update(profile["fingerprint"].encode())
        name = plain = digest.hexdigest()[:24]
        # Rows that were taken once, deleted from the lake, and are there again at the source.
        taken, again = {row["batch_id"] for row in batches}, 2
        while name in taken:
            name, again = f"{plain}-{again}", again + 1
        return name

    # --- checks

    def _check_rows(self) -> None:
        """Run the row rules: tables faulty, held, repeated, rejected, fresh; view accepted."""
        con, contract = self.con, self.settings.contract
        latest = self.now + contract.max_future
        con.execute(
            load("checks/faulty_rows"),
            {"blanks": sources.BLANKS, "max_id_bytes": contract.max_id_bytes, "latest": latest},
        )
        con.execute("create or replace temp table held (seq bigint)")
        con.execute("create or replace temp table before (row varchar, reasons varchar[])")
        if _held_types(self.lake) is not None:
            span = con.execute('select min("timestamp"), max("timestamp") from staged').fetchall()
            self.lake.view(con, columns.INTERACTIONS)
            bounds = dict(zip(("oldest", "newest"), span[0], strict=True))
            con.execute(load("checks/held_rows"), bounds)
        con.execute(load("checks/suspects"))
        con.execute(load("checks/repeated_rows"))
        con.execute(load("checks/rejected_rows"))
        if self.lake.exists(columns.QUARANTINE):
            self.lake.view(con, columns.QUARANTINE)
            con.execute(
                "insert into before select row, reasons from quarantine where source = ?",
                [self.name],
            )
        con.execute(load("checks/fresh_rejected_rows"))
        con.execute(load("checks/accepted_rows"))

    def _profile(self, pulled: sources.Pulled, batches: list[dict[str, Any]]) -> dict[str, Any]:
        found = self.con.sql(load("checks/profile"))
        profile = dict(zip(found.columns, found.fetchall()[0], strict=True))
        counts = [
            row["rows_in"] for row in batches if row["source"] == self.name and row["accepted"]
        ]
        change = None
        if len(counts) >= _BATCHES_TO_COMPARE:
            usual = median(counts)
            change = max(profile["row_count"] / usual, usual / profile["row_count"])
        return profile | {
            "rejected_share": profile["rejected"] / profile["row_count"],
            "span_days": profile["span_seconds"] / 86400,
            "row_count_change": change,
            "user_id_type": quality.ID_TYPES[pulled.user_type],
            "item_id_type": quality.ID_TYPES[pulled.item_type],
        }

    def _judge(
        self, profile: dict[str, Any], held: tuple[str, str] | None, batch_id: str
    ) -> tuple[list[quality.Verdict], Path]:
        import pandas as pd

        contract = self.settings.contract
        words = None if held is None else (quality.ID_TYPES[held[0]], quality.ID_TYPES[held[1]])
        rules = quality.contract_rules(contract, profile, words, self.now + contract.max_future)
        most = {"most": contract.sample_rows, "accepted": profile["accepted"], "seed": 0}
        judged = {
            name: profile[name] for name in {r.column for r in rules if r.suite == quality.PROFILE}
        }
        frames = {quality.PROFILE: pd.DataFrame([judged])}
        if profile["accepted"]:
            sample = self.con.sql(load("checks/row_sample"), params=most)
            frames[quality.ROWS] = sample.to_arrow_table().to_pandas()
        documents = self.folder / "data_docs"
        return quality.judge(rules, frames, batch_id, documents), documents

    # --- what is written, in this order

    def _write_verdicts(
        self, batch_id: str, verdicts: Sequence[quality.Verdict], documents: Path
    ) -> None:
        rows = [verdict.row(batch_id, self.now) for verdict in verdicts]
        table = pa.Table.from_pylist(rows, schema=self.lake.schema(columns.QUALITY_RESULTS))
        self.lake.replace(columns.QUALITY_RESULTS, table, where=f"subject = {literal(batch_id)}")
        _keep_documents(self.lake, documents)

    def _write(self, batch: dict[str, Any]) -> int:
        batch_id = batch["batch_id"]
        stamp = {"batch_id": batch_id, "now": self.now}
        if batch["quarantined"]:
            rows = self.con.sql(load("sources/quarantine"), params={**stamp, "source": self.name})
            self.lake.replace(
                columns.QUARANTINE,
                _as(self.lake.schema(columns.QUARANTINE), rows),
                where=f"batch_id = {literal(batch_id)}",
            )
        batch = batch | {"finished": datetime.now(UTC).isoformat()}
        rows = self.con.sql(load("sources/interactions"), params=stamp)
        version = self.lake.append(
            columns.INTERACTIONS,
            _as(self.lake.schema(columns.INTERACTIONS), rows),
            transaction=batch_id,
            note={"batch": batch},
        )
        self._finish(batch | {"interactions_version": version})
        return version

    def _finish(self, batch: dict[str, Any]) -> None:
        _record(self.lake, {"finished": datetime.now(UTC).isoformat(), **batch})

    def _report(self, batch_id: str, verdicts: Sequence[quality.Verdict]) -> str:
        failed = [verdict for verdict in verdicts if verdict.status == "failed"]
        lines = [
            f"batch {batch_id} of {self.name} was refused, since it breaks its contract; nothing "
            "of it was taken.",
            "",
            "broken rules:",
        ]
        lines += [
            f"  {verdict.rule.name} ({verdict.rule.column}): {verdict.observed}; the limit is "
            f"{verdict.rule.limit}"
            for verdict in failed
        ]
        reasons = self.con.execute(load("checks/reasons")).fetchall()
        if reasons:
            lines += ["", "rejected rows by reason:"]
            lines += [f"  {reason}: {rows:,}" for reason, rows in reasons]
        spans = any(verdict.rule.column in ("span_days", "timestamp") for verdict in failed)
        samples = self.con.sql(
            load("checks/sample_span" if spans or not reasons else "checks/sample_rejected")
        )
        lines += ["", "sample rows:"]
        for row in samples.fetchall():
            cells = zip(samples.columns, row, strict=True)
            lines.append("  " + ", ".join(f"{name} {_short(value)}" for name, value in cells))
        lines += [
            "",
            "Mend the source and ingest again; or, if the data is right, change the limit under "
            "`contract` in recsys.toml.",
        ]
        return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


def _broken_report(batch_id: str, verdicts: Iterable[quality.Verdict]) -> str:
    broken = [verdict for verdict in verdicts if verdict.status == "broken"]
    lines = [
        f"{verdict.rule.suite}: {verdict.rule.name} ({verdict.rule.column}): {verdict.detail}"
        for verdict in broken
    ]
    return (
        f"{len(broken)} check(s) of batch {batch_id} did not run, so that nothing is known about "
        "the data and nothing was taken. This is a defect of the check, not of the data:\n  "
        + "\n  ".join(lines)
    )


def _held_types(lake: Lake) -> tuple[str, str] | None:
    """Return the lake's id types, unless no table holds an id yet."""
    if not lake.exists(columns.INTERACTIONS):
        return None
    with_ids = (columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS)
    if not any(lake.open(name).file_uris() for name in with_ids):
        return None
    schema = lake.schema(columns.INTERACTIONS)
    return _DUCKDB[schema.field("user_id").type], _DUCKDB[schema.field("item_id").type]


def _as(schema: pa.Schema, rows: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    """Stream a relation as a table's schema has it."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows.to_arrow_reader(_ROWS_AT_A_TIME):
            arrays = [batch[field.name].cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _keep_documents(lake: Lake, documents: Path) -> None:
    """Put the HTML pages under the lake, beside those of earlier batches."""
    if not lake.is_local:
        objects.upload_folder(documents, lake.uri("data_docs"), lake.storage, once=("static",))
        return
    try:
        shutil.copytree(documents, lake.uri("data_docs"), dirs_exist_ok=True)
    except OSError as error:
        raise LakeError(f"could not write {lake.uri('data_docs')}: {error}") from error


def recover(lake: Lake) -> None:
    """Finish or undo what a run that was killed has left; without one, change nothing."""
    if not lake.exists(columns.INTERACTIONS):
        return
    kept = ["batch_id", "status", "interactions_version"]
    batches = lake.open(columns.BATCHES).to_pyarrow_table(columns=kept).to_pylist()
    known = {row["batch_id"] for row in batches}
    taken = {row["batch_id"] for row in batches if row["status"] == ACCEPTED}
    written = max((row["interactions_version"] or 0 for row in batches), default=0)
    unseen = lake.version(columns.INTERACTIONS) - written
    if unseen > 0:
        for version, note in lake.notes(columns.INTERACTIONS, unseen):
            batch = note.get("batch")
            if batch and batch["batch_id"] not in taken:
                _record(lake, {**batch, "interactions_version": version})
                taken.add(batch["batch_id"])
                known.add(batch["batch_id"])
    _forget(lake, columns.QUARANTINE, "batch_id", taken)
    suites = f"suite in ({literal(quality.PROFILE)}, {literal(quality.ROWS)})"
    _forget(lake, columns.QUALITY_RESULTS, "subject", known, suites)


def _forget(lake: Lake, table: str, column: str, known: set[str], among: str = "true") -> None:
    """Delete the rows of batches that never were."""
    with duckdb.connect() as con:
        lake.view(con, table)
        there = con.execute(f"select distinct {column} from {table} where {among}").fetchall()  # noqa: S608 - names are quoted
    lost = [name for (name,) in there if name not in known]
    if lost:
        listed = ", ".join(literal(name) for name in lost)
        lake.delete(table, f"{column} in ({listed})" + ("" if among == "true" else f" and {among}"))


def _record(lake: Lake, batch: dict[str, Any]) -> None:
    """Write a batch's row, in place of an earlier refusal of the same batch."""
    for moment in ("started", "finished"):
        if isinstance(batch[moment], str):
            batch[moment] = datetime.fromisoformat(batch[moment])
    row = pa.Table.from_pylist([batch], schema=lake.schema(columns.BATCHES))
    lake.replace(columns.BATCHES, row, where=f"batch_id = {literal(batch['batch_id'])}")
