from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.benchmark.matrix import matrix
from recsys.benchmark.results import BenchmarkResult, DataInfo, Seconds
from recsys.benchmark.run import System, benchmark
from recsys.benchmark.tables import rendered
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.evaluation.results import PROTOCOLS, SPLITS, EvaluationReport, Slice
from recsys.model.runtime import Runtime
from recsys.progress import Progress
from tests.worlds import successor_world

CPU = Runtime(device="cpu")
SMALL = "best:width=32,heads=2,batch_size=256,learning_rate=0.003"


def write(file: Path, rows: list[tuple[int, int, int]]) -> None:
    user, item, time = zip(*rows, strict=True)
    timestamps = pa.array(time, pa.timestamp("us"))
    pq.write_table(pa.table({"user_id": user, "item_id": item, "timestamp": timestamps}), file)


def written(folder: Path, users: int = 150) -> Path:
    """The known world as a file whose rows are out of order and whose ids are strings."""
    world = successor_world(users=users)
    user, item = world.histories.interactions()
    time = pa.array(range(len(user)), pa.timestamp("us"))
    table = pa.table(
        {
            "user_id": pa.array([f"u{index}" for index in user]),
            "item_id": pa.array([f"i{index}" for index in item]),
            "timestamp": time,
        }
    )
    path = folder / "it's a file.parquet"
    pq.write_table(table.take(list(range(len(user)))[::-1]), path)
    return path


def run(file: Path, system: str = SMALL, epochs: int = 40, **options: object) -> BenchmarkResult:
    asked_for = System.read(system, {"epochs": epochs})
    return benchmark(file, asked_for, **{"seed": 0, "runtime": CPU, **options})


def runs_told(calls: list[tuple[int, int]]) -> Progress:
    """Keep how many runs are done, and of how many."""

    def progress(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001 - the signature of every progress
        if stage == "runs":
            calls.append((done, total))

    return progress


@pytest.mark.slow
def test_a_benchmark_finds_the_rule_and_reports_it(tmp_path: Path) -> None:
    stages: list[str] = []
    result = run(written(tmp_path), progress=lambda stage, *_: stages.append(stage))
    assert BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    for split in SPLITS:
        for protocol in PROTOCOLS:
            assert sorted(result.on(split).metrics(protocol)) == sorted(
                f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (5, 10, 20)
            )
        assert result.on(split).users == 150
    assert result.test.masked["ndcg@5"] > 0.9
    assert run(written(tmp_path), "popularity").test.masked["hr@5"] < 0.5
    assert result.seconds.train > 0
    assert result.epochs is not None
    assert len(result.log) == result.epochs.run
    assert result.settings["model"]["width"] == 32
    assert result.data.items == 30
    assert {"loading", "training", "evaluating"} <= set(stages)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    file = written(tmp_path, users=60)
    one, same = (run(file, epochs=2) for _ in range(2))
    assert one.test == same.test
    assert [entry.loss for entry in one.log] == [entry.loss for entry in same.log]


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
    for name in ("user_id", "item_id", "timestamp"):
        table = pa.table({"user_id": [1, 1], "item_id": [1, 2], "timestamp": [1, 2]})
        place = table.schema.get_field_index(name)
        pq.write_table(table.set_column(place, name, pa.array([1, None])), broken)
        with pytest.raises(SourceError, match=f"1 rows have no {name}"):
            run(broken)
    pq.write_table(pa.table({"user_id": [1], "item_id": [1], "timestamp": ["11"]}), broken)
    with pytest.raises(SourceError, match="timestamp is text"):
        run(broken)
    place = pa.array([0, 1], pa.timestamp("us"))
    pq.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 1], "timestamp": place}), broken)
    with pytest.raises(GateError, match="three interactions"):
        run(broken)
    with pytest.raises(ConfigurationError, match="epochs = 0"):
        run(broken, epochs=0)
    with pytest.raises(ConfigurationError, match="diffurecsys"):
        run(broken, "nope")


@pytest.mark.parametrize("system", ["transitions", "item-knn"])
def test_a_baseline_that_looks_at_neighbours_finds_the_rule_too(
    tmp_path: Path, system: str
) -> None:
    result = run(written(tmp_path), system)
    assert result.test.masked["ndcg@5"] > 0.6
    assert result.epochs is None
    assert (result.settings == {}) == (system == "transitions")


def test_a_temporal_split_learns_nothing_from_later(tmp_path: Path) -> None:
    file = tmp_path / "shop.parquet"
    # By moment: 8 of 10 interactions train, one validates, one tests. User 3 comes too late.
    rows = [(1, 10, 0), (1, 11, 1), (2, 10, 2), (2, 11, 3), (1, 12, 4), (2, 12, 5), (1, 13, 6)]
    rows += [(2, 13, 7), (1, 14, 8), (2, 14, 9), (3, 15, 9)]
    write(file, rows)
    result = run(file, "transitions", splitting="temporal")
    assert result.validation.users == result.test.users == 1
    # That 14 follows 13 is only known later, and four items are more popular than it.
    assert result.test.unmasked["ndcg@5"] == pytest.approx(1 / np.log2(6))
    with pytest.raises(ConfigurationError, match="leave-one-out, temporal"):
        run(file, splitting="random")


@pytest.mark.slow
def test_a_matrix_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = written(tmp_path, users=60), tmp_path / "out"
    systems = [System.read(name, {"epochs": 1}) for name in (SMALL, "popularity")]
    calls: list[tuple[int, int]] = []

    def go(seeds: list[int]) -> str:
        calls.clear()
        return matrix(
            [file],
            systems,
            seeds,
            out,
            runtime=CPU,
            progress=runs_told(calls),
        )

    go([0])
    assert calls == [(0, 2), (1, 2), (2, 2)]
    first = {path.name: path.read_bytes() for path in out.glob("*.json")}
    assert sorted(name.rsplit("-", 1)[0] for name in first) == ["best-0", "popularity-0"]
    text = go([0, 1])  # popularity knows no seed
    assert calls == [(2, 3), (3, 3)]
    assert {name: (out / name).read_bytes() for name in first} == first
    assert text == (out / "tables.md").read_text(encoding="utf-8")
    assert f"| {systems[0]} | 2 |" in text
    assert "| popularity | 1 |" in text
    rows = pq.read_table(out / "results.parquet")
    parts = {(row["split"], row["slice"]) for row in rows.to_pylist()}
    assert {("test", "all"), ("validation", "other items")} < parts
    assert rows.num_rows == 3 * (len(parts) * 2 * 6 + 2 * 3)
    one = json.loads(first[next(name for name in first if name.startswith("popularity"))])
    (value,) = (
        row["value"]
        for row in rows.to_pylist()
        if (row["system"], row["split"], row["slice"], row["protocol"], row["metric"])
        == ("popularity", "test", "all", "masked", "ndcg@10")
    )
    assert value == one["test"]["masked"]["ndcg@10"]
    for module in ("matrix", "run"):  # other code, other results
        monkeypatch.setattr(f"recsys.benchmark.{module}.code_version", lambda: "9")
    go([0])
    assert calls[0] == (0, 2)


@pytest.mark.slow
def test_a_matrix_tells_files_and_precisions_apart(tmp_path: Path) -> None:
    files = []
    for users in (60, 40):
        folder = tmp_path / str(users)
        folder.mkdir()
        files.append(written(folder, users=users))

    def go(precision: str) -> list[tuple[int, int]]:
        calls: list[tuple[int, int]] = []
        text = matrix(
            files,
            [System.read(SMALL, {"epochs": 1})],
            [0],
            tmp_path / "out",
            runtime=Runtime(device="cpu", precision=precision),
            progress=runs_told(calls),
        )
        assert text.count("## it's a file.parquet") == 2
        for users in (60, 40):
            assert f"\n{users} users" in text
        return calls

    assert go("bf16")[0] == go("fp32")[0] == (0, 2)
    assert go("fp32")[0] == (2, 2)


def test_a_result_is_named_by_todays_file_and_a_cut_one_is_made_again(tmp_path: Path) -> None:
    file, out, calls = written(tmp_path, users=40), tmp_path / "out", []
    system, progress = [System.read("popularity")], runs_told(calls)
    matrix([file], system, [0], out, runtime=CPU, progress=progress)
    (file_of_result,) = out.glob("*.json")
    whole = file_of_result.read_bytes()
    file_of_result.write_bytes(whole[:100])
    other = file.rename(tmp_path / "other.parquet")
    text = matrix([other], system, [0], out, runtime=CPU, progress=progress)
    assert calls == [(0, 1), (1, 1)] * 2
    assert "## other.parquet" in text
    matrix([other.rename(file)], system, [0], out, runtime=CPU, progress=progress)
    assert calls[-1] == (1, 1)
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".md", ".parquet"]


def test_a_file_that_changes_in_between_is_not_told_as_the_one_before(tmp_path: Path) -> None:
    file, out = written(tmp_path, users=40), tmp_path / "out"

    def progress(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001 - the signature of every progress
        if (stage, done) == ("runs", 1):
            written(tmp_path, users=41)

    systems = [System.read(name) for name in ("popularity", "transitions")]
    with pytest.raises(SourceError, match=r"file\.parquet changed while the benchmark ran"):
        matrix([file], systems, [0], out, runtime=CPU, progress=progress)
    assert [name.name.split("-")[0] for name in out.iterdir()] == ["popularity"]


@pytest.mark.long
def test_when_one_run_fails_the_others_end_and_none_begins(tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    write(few, [(1, 10, 0), (1, 11, 1)])
    endless = System.read(f"{SMALL},patience=10000,epochs=10000")
    before = set(multiprocessing.active_children())
    with pytest.raises(GateError, match="no user has three interactions"):
        matrix(
            [few, written(tmp_path)],
            [endless],
            [0],
            tmp_path / "out",
            runtime=CPU,
            jobs=2,
        )
    assert set(multiprocessing.active_children()) == before
    assert list((tmp_path / "out").iterdir()) == []


def test_settings_of_two_names_run_once_and_are_told_by_both(tmp_path: Path) -> None:
    names = ["best:width=32,heads=2,epochs=1,delta=0.001", "best:width=32,heads=2,epochs=1"]
    systems, calls = [System.read(name) for name in names], []
    file, progress = written(tmp_path, users=40), runs_told(calls)
    for asked_for in (systems, systems[:1]):
        text = matrix([file], asked_for, [0], tmp_path / "out", runtime=CPU, progress=progress)
        shown = [system for system in systems if f"| {system} | 1 |" in text]
        assert shown == asked_for
    assert calls == [(0, 1), (1, 1), (1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("system", [SMALL, "popularity", "transitions", "item-knn"])
def test_what_the_test_withholds_changes_nothing_before_it(tmp_path: Path, system: str) -> None:
    """Neither learning, nor early stopping, nor tuning, nor a tie looks at a test item."""
    generator = np.random.default_rng(0)
    items, results = np.arange(30), []
    histories = [generator.permutation(items)[:6] for _ in range(60)]
    for last in (generator.integers(0, 30, 60), np.zeros(60, dtype=int)):
        rows = [
            (user, int(item), time)
            for user, history in enumerate(histories)
            for time, item in enumerate([*history, last[user]])
        ]
        write(tmp_path / "shop.parquet", rows)
        results.append(run(tmp_path / "shop.parquet", system, epochs=6))
    one, other = results
    assert one.validation == other.validation
    assert one.settings == other.settings
    assert one.epochs == other.epochs
    assert [entry.validation for entry in one.log] == [entry.validation for entry in other.log]
    assert one.test != other.test


@pytest.mark.slow
def test_a_matrix_in_processes_gives_the_same_figures(tmp_path: Path) -> None:
    file = written(tmp_path, users=60)
    tables = [
        matrix(
            [file],
            [System.read(SMALL, {"epochs": 1})],
            [0, 1],
            tmp_path / str(jobs),
            runtime=Runtime(device="cpu", threads=1),
            jobs=jobs,
        ).rpartition("What the lists")[0]  # minutes may differ
        for jobs in (1, 2)
    ]
    assert tables[0] == tables[1]


def test_published_figures_stand_beside_ours() -> None:
    metrics = dict.fromkeys(("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20"), 0.08)
    slices = [Slice(7, metrics, metrics, "history 2-9")]
    report = EvaluationReport(7, metrics, metrics, {}, slices, {"coverage@10": 0.5})
    run = BenchmarkResult(
        system="diffurec:steps=1",
        seed=0,
        splitting="leave-one-out",
        epochs=None,
        validation=report,
        test=report,
        seconds=Seconds(0.0, 60.0, 0.0),
        data=DataInfo("b.parquet", "3fa4c2e91b07", 22363, 12101, 198502),
        settings={},
        runtime=CPU.machine_info(),
        code_version="1",
        log=[],
    )
    text = rendered([run, run])
    assert "(Amazon Beauty)" in text
    assert "7 users judged in validation and 7 users judged in test" in text
    assert "TV-Rec 0.1017 / 0.0608; BSARec, 5 seeds 0.1004 / 0.0609; SASRec" in text
    assert "| system | history 2-9 |\n| --- | --- |\n| diffurec:steps=1 | 0.0800 |" in text
    ours = "0.0800 ± 0.0000 | 0.0800 ± 0.0000 | +0.0009 | +0.0009 |"
    assert f"| diffurec:steps=1 | hr@10 | 0.0791 | {ours}" in text
