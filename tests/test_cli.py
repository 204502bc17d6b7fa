from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest
import typer

from flows import cli
from recsys.catalog.publish import publish_catalog
from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.model.recommender import Recommender
from recsys.registry.models import save_model
from recsys.registry.promote import register_model
from recsys.settings import Settings
from recsys.temporary import temporary_folder
from tests import lakes, worlds
from tests.flows import nights
from tests.flows.processes import default_interrupt, in_use, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]


def recsys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["recsys", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, " ".join(err.split())


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *arguments: recsys(monkeypatch, capsys, *arguments)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(
            "create table events as select u as user_id, (u * 7 + s) % 25 as item_id, "
            "timestamp '2026-01-01' + to_minutes(s::int) as at "
            "from range(40) users(u), range(9) steps(s)"
        )
    return path


def test_a_night_by_hand_without_a_server(ask, source: Path, tmp_path: Path) -> None:
    at = ("--lake", str(tmp_path / "lake"))
    mapped = (str(source), "--table", "events", "--column", "timestamp=at")
    code, _, err = ask(*at, "ingest", *mapped)
    assert code == 0, err
    counts = "360 rows read, 360 accepted, 0 quarantined, 0 already in the lake"
    assert f"accepted: {counts}" in err
    code, _, err = ask(*at, "ingest", *mapped)
    assert code == 0
    assert "nothing new" in err
    fields = ("width=32", "heads=2", "blocks=1", "max_length=10", "batch_size=64")
    small = [word for field in fields for word in ("--set", field)]
    code, _, err = ask(*at, "train", *small, "--set", "epochs=20")
    assert code == 0, err
    code, _, err = ask(*at, "train", *small, "--set", "epochs=1", "--set", "learning_rate=1e-9")
    assert code == 1, "the gate rejected it"
    assert "rejected" in err
    code, _, err = ask(
        *at, "recommend", "--run-date", "2026-01-02", "--as-of", "now", "--set", "k=3"
    )
    assert code == 0, err
    assert "published, edition 1 of 2026-01-02: 120 rows for 40 users" in err
    code, out, _ = ask(*at, "sql", "select count(*) as n from latest_recommendations", "-f", "json")
    assert (code, json.loads(out)) == (0, [{"n": 120}])
    code, out, _ = ask(*at, "models", "-f", "csv")
    assert out.splitlines()[0].startswith("model_id,status,preset")
    assert len(out.splitlines()) == 3
    code, out, _ = ask(*at, "sql", "select flow, status from runs order by started", "-f", "csv")
    assert out.split() == [
        "flow,status",
        "ingest,completed",
        "ingest,completed",
        "train,completed",
        "train,rejected",
        "recommend,completed",
    ]


@pytest.mark.slow
def test_rows_come_as_table_csv_or_json(ask, lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {"a,b": ["[red]:smile:"], 'c"d': ["é🙂"]})
    publish_catalog(lake)
    select = (
        "--lake",
        settings.lake,
        "sql",
        "select user_id, item_id from interactions order by 1",
    )
    assert ask(*select, "-f", "csv")[1] == 'user_id,item_id\n"a,b",[red]:smile:\n"c""d",é🙂\n'
    assert json.loads(ask(*select, "-f", "json")[1]) == [
        {"user_id": "a,b", "item_id": "[red]:smile:"},
        {"user_id": 'c"d', "item_id": "é🙂"},
    ]
    assert "[red]:smile:" in ask(*select)[1], "text is shown as it is"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ingest",), 2, "source"),
        (("ingest", "nowhere.duckdb", "--table", "t"), 1, "nowhere.duckdb"),
        (("ingest", "x.csv", "--column", "user_id"), 2, "'user_id' should read NAME=VALUE"),
        (("ingest", "x.csv", "--column", "user=u"), 2, "the mapping names 'user'"),
        (("ingest", "x.csv", "--column", "user_id=a", "--column", "item_id=a"), 2, "'a' twice"),
        (("ingest", "x.csv", "--column", "user_id=a", "--column", "user_id=b"), 2, "given twice"),
        (("ingest", "--table", "t"), 2, "go with a SOURCE"),
        (("train",), 1, "run `recsys ingest` first"),
        (("train", "--set", "epochs=0"), 2, "epochs"),
        (("train", "--set", "no_such_field=1"), 2, "no_such_field"),
        (("train", "--set", "preset=none-such"), 2, "diffurecsys"),
        (("recommend",), 1, "run `recsys ingest` first"),
        (("recommend", "--set", "k=0"), 2, "k: "),
        (("sql", "no_such_query"), 2, "the queries are: active_users"),
        (("sql", "select 1"), 1, "run `recsys nightly` first"),
        (("sql", "select 1", "--format", "xml"), 2, "xml"),
        (("benchmark", "nowhere.parquet"), 1, "nowhere.parquet"),
        (("benchmark", "x.parquet", "--preset", "none-such"), 2, "there are best, sasrec"),
        (("benchmark", "x.parquet", "--preset", "best:blocks=0"), 2, "blocks = 0"),
        (("benchmark", "x.parquet", "--preset", "best:blocks"), 2, "NAME:field=value"),
        (("benchmark", "x.parquet", "--preset", "popularity:k=1"), 2, "nothing that can be set"),
        (("nightly",), 2, "no source to ingest from"),
        (("serve",), 2, "no source to ingest from"),
        (("nightly", "--set", "k=20000"), 2, "k: "),
        (("nightly", "--set", "epochs=2"), 2, "epochs: "),
        (("nightly", "--set", "training.epochs=0"), 2, "epochs: "),
        (("nightly", "--run-date", "2999-01-01"), 2, "lies in the future"),
        (("recommend", "--run-date", "2999-01-01"), 2, "lies in the future"),
        (("serve", "--timezone", "Mars/One"), 2, "'Mars/One' is not a time zone"),
        (("serve", "--cron", "now and then"), 2, "now and then"),
        (("no-such-command",), 2, "no-such-command"),
    ],
)
def test_a_refusal_exits_with_1_and_wrong_usage_with_2(
    ask, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    found, _, err = ask("--lake", str(tmp_path / "lake"), *arguments)
    assert found == code, err
    assert says in err
    assert "Traceback" not in err


@contextmanager
def endless_ingest(source: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """An ingest that is in its query; temporary files are put under ``folder``."""
    lake, temporary = folder / "lake", folder / "temporary"
    temporary.mkdir()
    configured = json.dumps({"uri": str(source), "query": nights.ENDLESS})
    command = [str(Path(sys.executable).parent / "recsys"), "--lake", str(lake), "ingest"]
    env = {**os.environ, "RECSYS_SOURCE": configured, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=default_interrupt
    ) as ingest:
        try:
            until(lambda: in_use(ingest.pid, source), 60)
            yield ingest
        finally:
            ingest.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_within_a_query_it_ends_as_stopped(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with endless_ingest(source, tmp_path) as ingest:
        ingest.send_signal(number)
        _, said = ingest.communicate(timeout=60)
    assert ingest.returncode == 128 + number, said
    assert "Traceback" not in said
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    with endless_ingest(source, tmp_path) as living:
        held = set(temporary.iterdir())
        assert held
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with temporary_folder() as folder:
            assert set(temporary.iterdir()) == {*held, folder}, "one that lives keeps its own"
        living.kill()
        living.wait()
        with temporary_folder() as folder:
            assert set(temporary.iterdir()) == {folder}
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RECSYS_THREADS", "many", "threads"),
        ("RECSYS_TRAINING", "{bad", "training"),
        ("RECSYS_MEMORY_LIMIT", "lots", "memory_limit"),
        ("RECSYS_TIMEZONE", "Mars/One", "'Mars/One' is not a time zone"),
    ],
)
def test_a_wrong_setting_is_named(
    ask, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    code, _, err = ask("models")
    assert code == 2
    assert says in err


def test_a_file_of_settings_that_is_no_toml_is_refused(ask, tmp_path: Path) -> None:
    for content in (b"lake =\n", 'lake = "séjour"'.encode("latin-1")):
        (tmp_path / "recsys.toml").write_bytes(content)
        code, _, err = ask("models")
        assert code == 2
        assert "the settings can't be read" in err


def test_a_damaged_catalog_is_named(ask, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "catalog.duckdb").write_text("this is no database " * 1000)
    code, _, err = ask("--lake", str(tmp_path / "lake"), "sql", "select 1")
    assert code == 1
    assert "lake/catalog.duckdb" in err


@pytest.mark.slow
def test_the_catalog_answers_in_utc_wherever_the_machine_is(
    ask, lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.fill(lake, {1: [1]})
    publish_catalog(lake)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    select = "select timestamp::varchar as t from interactions"
    assert ask("--lake", settings.lake, "sql", select, "-f", "csv")[1] == (
        "t\n2026-01-01 00:00:00+00\n"
    )


@pytest.mark.slow
def test_a_person_sees_promotes_and_rolls_back_models(ask, tmp_path: Path) -> None:
    """Without Prefect; each change is a run with its row, and the catalog shows who serves."""
    lake = Lake.from_settings(Settings(lake=str(tmp_path / "lake")))
    lakes.fill(lake, {1: [7]})
    for model_id, status in (("m-a", "champion"), ("m-b", "rejected")):
        model = Recommender(worlds.small("best").model, 1)
        save_model(lake, model_id, model, ItemIds(pa.array([7])), {}, f"# {model_id}")
        against = "m-a" if model_id == "m-b" else None
        register_model(lake, lakes.model_row(model_id, status), against)
    root = ("--lake", lake.root)
    code, _, told = ask(*root, "models", "promote", "m-b", "--why", "a campaign")
    assert code == 0
    assert "m-b serves from the next lists on, in place of m-a; to undo it: recsys models" in told
    assert ask(*root, "models", "promote", "m-b", "--why", "again")[2] == (
        "m-b serves already; nothing was changed"
    )
    _, out, _ = ask(*root, "models", "show", "m-b")
    assert "# m-b" in out
    assert "Now **champion**: a test; promoted: a campaign." in out
    assert "(promote, " in out
    code, _, told = ask(*root, "models", "rollback", "--why", "it sold less")
    assert (code, "m-a serves from the next lists on, in place of m-b" in told) == (0, True)
    select = "select action, model_id, why, flow from promotions left join runs using (run_id)"
    _, out, _ = ask(*root, "sql", f"{select} order by promoted_at", "-f", "csv")
    assert out.splitlines()[1:] == [
        "gate,m-a,a test,",
        "promote,m-b,a campaign,promote",
        "rollback,m-a,it sold less,rollback",
    ]
    assert ask(*root, "sql", "select model_id from champion", "-f", "csv")[1] == "model_id\nm-a\n"
    code, _, err = ask(*root, "models", "promote", "m-x", "--why", "why")
    assert (code, "there is no model 'm-x'" in err) == (2, True)
    assert ask(*root, "models", "show", "m-x")[0] == 2


def commands() -> list[str]:
    group = typer.main.get_command(cli.app)
    return sorted(group.commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_command_is_in_the_reference_and_explains_itself(ask) -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert {
        "ingest",
        "train",
        "recommend",
        "nightly",
        "serve",
        "demo",
        "sql",
        "models",
        "benchmark",
    } <= set(commands())
    for command in commands():
        assert f"## recsys {command}" in reference, command
        code, out, _ = ask(command, "--help")
        assert code == 0
        assert len(out.splitlines()) > 5
