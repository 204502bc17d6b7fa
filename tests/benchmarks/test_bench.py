from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np

from recsys.model.presets import resolve
from tests.benchmarks.__main__ import ROOT, STAGES
from tests.benchmarks.common import Sizes
from tests.benchmarks.machine import network_flops

TINY = {
    **dict.fromkeys(("prefix_targets", "causal_targets", "quality_targets", "users"), 40),
    "users_all_steps": 40,
    **dict.fromkeys(("reference_users", "quality_users", "queries"), 8),
    **dict.fromkeys(("rows", "reference_rows", "catalogue"), 500),
    "rounds": 1,
    "seconds": 0.01,
    "reference_steps": 1,
    "square": 64,
    "copy_mb": 1,
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_compares_every_stage(tmp_path: Path) -> None:
    assert set(TINY) == set(Sizes.__dataclass_fields__)
    file, out = tmp_path / "shop's rows.parquet", tmp_path / "build" / "bench.json"
    rows = "select range // 6 as user_id, range % 7 as item_id, range as timestamp from range(120)"
    duckdb.from_query(rows).write_parquet(str(file))
    sizes = [part for name, size in TINY.items() for part in (f"--{name}", size)]
    done = run("--data", file, "--out", out, "--device", "cpu", *sizes)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["data"] == {"name": file.name, "users": 20, "items": 7, "interactions": 120}
    assert report["sizes"] == TINY
    assert {"cpu", "cores", "gpu", "torch", "precision", "threads"} <= set(report["machine"])
    assert [line["stage"] for line in report["stages"]] == [stage.name for stage in STAGES]
    for line, stage in zip(report["stages"], STAGES, strict=True):
        assert stage.name in done.stdout
        assert line["ours"] == line["rounds"]["ours"][0]
        assert line["ratio"] == line["ours"] / line["reference"]
        assert min(line["peak_rss_mb"], line["reference_peak_rss_mb"]) > 30
        if stage.figure == "rate":
            assert line["roofline_share"] > 0
            assert "measured" in line["roofline_of"]
        else:
            assert 0 < line["ours"] <= 1


def test_a_stage_that_fails_fails_the_run(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.parquet", tmp_path / "bench.json"
    duckdb.from_query("select 1 as user_id").write_parquet(str(file))
    done = run("--data", file, "--out", out)
    assert done.returncode == 1
    assert "data:prepare failed" in done.stderr
    assert "item_id" in done.stderr
    assert not out.exists()


def test_operations_are_those_of_the_documented_formula() -> None:
    """Two tokens of one block, D = 4: 12 D^2 each, and 2 D a key: 2 + 2 keys, causal 1 + 2."""
    for objective, keys in (("prefix", 4), ("causal", 3)):
        config = resolve("best", {"objective": objective, "width": 4, "blocks": 1}).model
        assert network_flops(config, np.array([2])) == 2 * (2 * 12 * 16 + 2 * 4 * keys)
