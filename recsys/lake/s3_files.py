"""Files of Delta tables on S3, read with few requests."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from fsspec import AbstractFileSystem

from recsys.lake import object_store
from recsys.lake.faults import explain_delta_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow.dataset as ds
    from deltalake import DeltaTable

    from recsys.settings import ObjectStorage

SMALL = 1 << 20
"""Bytes of a file that is read whole: its footer and its rows with one request."""
_REMEMBERED = 1 << 26
"""Bytes of small files that one run remembers: Delta never changes a file."""


def dataset(
    table: DeltaTable, options: Mapping[str, str], memory: dict[str, bytes], where: str | None
) -> ds.Dataset:
    """Return a table on S3 as a dataset.

    Args:
        table: the table.
        options: the Delta writer's, of the endpoint.
        memory: address -> content of small files that were read before; it grows.
        where: a predicate that skips the files it excludes, by their partitions and statistics.
    """
    handler = _Files(table, options, memory)
    return table.to_pyarrow_dataset(
        filesystem=pa_fs.PyFileSystem(handler), file_pruning_predicate=where
    )


class _Files(DeltaStorageHandler):
    """Reads the files of one table; sizes are those of its log, so that none is asked for."""

    def __init__(
        self, table: DeltaTable, options: Mapping[str, str], memory: dict[str, bytes]
    ) -> None:
        actions = pa.table(table.get_add_actions())
        names, sizes = (actions[name].to_pylist() for name in ("path", "size_bytes"))
        self._sizes: dict[str, int] = dict(zip(names, sizes, strict=True))
        self._memory, self._root = memory, table.table_uri.rstrip("/")
        super().__init__(table.table_uri, dict(options), self._sizes)

    def open_input_file(self, path: str) -> Any:
        """Open a file to be read; a small one is read at once, and remembered."""
        size = self._sizes.get(path)
        if size is None or size > SMALL:
            return super().open_input_file(path)
        address = f"{self._root}/{path}"
        content = self._memory.get(address)
        if content is None:
            with explain_delta_errors(f"read {address}", is_local=False):
                content = bytes(self._handler.open_input_file(path).read(size))
            _remember(self._memory, address, content)
        return pa.PythonFile(io.BytesIO(content), mode="r")


def _remember(memory: dict[str, bytes], address: str, content: bytes) -> None:
    """Keep a small file, while there is room."""
    if sum(map(len, memory.values())) + len(content) <= _REMEMBERED:
        memory[address] = content


class LakeFiles(AbstractFileSystem):  # type: ignore[misc]
    """Files of Delta tables for DuckDB: a small one is read with one request, and remembered.

    No name is a pattern here, and no file ever changes.

    Args:
        storage: the S3 endpoint.
        memory: address -> content of small files that were read before; it grows.
    """

    protocol = "s3"
    cachable = False  # fsspec would give one instance, with what it remembers, to all lakes

    def __init__(self, storage: ObjectStorage, memory: dict[str, bytes]) -> None:
        super().__init__()
        self._storage, self._memory = storage, memory
        self._large: dict[str, int] = {}
        self._others = object_store.filesystem(storage)
        self._opened: dict[str, pa.NativeFile] = {}

    def _content(self, path: str) -> bytes | None:
        """Return a small file; of a large one, remember its size."""
        address = f"s3://{self._strip_protocol(path)}"
        if address in self._large:
            return None
        content = self._memory.get(address)
        if content is None:
            content, size = object_store.read_start(address, SMALL, self._storage)
            if size > len(content):
                self._large[address] = size
                return None
            _remember(self._memory, address, content)
        return content

    def _open(self, path: str, *_: Any, **__: Any) -> _SharedFile:
        content = self._content(path)
        if content is not None:
            return _SharedFile(pa.BufferReader(content))
        name = self._strip_protocol(path)
        if name not in self._opened:  # which asks for its size
            self._opened[name] = self._others.open_input_file(name)
        return _SharedFile(self._opened[name])

    def modified(self, path: str) -> datetime:  # noqa: ARG002 - fsspec's signature
        """Return the same moment for every file, see fsspec."""
        return datetime.fromtimestamp(0, UTC)

    def glob(self, path: str, *_: Any, **__: Any) -> list[str]:
        """Return the file of this name: no name is a pattern here."""
        return [self._strip_protocol(path)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file, see fsspec."""
        name, content = self._strip_protocol(path), self._content(path)
        size = self._large[f"s3://{name}"] if content is None else len(content)
        return {"name": name, "size": size, "type": "file"}


class _SharedFile:
    """A file with a place for each thread.

    DuckDB's threads share one, and each first seeks, then reads: with one place, a thread would now
    and then read what another one sought.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self._file, self._place = file, threading.local()

    def close(self) -> None:
        """Do nothing: other threads may read on."""

    def seek(self, place: int) -> None:
        """Set the place where this thread reads next."""
        self._place.start = place

    def tell(self) -> int:
        """Return the place where this thread reads next."""
        return getattr(self._place, "start", 0)

    def read(self, n_bytes: int) -> bytes:
        """Read from this thread's place on."""
        start = self.tell()
        content: bytes = self._file.read_at(n_bytes, start)
        self._place.start = start + len(content)
        return content


class EmptyFiles(LakeFiles):
    """Files of Delta tables on S3, most of which are shown as Parquet files of no rows.

    DuckDB opens all the files of a view when the view is made, to know its columns. The catalog's
    views know them from the Delta log: on S3 they are made over these files, with no request.
    """

    def __init__(self, storage: ObjectStorage, memory: dict[str, bytes]) -> None:
        super().__init__(storage, memory)
        self._empty: dict[str, bytes] = {}

    def empty(self, table: DeltaTable) -> None:
        """Show the files of a table with its columns, but those that it is partitioned by."""
        schema, partitions = pa.schema(table.schema()), table.metadata().partition_columns
        stored = pa.schema(field for field in schema if field.name not in partitions)
        buffer = io.BytesIO()
        pq.write_table(stored.empty_table(), buffer)
        names = map(self._strip_protocol, table.file_uris())
        self._empty |= dict.fromkeys(names, buffer.getvalue())

    def show(self, uris: Iterable[str]) -> None:
        """Show files as they are."""
        for name in map(self._strip_protocol, uris):
            self._empty.pop(name, None)

    def _content(self, path: str) -> bytes | None:
        empty = self._empty.get(self._strip_protocol(path))
        return super()._content(path) if empty is None else empty
