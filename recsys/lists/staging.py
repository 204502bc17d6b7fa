"""Lists on their way into the lake: checked and staged in a file, then streamed from it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.lists.editions import ListCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from recsys.histories import Packed
    from recsys.lake.added_files import AddedFile
    from recsys.lists.blocks import ListBlock
    from recsys.lists.checks import ListChecks

_T = TypeVar("_T")
_STAGED = (columns.USER_ID, "rank", columns.ITEM_ID, "score", "reason", "confidence", "model_id")
_BATCH = 100_000  # rows handed to the Delta writer, which holds several and may swap neighbours
_EXAMPLES = 5  # users without a list that are named
_WAITING = 2  # blocks of lists that may wait to be checked and written


@dataclass(frozen=True)
class StagedLists:
    """Lists in files, one a shard.

    Attributes:
        files: Parquet, scratch; see `staged_rows`.
        counts: of the lists.
        longest: interactions of the longest history.
        users_without_list: a few of the users without a list: no item was left for them.
        popular: the night's items by popularity, see `recsys.lists.shadow`.
        explanations: of some of the lists, see `recsys.lists.explain`; None: of none.
        added: in place of ``files``, those that lie in the table already, without a commit.
    """

    files: list[Path]
    counts: ListCounts
    longest: int
    users_without_list: list[Any]
    popular: pa.Table | None = None
    explanations: pa.Table | None = None
    added: tuple[AddedFile, ...] = ()

    @property
    def uris(self) -> list[str]:
        """Where the lists lie."""
        return [file.uri for file in self.added] or list(map(str, self.files))

    @classmethod
    def of(cls, shards: Sequence[StagedLists]) -> StagedLists:
        """Return the lists of all shards."""
        counts = [shard.counts for shard in shards]
        unserved = [user for shard in shards for user in shard.users_without_list]
        return cls(
            [file for shard in shards for file in shard.files],
            ListCounts(
                sum(each.users for each in counts),
                sum(each.rows for each in counts),
                sum(each.popular_users for each in counts),
                sum(each.without_list for each in counts),
            ),
            max(shard.longest for shard in shards),
            unserved[:_EXAMPLES],
            added=tuple(file for shard in shards for file in shard.added),
        )


def stage_lists(
    groups: Sequence[tuple[Packed, str | None, Iterable[ListBlock]]],
    checks: ListChecks,
    file: Path,
    schema: pa.Schema,
) -> StagedLists:
    """Check the lists and write them to a Parquet file, while the next ones are made.

    Args:
        groups: of users: the histories that lists were made from, the model that made them, and
            the lists, block by block.
        checks: counts what breaks a rule.
        file: where to.
        schema: of `recommendations`; what all rows share is left out, see `staged_rows`.
    """
    rows = popular_users = without_list = 0
    unserved: list[Any] = []
    staged = pa.schema([schema.field(name) for name in _STAGED])
    # Dictionaries of ids and scores would not get small, and trying takes half of the time.
    with pq.ParquetWriter(
        file, staged, use_dictionary=["reason", "confidence", "model_id"], write_statistics=False
    ) as writer:

        def check_and_write(made: tuple[Packed, str | None, ListBlock]) -> None:
            nonlocal rows, popular_users, without_list
            packed, model_id, block = made
            for part in block.parts():
                table = part.rows(packed, staged, model_id)
                checks.check(table, part.history(packed))
                writer.write_table(table)
                rows += len(table)
            popular_users += block.popular_users
            without_list += len(block.unserved)
            named = pa.array(block.unserved[: _EXAMPLES - len(unserved)], pa.int64())
            unserved.extend(packed.users.take(named).to_pylist())

        run_behind(
            check_and_write,
            ((packed, model_id, block) for packed, model_id, blocks in groups for block in blocks),
        )
    users = sum(len(packed.histories) for packed, *_ in groups) - without_list
    longest = max(int(packed.histories.lengths.max(initial=0)) for packed, *_ in groups)
    counts = ListCounts(users, rows, popular_users, without_list)
    return StagedLists([file], counts, longest, unserved)


def staged_rows(
    files: Iterable[Path], shared: Mapping[str, pa.Scalar], schema: pa.Schema
) -> pa.RecordBatchReader:
    """Stream staged rows as `recommendations` has them.

    Args:
        files: of `stage_lists`.
        shared: the columns that all rows share.
        schema: of `recommendations`.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                for rows in parquet.iter_batches(_BATCH):
                    arrays = [
                        pa.repeat(shared[name], len(rows)) if name in shared else rows[name]
                        for name in schema.names
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def run_behind(work: Callable[[_T], None], things: Iterable[_T]) -> None:
    """Do the work on each thing, in order, in one thread while the next thing is made.

    What either side raises ends both.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[None]] = deque()
        for thing in things:
            waiting.append(thread.submit(work, thing))
            if len(waiting) > _WAITING:
                waiting.popleft().result()
        for future in waiting:
            future.result()
