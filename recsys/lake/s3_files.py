"""Files of Delta tables on S3, read with few requests."""

from __future__ import annotations

import io
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

_SMALL = 1 << 20
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
        if size is None or size > _SMALL:
            return super().open_input_file(path)
        address = f"{self._root}/{path}"
        content = self._memory.get(address)
        if content is None:
            with explain_delta_errors(f"read {address}", is_local=False):
                content = bytes(self._handler.open_input_file(path).read(size))
            if sum(map(len, self._memory.values())) + size <= _REMEMBERED:
                self._memory[address] = content
        return pa.PythonFile(io.BytesIO(content), mode="r")


class _NamedFiles(AbstractFileSystem):  # type: ignore[misc]
    """An ``s3://`` for DuckDB on which no name is a pattern, and no file ever changes."""

    protocol = "s3"

    def __init__(self) -> None:
        super().__init__(skip_instance_cache=True)

    def modified(self, path: str) -> datetime:  # noqa: ARG002 - fsspec's signature
        """Return the same moment for every file, see fsspec."""
        return datetime.fromtimestamp(0, UTC)

    def glob(self, path: str, *_: Any, **__: Any) -> list[str]:
        """Return the file of this name: no name is a pattern here."""
        return [self._strip_protocol(path)]


class WholeFiles(_NamedFiles):
    """Files of Delta tables for DuckDB: a small one is read with one request, and remembered.

    Args:
        storage: the S3 endpoint.
        memory: address -> content of small files that were read before; it grows.
    """

    def __init__(self, storage: ObjectStorage, memory: dict[str, bytes]) -> None:
        super().__init__()
        self._storage, self._memory = storage, memory
        self._large: dict[str, int] = {}
        self._others = object_store.filesystem(storage)

    def _content(self, path: str) -> bytes | None:
        """Return a small file; of a large one, remember its size."""
        address = f"s3://{self._strip_protocol(path)}"
        if address in self._large:
            return None
        content = self._memory.get(address)
        if content is None:
            content, size = object_store.read_start(address, _SMALL, self._storage)
            if size > len(content):
                self._large[address] = size
                return None
            if sum(map(len, self._memory.values())) + size <= _REMEMBERED:
                self._memory[address] = content
        return content

    def _open(self, path: str, *arguments: Any, **named: Any) -> Any:
        content = self._content(path)
        if content is None:
            return self._others.open(path, *arguments, **named)
        return io.BytesIO(content)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file, see fsspec."""
        name, content = self._strip_protocol(path), self._content(path)
        size = self._large[f"s3://{name}"] if content is None else len(content)
        return {"name": name, "size": size, "type": "file"}


class EmptyFiles(_NamedFiles):
    """An ``s3://`` on which every file that is named is a Parquet file of no rows.

    DuckDB opens all the files of a view when the view is made, to know its columns. The catalog's
    views know them from the Delta log: on S3 they are made over these files, with no request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._content: dict[str, bytes] = {}

    def put_table(self, table: DeltaTable, uris: Iterable[str]) -> None:
        """Let the files of a table have its columns, but those that it is partitioned by."""
        schema, partitions = pa.schema(table.schema()), table.metadata().partition_columns
        stored = pa.schema(field for field in schema if field.name not in partitions)
        buffer = io.BytesIO()
        pq.write_table(stored.empty_table(), buffer)
        self._content |= dict.fromkeys(map(self._strip_protocol, uris), buffer.getvalue())

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._content[self._strip_protocol(path)])

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the size of a file, see fsspec."""
        name = self._strip_protocol(path)
        if name not in self._content:
            raise FileNotFoundError(path)
        return {"name": name, "size": len(self._content[name]), "type": "file"}
