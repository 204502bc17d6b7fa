from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.benchmark import benchmark
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.model.runtime import Runtime
from tests.worlds import successor_world

CPU = Runtime(device="cpu")
SMALL = {"width": "32", "heads": "2", "batch_size": "256", "learning_rate": "0.003"}


def written(folder: Path, users: int = 150) -> Path:
    """The known world as a file whose rows are out of order and whose ids are strings."""
    world = successor_world(users=users)
    user, item = world.histories.flat()
    at = pa.array(range(len(user)), pa.timestamp("us"))
    table = pa.table(
        {
            "user_id": pa.array([f"u{each}" for each in user]),
            "item_id": pa.array([f"i{each}" for each in item]),
            "timestamp": at,
        }
    )
    path = folder / "it's a file.parquet"
    pq.write_table(table.take(list(range(len(user)))[::-1]), path)
    return path


def run(file: Path, **given: object) -> dict[str, object]:
    fixed = {"preset": "best", "seed": 0, "epochs": 40, "overrides": SMALL, "runtime": CPU}
    return benchmark(file, **{**fixed, **given})


def test_a_benchmark_finds_the_rule_and_reports_it(tmp_path: Path) -> None:
    told: list[str] = []
    found = run(written(tmp_path), progress=lambda stage, *_: told.append(stage))
    assert json.loads(json.dumps(found)) == found
    for split in ("validation", "test"):
        for protocol in ("masked", "unmasked"):
            assert sorted(found[split][protocol]) == sorted(
                f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20)
            )
            assert sorted(found["popularity"][split][protocol]) == sorted(found[split][protocol])
        assert found[split]["users"] == 150
    assert found["test"]["masked"]["ndcg@5"] > 0.9
    assert found["popularity"]["test"]["masked"]["hr@5"] < 0.5
    assert sorted(found["seconds"]) == ["evaluate", "load", "train"]
    assert len(found["log"]) == found["epochs"]["run"]
    assert found["config"]["model"]["width"] == 32
    assert found["data"]["items"] == 30
    assert {"loading", "training", "evaluating"} <= set(told)


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    file = written(tmp_path, users=60)
    one, same = (run(file, epochs=2) for _ in range(2))
    assert one["test"] == same["test"]
    assert [entry["loss"] for entry in one["log"]] == [entry["loss"] for entry in same["log"]]


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file"):
        run(tmp_path / "absent.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(written(tmp_path).read_bytes()[:200])
    with pytest.raises(SourceError, match="can't be read"):
        run(broken)
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), broken)
    with pytest.raises(SourceError, match="timestamp"):
        run(broken)
    at = pa.array([0, 1], pa.timestamp("us"))
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 1], "timestamp": at}), broken)
    with pytest.raises(GateError, match="three interactions"):
        run(broken)
    with pytest.raises(ConfigurationError, match="epochs = 0"):
        run(broken, epochs=0)
    with pytest.raises(ConfigurationError, match="diffurecsys"):
        run(broken, preset="nope")
