"""The lake: Delta tables under one root, local or on S3. Nothing else is the system of record.

It is longer than other files: `Lake` is the one thing through which every room reads and writes.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recsys.errors import LakeError, MissingError
from recsys.lake import added_files, commits, s3_files
from recsys.lake.engine import Limits, select_files, without_matching
from recsys.lake.faults import explain_delta_errors
from recsys.lake.lease import Lease
from recsys.lake.lock import FolderLock, WriteLock
from recsys.lake.object_store import AT_ONCE
from recsys.lake.power_cuts import sync_commits
from recsys.lake.schemas import SCHEMA_VERSION, TABLES, VERSION_PROPERTY, schemas
from sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import duckdb
    import pyarrow.dataset as ds

    from recsys.lake.added_files import AddedFile
    from recsys.lake.lock import Exclusion
    from recsys.settings import ObjectStorage, Settings

_UNFIT = [*"[]^|\\%*?", "run_date="]
_log = logging.getLogger(__name__)


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
        if unfit := [text for text in _UNFIT if text in self.root]:
            raise LakeError(
                f"lake {root!r}: the Delta writer and DuckDB can't work under a path with "
                f"{' '.join(unfit)}; choose another folder"
            )
        self._options = {} if self.is_local else storage.delta_options()
        self._lock = self._make_lock(self.root)
        self._opened: dict[str, DeltaTable] | None = None
        self._files: dict[str, bytes] | None = None
        self._absent: set[tuple[str, int, str]] = set()  # table, version, transaction

    @classmethod
    def from_settings(cls, settings: Settings) -> Lake:
        """Return the lake that the settings name."""
        return cls(settings.lake, settings.s3, Limits(settings.memory_limit, settings.threads))

    def uri(self, *parts: str) -> str:
        """Return the address of something under the root."""
        return "/".join((self.root, *parts))

    def create(self, user_id: pa.DataType, item_id: pa.DataType) -> None:
        """Create the tables that don't exist yet; a second call changes nothing.

        `interactions` comes last: where it exists, all do. The others are opened and created side
        by side, since each of them waits for its store.
        """
        first, *others = schemas(user_id, item_id).items()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._create_missing, others))
        self._create_missing(first)

    def _create_missing(self, table: tuple[str, pa.Schema]) -> None:
        name, schema = table
        with self._explain(f"create the tables of {self.root}"):
            if not self._has_log(name) and not self.exists(name):
                self.create_table(name, schema)

    def _has_log(self, table: str) -> bool:
        """Say whether a log lies there, which is quicker than to open it; False where not known."""
        if not self.is_local:
            return False
        with suppress(OSError):
            return any(name.endswith(".json") for name in os.listdir(self.uri(table, "_delta_log")))
        return False

    def create_table(self, name: str, schema: pa.Schema) -> None:
        """Create a table that does not exist yet."""
        with self._explain(f"create {self.uri(name)}"):
            try:
                made = DeltaTable.create(
                    self.uri(name),
                    schema,
                    mode="ignore",
                    partition_by=list(TABLES[name].partitions) or None,
                    configuration={VERSION_PROPERTY: str(SCHEMA_VERSION)},
                    raise_if_key_not_exists=False,  # a property of ours, not one of Delta's
                    storage_options=self._options,
                )
            except (DeltaError, OSError):  # it may be made all the same, and the answer lost
                if not self.exists(name):
                    raise
                made = self.open(name)
            self._sync(name, -1, made.version())
        if self._opened is not None:
            self._opened[name] = made

    def retype(self, user_id: pa.DataType, item_id: pa.DataType) -> None:
        """Give the id columns other types, where no table holds a row of them yet."""
        with self._explain(f"create the tables of {self.root}"):
            for name, schema in schemas(user_id, item_id).items():
                if self.schema(name) != schema and not self.open(name).file_uris():
                    empty = schema.empty_table()
                    self._commit(name, partial(_retype, empty=empty))

    @contextmanager
    def write_lock(self, holder: str = "a run without a name") -> Iterator[None]:
        """Keep every other writer out while the block runs; wait for one that is in.

        In the block each table is opened once. It stays at the version of that time, and shows
        what this lake itself writes; see `refresh`.

        Args:
            holder: the run, as those that wait are told of it.

        Raises:
            LakeError: the other one did not end within an hour, or the lake can't be written.
        """
        with self._lock.held(holder):
            self._opened, self._files = {}, {}
            try:
                yield
            finally:
                self._opened, self._files = None, None
                self._absent.clear()

    def _make_lock(self, root: str) -> WriteLock:
        exclusion: Exclusion | None = None  # with single_writer, others keep runs apart
        if self.is_local:
            exclusion = FolderLock(Path(root))
        elif not self.storage.single_writer:
            exclusion = Lease(root, self.storage)
        return WriteLock(exclusion, root)

    def side_lock(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Keep others out of some work beside the lake's tables; see `write_lock`."""
        return self._make_lock(self.uri(name)).held(holder)

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Let other runs write while this block, inside that of `write_lock`, runs.

        What is open shows their work afterwards. Nothing happens outside of `write_lock`.
        """
        if self._opened is None:
            yield
            return
        try:
            with self._lock.released():
                yield
        finally:
            self.refresh()

    def require_lock(self) -> None:
        """Make sure, before something other than a table is written, that the lock is still held.

        Raises:
            LakeError: this run was stopped for so long that another one has begun.
        """
        self._lock.require()

    def refresh(self) -> None:
        """Let a run see what others have written since it opened its tables; see `write_lock`."""
        for table in (self._opened or {}).values():
            with self._explain(f"open {table.table_uri}"):
                table.update_incremental()

    def exists(self, table: str) -> bool:
        """Say whether the table has been created.

        Raises:
            LakeError: it can't be known, since the store does not answer or refuses.
        """
        try:
            self.open(table)
        except MissingError:
            return False
        return True

    def open(self, table: str, version: int | None = None) -> DeltaTable:
        """Open a table, at its newest version or a pinned one; see `write_lock`.

        Raises:
            MissingError: the table does not exist.
            LakeError: the version does not exist, the table can't be read, or another tool has
                given it a feature that is not read here.
        """
        opened = None if self._opened is None else self._opened.get(table)
        if opened and version in (None, opened.version()):
            return opened
        with self._explain(f"open {self.uri(table)}"):
            try:
                opened = DeltaTable(self.uri(table), version, self._options)
            except TableNotFoundError:
                self._require_access(table)
                raise MissingError(
                    f"{self.uri(table)} does not exist yet: run `recsys ingest` first, "
                    "or point RECSYS_LAKE at the lake that has it"
                ) from None
            features = commits.unread_features(opened)
        if features:
            raise LakeError(
                f"{self.uri(table)} has {', '.join(features)}, by another tool: its files alone "
                "don't tell its rows. Take the feature away with that tool (in Spark: ALTER TABLE "
                "DROP FEATURE), or restore the version before it"
            )
        if version is None and self._opened is not None:
            self._opened[table] = opened
        return opened

    def _require_access(self, table: str) -> None:
        """Raise OSError where a folder above may not be entered: Delta takes that for absence."""
        if self.is_local:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.stat(self.uri(table))

    def version(self, table: str) -> int:
        """Return the newest version of a table."""
        return self.open(table).version()

    def schema(self, table: str) -> pa.Schema:
        """Return the Arrow schema of a table."""
        return pa.schema(self.open(table).schema())

    def rows(
        self, table: str, names: Sequence[str] | None = None, where: str | None = None
    ) -> pa.Table:
        """Return the columns ``names`` (all by default) of a table that is small enough for memory.

        ``where`` is a predicate that skips the files it excludes; the others are read whole.
        """
        opened = self.open(table)
        with self._explain(f"read {opened.table_uri}"):
            return self.dataset(opened, where).to_table(columns=names)

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
        if transaction and self._has(table, transaction):
            return self.version(table)
        return self._commit(
            table,
            lambda target, carried: commits.write(target, rows, carried, mode="append"),
            commits.properties(note, transaction),
        )

    def replace(
        self,
        table: str,
        rows: pa.RecordBatchReader | pa.Table,
        *,
        where: str | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> int:
        """Replace the rows that match ``where`` (all of them without it) in one commit.

        On S3 the commit also merges the files of a small table: each is a request of every night.
        """
        if where and isinstance(rows, pa.Table) and self._has_small_files(table):
            schema = self.schema(table)
            stored = without_matching(self.rows(table), where, self.limits)
            rows, where = pa.concat_tables([stored.cast(schema), rows.cast(schema)]), None
        return self._commit(
            table,
            lambda target, carried: commits.write(
                target, rows, carried, mode="overwrite", predicate=where
            ),
            commits.properties(note),
        )

    def _has_small_files(self, table: str) -> bool:
        """Say whether a table on S3 has several files that are read with a request each."""
        opened = self.open(table)
        if self.is_local or opened.metadata().partition_columns:
            return False
        sizes = pa.table(opened.get_add_actions())["size_bytes"].to_pylist()
        return len(sizes) > 1 and sum(sizes) < s3_files.SMALL

    def upsert(
        self, table: str, rows: pa.Table, on: str, *, note: Mapping[str, Any] | None = None
    ) -> int:
        """Insert rows, or update those with the same ``on`` column, in one commit."""
        same = f"target.{quote(on)} = source.{quote(on)}"
        return self._commit(
            table,
            lambda target, carried: (
                target.merge(rows, same, "source", "target", commit_properties=carried)
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            ),
            commits.properties(note),
        )

    def add(self, table: str, files: Sequence[AddedFile]) -> int:
        """Add files that lie in a table's folder to it, in one commit; return its version.

        Raises:
            LakeError: a file is gone, or of another size.
        """
        added_files.require(self, table, files)

        def commit(target: DeltaTable, carried: CommitProperties) -> None:
            target.create_write_transaction(
                [file.action() for file in files],
                "append",
                target.schema(),
                target.metadata().partition_columns,
                commit_properties=carried,
                post_commithook_properties=commits.NO_HOOKS,
            )
            target.update_incremental()  # unlike other writes, it leaves the table as it was

        return self._commit(table, commit)

    def delete(self, table: str, where: str) -> None:
        """Delete the rows that match, in one commit."""
        self._commit(table, lambda target, carried: target.delete(where, commit_properties=carried))

    def has(self, table: str, transaction: str) -> bool:
        """Say whether a table carries a transaction's name, see :meth:`append`."""
        return self.exists(table) and self._has(table, transaction)

    def _has(self, table: str, transaction: str) -> bool:
        """Ask an open table for a transaction's name; that it lacks one is remembered.

        The Delta reader reads the whole log to tell.
        """
        opened = self.open(table)
        key = table, opened.version(), transaction
        if key in self._absent:
            return False
        with self._explain(f"read the log of {opened.table_uri}"):
            is_there = opened.transaction_version(transaction) is not None
        if not is_there and self._opened is not None:
            self._absent.add(key)
        return is_there

    def commits(
        self, table: str, limit: int | None = None
    ) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield (version, operation, note) of the commits, newest first; a note may be empty.

        Few are read where few are asked for.
        """
        opened = self.open(table)
        with self._explain(f"read the commits of {opened.table_uri}"):
            yield from commits.read(opened, limit)

    def partitions(self, table: str, column: str) -> set[str]:
        """Return the values of a column that a table is partitioned by, as text."""
        return {part[column] for part in self.open(table).partitions()}

    def add_columns(self, table: str, fields: pa.Schema, *, note: Mapping[str, Any]) -> None:
        """Add columns, null in the rows that are there, in one commit."""
        self._commit(
            table,
            lambda target, carried: target.alter.add_columns(
                list(DeltaSchema.from_arrow(fields).fields), commit_properties=carried
            ),
            commits.properties(note),
        )

    def properties(self, table: str) -> dict[str, str]:
        """Return the properties of a table."""
        return dict(self.open(table).metadata().configuration)

    def set_property(self, table: str, name: str, value: str) -> None:
        """Set a property of a table, in one commit."""
        self._commit(
            table,
            lambda target, carried: target.alter.set_table_properties(
                {name: value}, raise_if_not_exists=False, commit_properties=carried
            ),
        )

    def view(
        self,
        con: duckdb.DuckDBPyConnection,
        table: str,
        version: int | None = None,
        name: str | None = None,
        where: str | None = None,
    ) -> int:
        """Give ``con`` a view of a table at a version; return the version.

        DuckDB reads the files itself: a PyArrow dataset took 17 times as long here, and DuckDB
        waited for ever where the store refused one of its files.

        Args:
            con: a connection.
            table: the table.
            version: the newest without it.
            name: of the view; the table's without it.
            where: a predicate that skips the files it excludes; the others are read whole.
        """
        opened = self.open(table, version)
        files = opened.file_uris(file_pruning_predicate=where) if where else None
        selected = self.select(con, opened, files)
        con.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name or table)} AS {selected}")
        return opened.version()

    def select(
        self, con: duckdb.DuckDBPyConnection, opened: DeltaTable, files: Sequence[str] | None = None
    ) -> str:
        """Return a SELECT over an open table's files, or over some of them; see `select_files`."""
        self.let_read(con)
        return select_files(con, opened, files)

    def dataset(self, opened: DeltaTable, where: str | None = None) -> ds.Dataset:
        """Return an open table as a dataset; on S3 small files are read once a run."""
        if self.is_local:
            return opened.to_pyarrow_dataset(file_pruning_predicate=where)
        return s3_files.dataset(opened, self._options, self._remembered, where)

    def let_read(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let ``con`` read the files of a lake on S3, small ones once a run."""
        if not self.is_local and not con.filesystem_is_registered("s3"):
            con.register_filesystem(s3_files.LakeFiles(self.storage, self._remembered))

    def let_view(self, con: duckdb.DuckDBPyConnection) -> s3_files.EmptyFiles | None:
        """Let ``con`` make views of a lake on S3 without reading files that are emptied."""
        if self.is_local:
            return None
        files = s3_files.EmptyFiles(self.storage, self._remembered)
        con.register_filesystem(files)
        return files

    @property
    def _remembered(self) -> dict[str, bytes]:
        return {} if self._files is None else self._files

    def _explain(self, action: str) -> AbstractContextManager[None]:
        return explain_delta_errors(action, is_local=self.is_local)

    def _look_again(self, *, is_conflict: bool) -> None:
        """Let the tables that are open show what others wrote, or be opened again when needed."""
        try:
            if is_conflict:
                self.refresh()
                return
        except LakeError as error:
            _log.warning("%s", error)
        if self._opened is not None:
            self._opened.clear()

    def _commit(
        self,
        table: str,
        work: Callable[[DeltaTable, CommitProperties], object],
        carried: CommitProperties | None = None,
    ) -> int:
        """Do what makes one commit of a table, which carries its properties; return its version.

        Where the work failed and its commit is in all the same, since the network lost the store's
        answer, it counts as done.
        """
        carried = carried or commits.properties()
        with self.writing(table) as target:
            before = target.version()
            try:
                work(target, carried)
            except (DeltaError, OSError):
                found = self._find_commit(table, before, carried)
                if found is None:
                    raise
                return found
            return target.version()

    def _find_commit(self, table: str, after: int, carried: CommitProperties) -> int | None:
        """Return the newest version where the commit of these properties is in; else None."""
        try:
            newest = DeltaTable(self.uri(table), None, self._options)
            if not commits.has_commit(newest, after, carried):
                return None
        except (DeltaError, OSError):  # nothing is known: the first error is what happened
            return None
        _log.warning("%s has the commit whose answer was lost", newest.table_uri)
        if self._opened is not None:
            self._opened[table] = newest
        return newest.version()

    @contextmanager
    def writing(self, table: str) -> Iterator[DeltaTable]:
        """Give the newest version of a table, to be written to by one of the lake's own modules.

        Raises:
            LakeError: another run has changed the table since this one opened it.
        """
        target = self.open(table)
        self.require_lock()
        before = target.version()
        with self._explain(f"write {target.table_uri}"):
            try:
                yield target
            except BaseException as error:  # the next read has to see what is there
                self._look_again(is_conflict=isinstance(error, CommitFailedError))
                raise
            self._sync(table, before, target.version())
        try:
            with self._explain(f"write a checkpoint of {target.table_uri}"):
                commits.checkpoint_when_due(target, self.uri(table), before, self.storage)
        except LakeError as error:  # the commit stands: a later one makes the checkpoint
            _log.warning("%s", error)

    def _sync(self, table: str, after: int, newest: int) -> None:
        """Have the commits of a local table after a version on the disk."""
        if self.is_local:
            sync_commits(Path(self.uri(table)), after, newest)


def _retype(table: DeltaTable, carried: CommitProperties, empty: pa.Table) -> None:
    commits.write(table, empty, carried, mode="overwrite", schema_mode="overwrite")
