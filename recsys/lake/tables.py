"""The lake: Delta tables under one root, local or on S3. Nothing else is the system of record."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError, TableNotFoundError

from recsys.errors import LakeError, MissingError
from recsys.lake import object_store
from recsys.lake.engine import Limits, select_files
from recsys.lake.schemas import SCHEMA_VERSION, TABLES, VERSION_PROPERTY, schemas
from sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

    from recsys.settings import ObjectStorage, Settings

_METADATA_KEY = "recsys"
_LOCK = ".lock"
_WAIT_SECONDS = 3600.0
_COLOUR = re.compile(r"\x1b\[\d*m")
_log = logging.getLogger(__name__)
_UNFIT = [*"[]^|\\%*?", "run_date="]


class Lake:
    """Delta tables under ``root``. Every write is one atomic commit.

    Args:
        root: a folder, or ``s3://bucket/prefix``.
        storage: the S3 endpoint, for an S3 root.
        limits: what a DuckDB that works on it may use.
    """

    def __init__(self, root: str, storage: ObjectStorage, limits: Limits | None = None) -> None:
        self.storage = storage
        self.limits = limits or Limits()
        self.is_local = "://" not in root
        self.root = str(Path(root).expanduser().absolute()) if self.is_local else root.rstrip("/")
        if not self.is_local and not root.startswith("s3://"):
            scheme = root.partition("://")[0]  # the rest may hold a password
            raise LakeError(f"lake {scheme}://...: a lake is a folder or s3://bucket/prefix")
        if unfit := [each for each in _UNFIT if each in self.root]:
            raise LakeError(
                f"lake {root!r}: the Delta writer and DuckDB can't work under a path with "
                f"{' '.join(unfit)}; choose another folder"
            )
        self._options = {} if self.is_local else storage.delta_options()

    @classmethod
    def from_settings(cls, settings: Settings) -> Lake:
        """Return the lake that the settings name."""
        return cls(settings.lake, settings.s3, Limits(settings.memory_limit, settings.threads))

    def uri(self, *parts: str) -> str:
        """Return the address of something under the root."""
        return "/".join((self.root, *parts))

    def create(self, user_id: pa.DataType, item_id: pa.DataType) -> None:
        """Create the tables that don't exist yet; a second call changes nothing.

        `interactions` comes last: where it exists, all do.
        """
        with _explained(f"create the tables of {self.root}"):
            for name, schema in reversed(schemas(user_id, item_id).items()):
                if not self.exists(name):
                    DeltaTable.create(
                        self.uri(name),
                        schema,
                        mode="ignore",
                        partition_by=list(TABLES[name].partitions) or None,
                        configuration={VERSION_PROPERTY: str(SCHEMA_VERSION)},
                        raise_if_key_not_exists=False,  # a property of ours, not one of Delta's
                        storage_options=self._options,
                    )

    def retype(self, user_id: pa.DataType, item_id: pa.DataType) -> None:
        """Give the id columns other types, where no table holds a row of them yet."""
        with _explained(f"create the tables of {self.root}"):
            for name, schema in schemas(user_id, item_id).items():
                if self.schema(name) != schema and not self.open(name).file_uris():
                    write_deltalake(
                        self.open(name),
                        schema.empty_table(),
                        mode="overwrite",
                        schema_mode="overwrite",
                    )

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Keep every other writer out while the block runs; wait for one that is in.

        On S3 nothing can be locked: there the deployment's concurrency limit keeps writers apart.

        Raises:
            LakeError: the other one did not end within an hour, or the folder can't be written.
        """
        if not self.is_local:
            yield
            return
        with _explained(f"write {self.root}"):
            Path(self.root).mkdir(parents=True, exist_ok=True)
            lock = (Path(self.root) / _LOCK).open("a")
        with lock:  # the kernel lets go of it when the process ends, however it ends
            deadline, told = time.monotonic() + _WAIT_SECONDS, False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise LakeError(
                            f"another run has been writing to {self.root} for over an hour; "
                            "wait for it to end, or end it, and run again",
                            transient=True,
                        ) from None
                    if not told:
                        _log.warning("waiting for another run that writes to %s", self.root)
                        told = True
                    time.sleep(0.2)
            yield

    def exists(self, table: str) -> bool:
        """Say whether the table has been created."""
        with _explained(f"look for {self.uri(table)}"):
            return DeltaTable.is_deltatable(self.uri(table), self._options)

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """Open a table, at its newest version or a pinned one.

        Raises:
            LakeError: the table or the version does not exist, or can't be read.
        """
        with _explained(f"open {self.uri(table)}"):
            try:
                return DeltaTable(self.uri(table), version, self._options)
            except TableNotFoundError:
                raise MissingError(
                    f"{self.uri(table)} does not exist yet: run `recsys ingest` first, "
                    "or point RECSYS_LAKE at the lake that has it"
                ) from None

    def version(self, table: str) -> int:
        """Return the newest version of a table."""
        return self.open(table).version()

    def schema(self, table: str) -> pa.Schema:
        """Return the Arrow schema of a table."""
        return pa.schema(self.open(table).schema())

    def append(
        self,
        table: str,
        rows: pa.RecordBatchReader | pa.Table,
        *,
        transaction: str | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> int:
        """Append rows in one commit; return the version that holds them.

        With a ``transaction`` name the append happens once: a table that already carries the name
        is left as it is. ``note`` travels in the commit itself, see :meth:`commits`.
        """
        target = self.open(table)
        if transaction and target.transaction_version(transaction) is not None:
            return target.version()
        return self._write(target, rows, mode="append", transaction=transaction, note=note)

    def replace(
        self,
        table: str,
        rows: pa.RecordBatchReader | pa.Table,
        *,
        where: str | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> int:
        """Replace the rows that match ``where`` (all of them without it) in one commit."""
        return self._write(self.open(table), rows, mode="overwrite", predicate=where, note=note)

    def upsert(self, table: str, rows: pa.Table, on: str) -> int:
        """Insert rows, or update those whose ``on`` column is already there, in one commit."""
        with _explained(f"write {self.uri(table)}"):
            target = self.open(table)
            (
                target.merge(rows, f"target.{quote(on)} = source.{quote(on)}", "source", "target")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            )
            return target.version()

    def delete(self, table: str, where: str) -> None:
        """Delete the rows that match, in one commit."""
        with _explained(f"write {self.uri(table)}"):
            self.open(table).delete(where)

    def has(self, table: str, transaction: str) -> bool:
        """Say whether a table carries a transaction's name, see :meth:`append`."""
        return self.exists(table) and self.open(table).transaction_version(transaction) is not None

    def commits(
        self, table: str, limit: int | None = None
    ) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield (version, operation, note) of the commits, newest first; a note may be empty."""
        for commit in self.open(table).history(limit):
            yield (
                commit["version"],
                commit["operation"],
                json.loads(commit.get(_METADATA_KEY, "{}")),
            )

    def add_columns(self, table: str, fields: pa.Schema, *, note: Mapping[str, Any]) -> None:
        """Add columns, null in the rows that are there, in one commit."""
        with _explained(f"write {self.uri(table)}"):
            self.open(table).alter.add_columns(
                list(DeltaSchema.from_arrow(fields).fields),
                commit_properties=CommitProperties(
                    custom_metadata={_METADATA_KEY: json.dumps(note)}
                ),
            )

    def properties(self, table: str) -> dict[str, str]:
        """Return the properties of a table."""
        return dict(self.open(table).metadata().configuration)

    def set_property(self, table: str, name: str, value: str) -> None:
        """Set a property of a table, in one commit."""
        with _explained(f"write {self.uri(table)}"):
            self.open(table).alter.set_table_properties({name: value}, raise_if_not_exists=False)

    def view(
        self,
        con: duckdb.DuckDBPyConnection,
        table: str,
        version: int | None = None,
        name: str | None = None,
    ) -> int:
        """Give ``con`` a view of a table at a version, named as the table; return the version.

        Local files are read by DuckDB itself, 17 times faster here than through a PyArrow dataset;
        on S3 the dataset serves, since DuckDB would need an extension from the network.
        """
        opened = self.open(table, version)
        name = name or table
        if self.is_local:
            con.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {select_files(con, opened)}")
        else:
            con.register(name, opened.to_pyarrow_dataset())
        return opened.version()

    def _write(
        self,
        target: DeltaTable,
        rows: pa.RecordBatchReader | pa.Table,
        *,
        transaction: str | None = None,
        note: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> int:
        with _explained(f"write {target.table_uri}"):
            write_deltalake(
                target,
                rows,
                commit_properties=CommitProperties(
                    custom_metadata={_METADATA_KEY: json.dumps(note)} if note else None,
                    app_transactions=[Transaction(transaction, 1)] if transaction else None,
                ),
                **how,
            )
            return target.version()


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn the storage layer's errors into ours, which say what failed and what to do."""
    try:
        yield
    except (DeltaError, OSError) as error:
        reason, passing = " ".join(_COLOUR.sub("", str(error)).split()), "s3://" in doing
        if answered := re.search(r"<Code>(\w+)</Code>", reason):
            reason, passing = (
                object_store.meaning(answered[1]),
                answered[1] not in object_store.MEANINGS,
            )
        raise LakeError(
            f"could not {doing}: {reason}. Check that the lake's folder or bucket exists, that "
            "this user may write there, and that the disk has room",
            transient=passing,
        ) from (None if answered else error)
