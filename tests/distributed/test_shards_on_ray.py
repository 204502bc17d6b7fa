"""A night on a real cluster of Ray, whose nodes are processes of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.compute as pc
import pytest

from recsys import columns
from recsys.distributed.shards_on_ray import make_on_ray
from recsys.errors import ConfigurationError, LakeError
from recsys.lake.bound import Bound
from recsys.lake.tables import Lake
from recsys.lists.making import MadeShard, MakeShards, Night, make_in_turn
from recsys.lists.recommend import RecommendResult, recommend
from recsys.progress import Progress
from recsys.settings import Boost, Recommending, Rules, Scale, Settings
from tests import lakes
from tests.lists.test_experiment import HALF, two_models
from tests.lists.test_recommend import DAY, HISTORIES

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys-nightly[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SHARDS = 5
SMALL = {"object_store_memory": 80 * 2**20}
SAME = ["run_date", "user_id", "rank", "item_id", "score", "reason", "model_id", "confidence"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    # Else Ray takes another address than 127.0.0.1, and its nodes wait for each other.
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    made = Cluster()
    made.add_node(num_cpus=0, include_dashboard=False, **SMALL)
    for _ in range(2):
        made.add_node(num_cpus=1, **SMALL)
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def settings_of(settings: Settings, cluster: Any, **scale: Any) -> Settings:
    asked = {"engine": "ray", "shards": SHARDS, "ray_address": cluster.address, **scale}
    return settings.model_copy(
        update={
            "scale": Scale(**asked),
            "experiment": HALF,
            "rules": Rules(boosts=(Boost(when="item_id < 105", factor=3.0),)),
            "recommending": Recommending(k=5, explained_users=6),
        }
    )


def night(lake: Lake, settings: Settings, make: MakeShards) -> RecommendResult:
    return recommend(
        lake,
        settings,
        run_date=DAY,
        run_id="run",
        bound=Bound.of(settings, DAY, "now"),
        replace_why="a test",
        make_shards=make,
    )


def rows_of(lake: Lake, table: str, edition: int, names: list[str] | None = None) -> Any:
    rows = lake.rows(table).filter(pc.field("edition") == edition)
    kept = rows.select(names) if names else rows.drop_columns(["edition"])
    return kept.sort_by([(name, "ascending") for name in kept.column_names]).to_pylist()


def fill(lake: Lake) -> None:
    lakes.fill(lake, {**HISTORIES, 31: [900]})
    items = [{"item_id": item, "eligible": True} for item in [*range(100, 117), 900]]
    lakes.write(lake, columns.ITEMS, items)
    two_models(lake)


def what_rules_did(lake: Lake) -> dict[str, str]:
    told = lake.rows(columns.QUALITY_RESULTS).filter(pc.field("suite") == "rules").to_pylist()
    return {row["rule"]: row["observed"] for row in told}


def test_lists_are_those_of_one_machine(lake: Lake, settings: Settings, cluster: Any) -> None:
    fill(lake)
    here = night(lake, settings_of(settings, cluster, shards=1), make_in_turn)
    one, rules = rows_of(lake, columns.RECOMMENDATIONS, 1, SAME), what_rules_did(lake)
    explained = rows_of(lake, columns.EXPLANATIONS, 1)
    lake.delete(columns.RECOMMENDATIONS, "rank > 0")  # or the lists stand, unchanged
    there = night(lake, settings_of(settings, cluster), make_on_ray)
    assert rows_of(lake, columns.RECOMMENDATIONS, 2, SAME) == one
    assert rows_of(lake, columns.EXPLANATIONS, 2) == explained
    assert rows_of(lake, columns.POPULAR_ITEMS, 2) == rows_of(lake, columns.POPULAR_ITEMS, 1)
    assert (there.users, there.rows, there.edition) == (here.users, here.rows, 2)
    assert what_rules_did(lake) == rules
    assert int(rules["boosts: items in lists"]) > 0
    files = lake.open(columns.RECOMMENDATIONS).file_uris()
    assert 1 < len(files) <= SHARDS


@pytest.mark.long
def test_a_node_that_is_lost_costs_no_list(lake: Lake, settings: Settings, cluster: Any) -> None:
    fill(lake)
    lost = cluster.add_node(num_cpus=1, **SMALL)

    def lose_it(night: Night, folder: Path, _: Progress) -> list[MadeShard]:
        def told(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
            if done == 1:
                Thread(target=lambda: cluster.remove_node(lost, allow_graceful=False)).start()

        return make_on_ray(night, folder, told)

    night(lake, settings_of(settings, cluster, shards=12), lose_it)
    ray_rows = rows_of(lake, columns.RECOMMENDATIONS, 1, SAME)
    lake.delete(columns.RECOMMENDATIONS, "rank > 0")  # or the lists stand, unchanged
    night(lake, settings_of(settings, cluster, shards=1), make_in_turn)
    assert ray_rows == rows_of(lake, columns.RECOMMENDATIONS, 2, SAME)


def test_what_the_cluster_lacks_is_said(lake: Lake, settings: Settings, cluster: Any) -> None:
    fill(lake)
    with pytest.raises(ConfigurationError, match=r"has \d CPUs and 0 GPUs; a shard asks for"):
        night(lake, settings_of(settings, cluster, gpus_per_shard=1), make_on_ray)
    nowhere = settings_of(settings, cluster, ray_address="127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="no Ray cluster answers there"):
        night(lake, nowhere, make_on_ray)
    assert time.monotonic() - began < 60
    with pytest.raises(ConfigurationError, match=r"needs scale\.shards of 2 and more"):
        night(lake, settings_of(settings, cluster, shards=1), make_on_ray)
    assert not lake.rows(columns.EDITIONS).num_rows


def test_a_file_that_is_lost_before_the_commit_stops_the_night(
    lake: Lake, settings: Settings, cluster: Any
) -> None:
    fill(lake)

    def lose_a_file(night: Night, folder: Path, progress: Progress) -> list[MadeShard]:
        made = make_on_ray(night, folder, progress)
        Path(made[0].staged.added[0].uri).unlink()
        return made

    settings = settings_of(settings, cluster)
    unexplained = settings.model_copy(update={"recommending": Recommending(k=5, explained_users=0)})
    with pytest.raises(LakeError, match="is gone or of another size since it was written"):
        night(lake, unexplained, lose_a_file)
    assert not lake.rows(columns.EDITIONS).num_rows
    assert night(lake, settings, make_on_ray).status == "published"
