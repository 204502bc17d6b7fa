"""A snapshot of the packed histories, so that a night reads only what the day has brought."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from recsys import columns
from recsys.errors import LakeError
from recsys.lake.engine import open_cursor, select_files
from recsys.lake.packing import CHUNK, Coded, code, item_places, joined, offsets, pack, tables
from recsys.lake.roles import ROLES
from recsys.temporary import replace_file
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb
    from deltalake import DeltaTable
    from numpy.typing import NDArray

    from recsys.histories import ItemIds, Packed
    from recsys.lake.bound import Bound
    from recsys.lake.roles import Roles
    from recsys.lake.tables import Lake

_FOLDER, _NAME = "packed", "interactions.arrows"
_METADATA_KEY = b"recsys"
_FORMAT = 1
_LATE_SHARE = 0.05
"""Where more of the users than this have late rows, packing afresh is not slower."""
_READ = 1 << 22  # bytes of a file at a time
_log = logging.getLogger(__name__)


def load_histories(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    version: int,
    first: ItemIds | None = None,
    bound: Bound | None = None,
    roles: Roles | None = None,
) -> Packed:
    """Pack `interactions` at a version, as `pack` does on a view of it.

    Under a local lake a snapshot of the newest version's histories stays on disk. Where
    `interactions` has only grown since, its new files are read and merged into them; after anything
    else (rows deleted or rewritten, an older version, a snapshot that is torn or not ours) all of
    it is read. Call it inside a run, which keeps other writers out.

    Args:
        lake: the lake; on S3 there is no snapshot.
        con: a connection; no view or table of this stays in it.
        version: the version of `interactions`.
        first: item ids that keep their indices, see `pack`.
        bound: which rows. Where some lie beyond it, the others are packed afresh.
        roles: what each interaction is for, see `pack`. Where they depend on its time, all is
            packed afresh.

    Raises:
        LakeError: the table or the version does not exist, or it or the snapshot can't be read.
    """
    opened = lake.open(columns.INTERACTIONS, version)
    if bound and not bound.covers(opened):
        with con.cursor() as cursor:
            bound.view(lake, cursor, version)
            return pack(cursor, first, roles)
    path = Path(lake.uri(_FOLDER, _NAME))
    has_snapshot = lake.is_local and not (roles and roles.depend_on_time)
    state = _restore(path, con, opened, roles) if has_snapshot else None
    if state is None:
        with open_cursor(con) as cursor:
            lake.view(cursor, columns.INTERACTIONS, version)
            if not has_snapshot:
                return pack(cursor, first, roles)
            state = _State(
                code(cursor, roles), _files(opened).keys(), _last_ingestion(cursor), _key(roles)
            )
    is_newest = version == lake.version(columns.INTERACTIONS)
    if is_newest and len(state.coded.codes) and not state.is_on_disk:
        try:
            _write_snapshot(path, state)
        except OSError as error:
            _log.warning("%s could not be written (%s): the next run packs afresh", path, error)
    return state.coded.packed(first)


def forget_histories(lake: Lake) -> None:
    """Delete the snapshot: the next run packs afresh.

    Raises:
        LakeError: it can't be deleted.
    """
    if lake.is_local:
        path = Path(lake.uri(_FOLDER, _NAME))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LakeError(f"could not delete {path}: {error.strerror}") from error


@dataclass(frozen=True)
class _State:
    """Histories, and what has to be known to let them grow.

    Attributes:
        coded: the histories.
        files: names of the table's files that hold them. Delta never changes a file: the same
            names are the same rows.
        ingested: the last time of ingestion among the rows, in microseconds since 1970.
        roles: what decides the roles in the codes; None where they hold none.
        is_on_disk: whether the snapshot on disk is this one.
    """

    coded: Coded
    files: Iterable[str]
    ingested: int
    roles: dict[str, Any] | None
    is_on_disk: bool = False


@dataclass(frozen=True)
class _Snapshot:
    """A snapshot's file, open behind its tables and before its codes; fields as in `_State`."""

    file: pa.NativeFile
    users: pa.Table
    items: pa.Table
    files: frozenset[str]
    ingested: int
    roles: dict[str, Any] | None

    @classmethod
    def read(cls, file: pa.NativeFile) -> _Snapshot:
        """Read all but the codes."""
        users, items = (ipc.open_stream(file).read_all() for _ in range(2))
        metadata = json.loads((users.schema.metadata or {}).get(_METADATA_KEY, "{}"))
        if metadata.get("format") != _FORMAT:
            raise ValueError("it is of another format")
        files, ingested = frozenset(metadata["files"]), metadata["ingested"]
        return cls(file, users, items, files, ingested, metadata.get("roles"))

    def codes(self) -> Iterator[NDArray[np.int32]]:
        """Yield the codes in chunks, once."""
        for batch in ipc.open_stream(self.file):
            yield batch.column(0).to_numpy()


def _key(roles: Roles | None) -> dict[str, Any] | None:
    """Return what decides roles, as JSON holds it."""
    return roles.as_dict() if roles else None


def _restore(
    path: Path, con: duckdb.DuckDBPyConnection, table: DeltaTable, roles: Roles | None
) -> _State | None:
    """Return the table's histories by way of the snapshot, or None where it is of no use."""
    files, schema = _files(table), pa.schema(table.schema())
    try:
        with pa.OSFile(str(path)) as file:
            _check(path)
            snapshot = _Snapshot.read(file)
            ids = snapshot.users.field(columns.USER_ID), snapshot.items.field(columns.ITEM_ID)
            retyped = any(schema.field(cached.name).type != cached.type for cached in ids)
            has_other_roles = snapshot.roles != _key(roles)
            if retyped or has_other_roles or not snapshot.files <= files.keys():
                return None
            if snapshot.files < files.keys():
                with open_cursor(con) as cursor:
                    return _grown(snapshot, cursor, table, roles)
            codes = joined(snapshot.codes(), offsets(snapshot.users)[-1])
            coded = Coded(snapshot.users, snapshot.items, codes, roles is not None)
            files_read = snapshot.files
            return _State(coded, files_read, snapshot.ingested, _key(roles), is_on_disk=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, pa.ArrowException) as error:
        _log.warning("%s can't be used (%s): packing afresh", path, error)
        return None
    except OSError as error:
        raise LakeError(
            f"could not read {path}: {error}. It is a copy that a run makes again: let this user "
            "read it, or delete it"
        ) from error


def _grown(
    snapshot: _Snapshot, con: duckdb.DuckDBPyConnection, table: DeltaTable, roles: Roles | None
) -> _State | None:
    """Merge the rows of the table's new files into the histories of a snapshot.

    A user's new rows follow the cached ones. Where one may come before them, the user is late, and
    is read again from the whole table. None where that is no gain.
    """
    files = _files(table)
    fresh = [uri for name, uri in files.items() if name not in snapshot.files]
    con.execute(f"create temp view fresh as {select_files(con, table, fresh)}")
    con.execute("create temp view interactions as from fresh")
    con.register("cached_users", snapshot.users)
    cached_codes = pa.array(np.arange(1, len(snapshot.items) + 1, dtype=np.int32))
    con.register("cached_items", snapshot.items.append_column("code", cached_codes))
    late_users = f"create temp table late_users as {load('packing/late_users')}"
    con.execute(late_users, {"ingested": snapshot.ingested})
    with tables(con, fresh_users=load("packing/users"), fresh_items=load("packing/vocabulary")):
        ingested = max(snapshot.ingested, _last_ingestion(con))
        ((late,),) = con.execute("select count(*) from late_users").fetchall()
        if late > _LATE_SHARE * len(snapshot.users):
            return None
        _log.info(
            "packing %d new files; %d users have late rows",
            len(files) - len(snapshot.files),
            late,
        )
        if late:
            con.execute(f"create temp view whole as {select_files(con, table)}")
            both = load("packing/late_interactions")
            con.execute(f"create or replace temp view interactions as {both}")
        grown = {"users": load("packing/grown_users"), "vocabulary": load("packing/grown_items")}
        with tables(con, **grown):
            coded = _merged(snapshot, con, roles)
    return _State(coded, files.keys(), ingested, _key(roles))


def _merged(snapshot: _Snapshot, con: duckdb.DuckDBPyConnection, roles: Roles | None) -> Coded:
    """Move the cached codes to where they belong among the grown users, and put the new rows in."""
    users = con.sql("from users order by place").to_arrow_table()
    items = con.sql("from vocabulary order by code").to_arrow_table()
    starts, ends = offsets(users)[:-1], offsets(users)[1:]
    codes = np.empty(ends[-1], dtype=np.int32)
    is_cached = users["is_cached"].to_numpy()
    cached_lengths = snapshot.users["interactions"].to_numpy()
    # A late user's cached codes are written over by those that are read again: there are more.
    _put(codes, starts[is_cached], cached_lengths, snapshot.codes())
    new_starts = starts + users["cached_interactions"].to_numpy()
    code_of_place = np.empty(len(items) + 1, dtype=np.int32)
    code_of_place[items["place"].to_numpy()] = items["code"].to_numpy()
    new_codes = (code_of_place[places] for places in item_places(con))
    if roles:
        new_codes = (
            code_of_place[places // ROLES] * ROLES + places % ROLES
            for places in item_places(con, roles)
        )
    _put(codes, new_starts, ends - new_starts, new_codes)
    return Coded(
        users.select(snapshot.users.column_names),
        items.select(snapshot.items.column_names),
        codes,
        roles is not None,
    )


def _put(
    target: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    chunks: Iterable[NDArray[np.int32]],
) -> None:
    """Write segments of these lengths, which come end to end in chunks, to their starts.

    Raises:
        ValueError: the chunks are not as long as the segments.
    """
    ends = np.cumsum(lengths)
    shift = starts - (ends - lengths)
    done = 0
    for chunk in chunks:
        upto = done + len(chunk)
        if upto > ends[-1]:
            break
        touched = slice(*(np.searchsorted(ends, [done, upto - 1], side="right") + [0, 1]))
        inside = np.diff(np.minimum(ends[touched], upto), prepend=done)
        target[np.arange(done, upto) + np.repeat(shift[touched], inside)] = chunk
        done = upto
    if done != ends[-1]:
        raise ValueError(f"{done:,} interactions where {ends[-1]:,} belong")


def _write_snapshot(path: Path, state: _State) -> None:
    """Write the snapshot beside the previous one, and put it in its place in one step."""
    coded = state.coded
    metadata = {"format": _FORMAT, "files": sorted(state.files), "ingested": state.ingested}
    metadata["roles"] = state.roles
    users = coded.users.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata)})
    with replace_file(path) as new, new.open("wb") as file:
        for table in (users, coded.items, pa.table({"code": coded.codes})):
            with ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table, max_chunksize=CHUNK)
        file.flush()
        file.write(_digest(new, file.tell()))


def _check(path: Path) -> None:
    """Raise ValueError where the file is not what was written, to the last bit."""
    length = path.stat().st_size - hashlib.blake2b().digest_size
    with path.open("rb") as file:
        file.seek(max(0, length))
        if length < 0 or file.read() != _digest(path, length):
            raise ValueError("it is not whole")


def _digest(path: Path, length: int) -> bytes:
    """Return the digest of the first bytes of a file."""
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        while length > 0 and (some := file.read(min(length, _READ))):
            digest.update(some)
            length -= len(some)
    return digest.digest()


def _files(table: DeltaTable) -> dict[str, str]:
    """Return the path of each file of a local table, by its name."""
    return {Path(unquote(uri)).name: uri for uri in table.file_uris()}


def _last_ingestion(con: duckdb.DuckDBPyConnection) -> int:
    ((last,),) = con.execute(load("packing/last_ingestion")).fetchall()
    return last or 0
