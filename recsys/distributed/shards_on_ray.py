"""The lists of a night's shards, made by the nodes of a Ray cluster.

Each shard is a task of Ray's, which decides where and when it runs, and runs it again where its
node was lost. A process gathers once what all lists are made from, for all the shards that it
makes. It writes each to a file of its own where the table lies. The files are the driver's to
commit, all at once; what a lost process had written is no part of any table, and `recsys maintain`
removes it.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from recsys import columns
from recsys.errors import ConfigurationError, LakeError, RecsysError
from recsys.lake.added_files import write_file
from recsys.lake.tables import Lake
from recsys.lists.making import MadeShard, Night, make_in_turn, make_shard
from recsys.lists.staging import staged_rows
from recsys.progress import silent
from recsys.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from recsys.lists.editions import ListInputs
    from recsys.lists.making import MakeShards
    from recsys.progress import Progress
    from recsys.registry.models import ModelRow
    from recsys.settings import Scale, Settings

_RETRIES = 3  # of a shard whose node was lost
_SECONDS = 10.0  # that a cluster may take to answer


def strategy(settings: Settings) -> MakeShards:
    """Return what makes the lists of a night's shards, by `scale.engine`."""
    return make_on_ray if settings.scale.engine == "ray" else make_in_turn


@dataclass(frozen=True)
class _Recipe:
    """What a process needs to gather what lists are made from; all of it can be sent.

    Attributes:
        key: of this night.
        settings, inputs, champion, shared: as in `Night`.
    """

    key: str
    settings: Settings
    inputs: ListInputs
    champion: ModelRow | None
    shared: Mapping[str, pa.Scalar]


_nights: dict[str, Night] = {}
_open = ExitStack()
"""Of a process of Ray's: it ends with the night's connection to the cluster."""


def _make_one(recipe: _Recipe, number: int) -> MadeShard | RecsysError | None:
    """Write the lists of a shard to a file of the table; None where it has no users.

    It runs in a process of Ray's. An error of ours is returned, not raised: Ray would wrap it in
    rows of a traceback.
    """
    try:
        night = _gathered(recipe)
        with night.shards.one(number) as shard, temporary_folder() as folder:
            if shard is None:
                return None
            made = make_shard(night, shard, folder / "lists.parquet", silent)
            schema = night.lake.schema(columns.RECOMMENDATIONS)
            stored = schema.remove(schema.get_field_index("run_date"))
            rows = staged_rows(made.staged.files, night.shared, stored)
            day = {"run_date": night.inputs.run_date.isoformat()}
            added = write_file(night.lake, columns.RECOMMENDATIONS, rows, day)
    except RecsysError as error:
        return error
    return replace(made, staged=replace(made.staged, files=[], added=(added,)), scored=())


def _gathered(recipe: _Recipe) -> Night:
    """Return what lists are made from; a process of Ray's makes many shards, and gathers once."""
    if recipe.key not in _nights:
        lake = Lake.from_settings(recipe.settings)
        _nights[recipe.key] = _open.enter_context(
            Night.open(lake, recipe.settings, recipe.inputs, recipe.champion, recipe.shared)
        )
    return _nights[recipe.key]


def make_on_ray(night: Night, folder: Path, progress: Progress) -> list[MadeShard]:  # noqa: ARG001 - a strategy
    """Make the lists of all shards on a Ray cluster.

    Raises:
        ConfigurationError: Ray is not installed, its cluster is not there, or lacks what a shard
            asks for.
        LakeError: a shard was lost too often.
    """
    scale, count = night.settings.scale, night.shards.count
    if count < 2:
        raise ConfigurationError("scale.engine = ray needs scale.shards of 2 and more")
    with _cluster(scale) as ray:
        _require_room(ray, scale)
        key = str(uuid4())
        recipe = ray.put(_Recipe(key, night.settings, night.inputs, night.champion, night.shared))
        make = ray.remote(
            num_cpus=scale.cpus_per_shard, num_gpus=scale.gpus_per_shard, max_retries=_RETRIES
        )(_make_one)
        waiting, made = [make.remote(recipe, number) for number in range(count)], []
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            answer = _answer(ray, ready)
            if answer is not None:
                made.append(answer)
            progress("recommending", count - len(waiting), count, "shards")
    scored = tuple(
        night.scored_blocks(group, number, is_used=True)
        for group in night.groups
        for number in range(count)
    )
    return [replace(made[0], scored=scored), *made[1:]]


def _answer(ray: Any, ready: Any) -> MadeShard | None:
    """Return what a task made, or raise its error as ours."""
    try:
        answer = ray.get(ready)
    except ray.exceptions.RayTaskError:
        raise  # a defect: its traceback is needed
    except ray.exceptions.RayError as error:
        raise LakeError(
            f"a shard was lost {_RETRIES + 1} times on Ray ({str(error).strip().splitlines()[0]}); "
            "nothing was published. Look at the nodes' memory and logs, then run again",
            transient=True,
        ) from error
    if isinstance(answer, RecsysError):
        raise answer
    made: MadeShard | None = answer
    return made


def _require_room(ray: Any, scale: Scale) -> None:
    """Make sure that some shard can be made: Ray would wait for ever for a node with a GPU.

    Raises:
        ConfigurationError: the cluster has less than a shard asks for.
    """
    resources = ray.cluster_resources()
    has_room = resources.get("CPU", 0) >= scale.cpus_per_shard
    if not has_room or resources.get("GPU", 0) < scale.gpus_per_shard:
        raise ConfigurationError(
            f"the Ray cluster has {resources.get('CPU', 0):g} CPUs and "
            f"{resources.get('GPU', 0):g} GPUs; a shard asks for scale.cpus_per_shard = "
            f"{scale.cpus_per_shard:g} and scale.gpus_per_shard = {scale.gpus_per_shard:g}"
        )


@contextmanager
def _cluster(scale: Scale) -> Iterator[Any]:
    """Connect to the cluster for as long as the block runs."""
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            "scale.engine = ray needs Ray: pip install 'recsys-nightly[ray]'"
        ) from error
    try:
        _require_answer(scale.ray_address)
        ray.init(address=scale.ray_address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"scale.ray_address = {scale.ray_address}: no Ray cluster answers there: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise OSError where nothing answers: Ray itself would try for two minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _SECONDS).close()
