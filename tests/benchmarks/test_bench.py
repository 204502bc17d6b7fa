from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import duckdb
import numpy as np
import pytest

from recsys.model.presets import resolve
from tests.benchmarks import one
from tests.benchmarks.__main__ import ROOT, STAGES, Result, main, run_alone
from tests.benchmarks.common import Setup, Sizes
from tests.benchmarks.machine import network_flops

TINY = {
    **dict.fromkeys(("prefix_targets", "causal_targets", "quality_targets", "queries"), 8),
    **dict.fromkeys(("users", "users_all_steps", "reference_users", "quality_users"), 2),
    **dict.fromkeys(("rows", "reference_rows", "catalogue"), 500),
    "rounds": 1,
    "seconds": 0.01,
    "reference_steps": 1,
    "square": 64,
    "copy_mb": 1,
}


def shop(file: Path) -> Path:
    rows = "select range // 6 as user_id, range % 7 as item_id, range as timestamp from range(48)"
    duckdb.from_query(rows).write_parquet(str(file))
    return file


def run_here(name: str, folder: str) -> Result:
    """Run a measure in this process: twenty processes would import torch for two minutes."""
    one.main(name, Path(folder))
    result: Result = json.loads((Path(folder) / "result.json").read_text())
    return result


@pytest.mark.long
def test_a_run_compares_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(TINY) == set(Sizes.__dataclass_fields__)
    file, out = shop(tmp_path / "shop's rows.parquet"), tmp_path / "build" / "bench.json"
    sizes = [part for name, size in TINY.items() for part in (f"--{name}", str(size))]
    main(["--data", str(file), "--out", str(out), "--device", "cpu", *sizes], run_here)
    shown = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["data"] == {"name": file.name, "users": 8, "items": 7, "interactions": 48}
    assert report["sizes"] == TINY
    assert {"cpu", "cores", "gpu", "torch", "precision", "threads"} <= set(report["machine"])
    assert [line["stage"] for line in report["stages"]] == [stage.name for stage in STAGES]
    for line, stage in zip(report["stages"], STAGES, strict=True):
        assert stage.name in shown
        assert line["ours"] == line["rounds"]["ours"][0]
        assert line["ratio"] == line["ours"] / line["reference"]
        assert min(line["peak_rss_mb"], line["reference_peak_rss_mb"]) > 30
        if stage.figure == "rate":
            assert line["roofline_share"] > 0
            assert "measured" in line["roofline_of"]
        else:
            assert 0 < line["ours"] <= 1


@pytest.mark.slow
def test_a_measure_runs_in_a_process_of_its_own_without_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MEMORY_LIMIT", "none")  # every measure here would fail on it
    file = shop(tmp_path / "rows.parquet")
    setup = Setup(str(tmp_path), str(file), str(tmp_path / "cache"), "cpu", Sizes(**TINY))
    (tmp_path / "setup.json").write_text(json.dumps(asdict(setup)))
    result = run_alone("data:prepare", str(tmp_path))
    assert result["figures"]["interactions"] == 48
    assert result["peak_rss_mb"] > 30


@pytest.mark.slow
def test_a_stage_that_fails_fails_the_run(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.parquet", tmp_path / "bench.json"
    duckdb.from_query("select 1 as user_id").write_parquet(str(file))
    command = [sys.executable, "-m", "tests.benchmarks", "--data", str(file), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "data:prepare failed" in done.stderr
    assert "item_id" in done.stderr
    assert not out.exists()


def test_operations_are_those_of_the_documented_formula() -> None:
    """Two tokens of one block, D = 4: 12 D^2 each, and 2 D a key: 2 + 2 keys, causal 1 + 2."""
    for objective, keys in (("prefix", 4), ("causal", 3)):
        config = resolve("best", {"objective": objective, "width": 4, "blocks": 1}).model
        assert network_flops(config, np.array([2])) == 2 * (2 * 12 * 16 + 2 * 4 * keys)
