"""A snapshot of the packed histories, so that a night reads only what the day has brought."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from recsys import columns
from recsys.lake.engine import select_files
from recsys.lake.packing import CHUNK, Coded, code, item_places, joined, offsets, pack, tables
from recsys.temporary import replace_file
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb
    from deltalake import DeltaTable
    from numpy.typing import NDArray

    from recsys.histories import ItemIds, Packed
    from recsys.lake.tables import Lake

_FOLDER, _NAME = "packed", "interactions.arrows"
_METADATA_KEY = b"recsys"
_FORMAT = 1
_LATE_SHARE = 0.05
"""Where more of the users than this have late rows, packing afresh is not slower."""
_READ = 1 << 22  # bytes of a file at a time
_log = logging.getLogger(__name__)


def load_histories(
    lake: Lake, con: duckdb.DuckDBPyConnection, version: int, first: ItemIds | None = None
) -> Packed:
    """Pack `interactions` at a version, as `pack` does on a view of it.

    Under a local lake the histories of the newest version are kept. Where `interactions` has only
    grown since, its new files are read and merged into them; after anything else (rows deleted or
    rewritten, an older version, a snapshot that is torn or not ours) all of it is read. Call it
    inside a run, which keeps other writers out.

    Args:
        lake: the lake; on S3 nothing is kept.
        con: a connection; no view or table of this stays in it.
        version: the version of `interactions`.
        first: item ids that keep their indices, see `pack`.

    Raises:
        LakeError: the table or the version does not exist, or can't be read.
    """
    opened = lake.open(columns.INTERACTIONS, version)
    path = Path(lake.uri(_FOLDER, _NAME))
    state = _restored(path, con, opened) if lake.is_local else None
    if state is None:
        with con.cursor() as own:
            lake.view(own, columns.INTERACTIONS, version)
            if not lake.is_local:
                return pack(own, first)
            state = _State(code(own), _files(opened).keys(), _last_ingestion(own))
    is_newest = version == lake.version(columns.INTERACTIONS)
    if is_newest and len(state.coded.codes) and not state.is_kept:
        try:
            _keep(path, state)
        except OSError as error:
            _log.warning("%s could not be written (%s): the next run packs afresh", path, error)
    return state.coded.packed(first)


@dataclass(frozen=True)
class _State:
    """Histories, and what has to be known to let them grow.

    Attributes:
        coded: the histories.
        files: names of the table's files that hold them. Delta never changes a file: the same
            names are the same rows.
        ingested: the last moment of ingestion among the rows, in microseconds.
        is_kept: whether the snapshot on disk is this one.
    """

    coded: Coded
    files: Iterable[str]
    ingested: int
    is_kept: bool = False


@dataclass(frozen=True)
class _Snapshot:
    """A snapshot's file, open behind its tables and before its codes; fields as in `_State`."""

    file: pa.NativeFile
    users: pa.Table
    items: pa.Table
    files: frozenset[str]
    ingested: int

    @classmethod
    def read(cls, file: pa.NativeFile) -> _Snapshot:
        """Read all but the codes."""
        users, items = (ipc.open_stream(file).read_all() for _ in range(2))
        said = json.loads((users.schema.metadata or {}).get(_METADATA_KEY, "{}"))
        if said.get("format") != _FORMAT:
            raise ValueError("it is of another format")
        return cls(file, users, items, frozenset(said["files"]), said["ingested"])

    def codes(self) -> Iterator[NDArray[np.int32]]:
        """Yield the codes in chunks, once."""
        for batch in ipc.open_stream(self.file):
            yield batch.column(0).to_numpy()


def _restored(path: Path, con: duckdb.DuckDBPyConnection, table: DeltaTable) -> _State | None:
    """Return the table's histories by way of the snapshot, or None where it is of no use."""
    if not path.exists():
        return None
    files, schema = _files(table), pa.schema(table.schema())
    try:
        with pa.OSFile(str(path)) as file:
            _check(path)
            held = _Snapshot.read(file)
            ids = held.users.field(columns.USER_ID), held.items.field(columns.ITEM_ID)
            retyped = any(schema.field(held_id.name).type != held_id.type for held_id in ids)
            if retyped or not held.files <= files.keys():
                return None
            if held.files < files.keys():
                with con.cursor() as own:
                    return _grown(held, own, table)
            codes = joined(held.codes(), offsets(held.users)[-1])
            coded = Coded(held.users, held.items, codes)
            return _State(coded, held.files, held.ingested, is_kept=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        _log.warning("%s can't be used (%s): packing afresh", path, error)
        return None


def _grown(held: _Snapshot, con: duckdb.DuckDBPyConnection, table: DeltaTable) -> _State | None:
    """Merge the rows of the table's new files into the histories of a snapshot.

    A user's new rows follow those that are held. Where one may come before, the user is late, and
    is read anew from the whole table. None where that is no gain.
    """
    files = _files(table)
    fresh = [uri for name, uri in files.items() if name not in held.files]
    con.execute(f"create temp view fresh as {select_files(con, table, fresh)}")
    con.execute("create temp view interactions as from fresh")
    con.register("held_users", held.users)
    held_codes = pa.array(np.arange(1, len(held.items) + 1, dtype=np.int32))
    con.register("held_items", held.items.append_column("code", held_codes))
    late_users = f"create temp table late_users as {load('packing/late_users')}"
    con.execute(late_users, {"ingested": held.ingested})
    with tables(con, fresh_users=load("packing/users"), fresh_items=load("packing/vocabulary")):
        ingested = max(held.ingested, _last_ingestion(con))
        ((late,),) = con.execute("select count(*) from late_users").fetchall()
        if late > _LATE_SHARE * len(held.users):
            return None
        _log.info(
            "packing %d new files; %d users have late rows", len(files) - len(held.files), late
        )
        if late:
            con.execute(f"create temp view whole as {select_files(con, table)}")
            both = load("packing/late_interactions")
            con.execute(f"create or replace temp view interactions as {both}")
        grown = {"users": load("packing/grown_users"), "vocabulary": load("packing/grown_items")}
        with tables(con, **grown):
            coded = _merged(held, con)
    return _State(coded, files.keys(), ingested)


def _merged(held: _Snapshot, con: duckdb.DuckDBPyConnection) -> Coded:
    """Move what is held to where it belongs among the grown users, and put the new rows in."""
    users = con.sql("from users order by place").to_arrow_table()
    items = con.sql("from vocabulary order by code").to_arrow_table()
    starts, ends = offsets(users)[:-1], offsets(users)[1:]
    codes = np.empty(ends[-1], dtype=np.int32)
    is_held = users["is_held"].to_numpy()
    held_lengths = held.users["interactions"].to_numpy()
    # A late user's held codes are written over by those that are read anew: there are more.
    _put(codes, starts[is_held], held_lengths, held.codes())
    kept = starts + users["kept"].to_numpy()
    code_at = np.empty(len(items) + 1, dtype=np.int32)
    code_at[items["place"].to_numpy()] = items["code"].to_numpy()
    _put(codes, kept, ends - kept, (code_at[places] for places in item_places(con)))
    return Coded(
        users.select(held.users.column_names), items.select(held.items.column_names), codes
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


def _keep(path: Path, state: _State) -> None:
    """Write the snapshot beside the previous one, and put it in its place in one step."""
    coded = state.coded
    said = {"format": _FORMAT, "files": sorted(state.files), "ingested": state.ingested}
    users = coded.users.replace_schema_metadata({_METADATA_KEY: json.dumps(said)})
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
