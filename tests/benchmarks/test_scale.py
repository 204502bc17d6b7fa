from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.benchmarks import scale


@pytest.mark.slow
def test_a_stage_runs_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])  # it runs as a module of this checkout
    size = ["--users", "20", "--items", "60", "--interactions", "12", "--folder", str(tmp_path)]
    figures = scale.run_alone(["--stage", "generate", *size])
    rows = pq.read_table(tmp_path / "source")
    assert figures["interactions"] == rows.num_rows
    assert figures["peak_rss_gb"] > 0.03


@pytest.mark.slow
def test_a_night_of_two_sizes_is_measured_stage_by_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: twelve would import torch, Great Expectations and the rest each."""
    out = tmp_path / "scale.json"
    small = ["--items", "60", "--interactions", "12", "--k", "5", "--catalogues", "60,2000"]
    paths = ["--folder", str(tmp_path), "--out", str(out)]
    scale.main(["--users", "200,400", *small, *paths], scale.run_here)

    found = json.loads(out.read_text())
    assert [size["users"] for size in found["sizes"]] == [200, 400]
    for size in found["sizes"]:
        assert 10 * size["users"] < size["interactions"] < 14 * size["users"]
        assert size["recommend"]["rows"] == 5 * size["users"]
        assert size["ingest"]["rows"] == size["interactions"]
        assert size["publish"]["rows"] == 5
        assert size["night"]["seconds"] >= sum(size[each]["seconds"] for each in scale.NIGHT)
    assert set(found["exponents"]) == set(scale.MEASURED)
    trainings = [(at["items"], at["negatives"]) for at in found["training"]]
    assert trainings == [(60, 0), (60, 1024), (2000, 0), (2000, 1024)]
    assert all(at["seconds"] > 0 and at["peak_rss_gb"] > 0 for at in found["training"])
    assert "recommend" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]


def test_exponents_are_slopes_on_logarithmic_axes() -> None:
    def size(n: float) -> dict[str, object]:
        figures = {"seconds": 3 * n**1.5, "peak_rss_gb": 0.4}
        return {"interactions": n, **dict.fromkeys(scale.MEASURED, figures)}

    for slopes in scale.exponents([size(1e3), size(1e4), size(1e6)]).values():
        assert slopes == pytest.approx({"seconds": 1.5, "peak_rss_gb": 0}, abs=1e-9)
