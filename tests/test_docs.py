"""The documentation is true: pages are fresh, links lead somewhere, commands and examples run."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer

from docs import generate
from flows import cli
from recsys.catalog.publish import publish_catalog
from recsys.lake.tables import Lake
from recsys.registry.gate import judge
from recsys.settings import ItemSource, ObjectStorage, Settings, Sink, Source
from tests import lakes
from tests.test_cli import recsys

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DIARIES = ("CHANGELOG.md", "experiment-log.md")  # they name things as they were called on the day
MADE_FROM_CODE = sorted(f"reference/{name}" for name in generate.PAGES)


class Example(NamedTuple):
    """A piece of a page that a reader may copy."""

    page: str
    text: str


def pages() -> list[Path]:
    return [path for path in PAGES if path.name not in DIARIES]


def blocks(*languages: str) -> list[Example]:
    """Code blocks of the pages in one of the languages; "" is a block without one."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        Example(str(path.relative_to(ROOT)), body)
        for path in pages()
        for language, body in fence.findall(path.read_text(encoding="utf-8"))
        if language in languages
    ]


def commands() -> list[Example]:
    """Every `recsys ...` and `make ...` of a code block or of a code span."""
    spans = [
        Example(str(path.relative_to(ROOT)), span)
        for path in pages()
        for span in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))
    ]
    lines = [
        Example(page, line.strip())
        for page, body in blocks("", "sh", "bash", "console")
        for line in body.replace("\\\n", " ").splitlines()
        if not page.endswith("reference/commands.md")  # usage lines, made from the code
    ]
    starts = re.compile(r"(\.venv/bin/)?recsys (-|[a-z])|make [a-z-]+")
    return sorted({example for example in [*spans, *lines] if starts.match(example.text)})


def words(command: str) -> list[str]:
    """Split a command as a shell does, without its comment and without ``--lake``."""
    split = shlex.split(command, comments=True)[1:]
    return split[2:] if split[:1] == ["--lake"] else split


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the renderer make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_a_page_made_from_the_code_is_fresh(name: str) -> None:
    kept = (generate.REFERENCE / name).read_text(encoding="utf-8")
    assert kept == generate.PAGES[name](), "stale: run `python -m docs.generate`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"`([a-z_]+/[\w/.-]+\.(?:py|sql|md|yaml|toml))[`:]", page.read_text(encoding="utf-8")
    )
    missing = [
        name
        for name in named
        if not any((base / name).exists() for base in (ROOT, ROOT / "recsys"))
    ]
    assert not missing


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_a_page_can_be_reached_from_the_index(page: Path) -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
    assert name == "index" or f"\n{name}\n" in index, "no toctree has it"


@pytest.mark.parametrize("example", commands(), ids=lambda example: example.text[:60])
def test_a_command_exists_and_takes_what_it_is_given(example: Example) -> None:
    if example.text.startswith("make "):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        target = example.text.split()[1]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), example
        return
    group = typer.main.get_command(cli.app)
    name, *arguments = words(example.text)
    if name == "--help":
        return
    assert name in group.commands, example  # type: ignore[attr-defined]
    command = group.commands[name]  # type: ignore[attr-defined]
    required = [part for part in command.params if part.required]
    if not arguments and required:
        return  # the prose speaks of the command by its name
    command.make_context(name, arguments)


@pytest.mark.parametrize("example", blocks("toml"), ids=lambda example: example.page)
def test_an_example_of_settings_is_valid(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Settings(**tomllib.loads(example.text))


def test_a_default_on_the_settings_page_is_what_recsys_toml_would_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_GATE__ALLOW_BELOW_BASELINE")
    page = generate.settings().partition("## Fields of a preset")[0]
    lines = []
    for heading, name, default in re.findall(
        r"^## (\[[\w.]+\]|\[\[sinks\]\])|^\| `(\w+)` \| `(.+?)` \|", page, re.M
    ):
        lines.append(heading if heading else f"{name} = {default}")
    written = tomllib.loads("\n".join(lines))
    assert len(lines) > 20
    for place, kind in {"source": Source, "items": ItemSource}.items():  # their uri has no default
        assert kind(uri="a.csv", **written.pop(place)) == kind(uri="a.csv")
    (sink,) = written.pop("sinks")
    assert Sink(name="a", to="lists", **sink) == Sink(name="a", to="lists")
    assert written.pop("experiment") == {}, "it has no default, since there is none"
    assert Settings(**written) == Settings()


def test_every_query_that_ships_is_on_the_page_with_its_parameters() -> None:
    page = (ROOT / "docs" / "read.md").read_text(encoding="utf-8")
    listed = {
        name: set(re.findall(r"\w+", parameters))
        for name, parameters in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    }
    shipped = {}
    for path in (ROOT / "sql" / "queries").glob("*.sql"):
        lines = path.read_text(encoding="utf-8").splitlines()
        statement = "\n".join(line for line in lines if not line.startswith("--"))
        shipped[path.stem] = set(re.findall(r"\$(\w+)", statement))
    assert listed == shipped


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake in which every example has something to show."""
    lake = Lake(str(tmp_path_factory.mktemp("docs") / "lake"), ObjectStorage())
    lakes.fill(lake, {42: [10, 11], 7: [12]})
    titles = [{"item_id": item, "title": f"title {item}"} for item in (10, 11, 12)]
    lakes.write(lake, "items", titles)
    for day in (1, 2):
        rows = lakes.lists(date(2026, 1, day), {42: [12], 7: [10, 11]}, run_id=f"run {day}")
        lakes.write(lake, "recommendations", rows)
        lakes.write(lake, "editions", [lakes.edition(date(2026, 1, day))])
    model = {"model_id": "m", "status": "champion", "why": "first", "preset": "best"}
    lakes.write(lake, "models", [{**model, "trained_at": lakes.START}])
    now = datetime.now(UTC)
    run = {"run_id": "run 2", "flow": "nightly", "status": "completed", "outcome": "{}"}
    lakes.write(lake, "runs", [{**run, "started": now, "finished": now}])
    bad = {"batch_id": "b", "source": "s", "row": "{}", "reasons": ["user_id is null"]}
    lakes.write(lake, "quarantine", [{**bad, "quarantined_at": lakes.START}])
    publish_catalog(lake)
    return lake


def asked() -> list[Example]:
    """The commands that read a lake, with every word they need."""
    return [
        example
        for example in commands()
        if not example.text.startswith("make ")
        and words(example.text)[0] in ("sql", "models")
        and words(example.text)[1:2] not in (["show"], ["promote"], ["rollback"])
        and (len(words(example.text)) > 1 or words(example.text)[0] == "models")
        and "NAME" not in example.text
    ]


@pytest.mark.slow
@pytest.mark.parametrize("example", asked(), ids=lambda example: example.text[:60])
def test_a_command_that_reads_a_lake_answers(
    example: Example,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = recsys(monkeypatch, capsys, "--lake", lake.root, *words(example.text))
    assert code == 0, err
    assert len(out.splitlines()) > 1, "an answer with at least one row"


def examples_in_python() -> list[Example]:
    """Those whose packages are here; tests/catalog/test_consumers.py runs the others."""
    return [example for example in blocks("python") if "import polars" not in example.text]


@pytest.mark.parametrize("example", examples_in_python(), ids=lambda example: example.page)
def test_an_example_in_python_reads_rows(
    example: Example, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(lake.root).parent)
    *statements, last = ast.parse(example.text).body
    assert isinstance(last, ast.Expr)
    names: dict[str, object] = {}
    exec(compile(ast.Module(statements, []), example.page, "exec"), names)  # noqa: S102 - our page
    answer = eval(compile(ast.Expression(last.value), example.page, "eval"), names)  # noqa: S307
    assert len(answer.fetchall() if hasattr(answer, "fetchall") else answer)


def test_the_readme_shows_the_verdict_that_the_gate_gives() -> None:
    scores = {"item-knn": np.array([0.1, 0.0]), "popularity": np.array([0.0, 0.0])}
    verdict = judge(np.array([0.2, 0.1]), baselines=scores, champion=None, tolerance=0.002)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^train: (.*)$", readme, re.MULTILINE)
    figures = re.compile(r"[\d.,]*\d")
    told = figures.sub("0", f"{verdict.status}, {verdict.why}")
    assert told.startswith(figures.sub("0", line).partition("; ")[0])


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
