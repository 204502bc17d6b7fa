"""What a user installs: the wheel, in an environment without a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content; what it depends on is the environment's."""
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "wheel", str(ROOT), *options, "--wheel-dir", str(built)], check=True)
    [wheel] = built.glob("*.whl")
    command = [*pip, "install", str(wheel), "--no-deps", "--quiet", "--target", str(target)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def env(installed: Path, prefect_api: str, tmp_path: Path) -> dict[str, str]:
    source = tmp_path / "source.duckdb"
    nights.make_source(source)
    env = nights.environment(source, tmp_path / "lake", prefect_api, PREFECT_HOME=str(tmp_path))
    return {**env, "PYTHONPATH": str(installed)}


def run(env: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(installed: Path) -> None:
    files = {
        file.relative_to(ROOT)
        for package in ("flows", "recsys", "sql")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert {file for file in files if not (installed / file).is_file()} == set()
    for name in ("automations.yaml", "prefect.yaml"):
        given = (ROOT / "deployments" / name).read_bytes()
        assert (installed / "flows" / name).read_bytes() == given


def test_a_night_runs_from_the_wheel_in_a_folder_with_packages_of_other_people(
    installed: Path, env: dict[str, str], tmp_path: Path
) -> None:
    for package in ("flows", "recsys", "sql"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    command = str(installed / "bin" / "recsys")
    run(env, tmp_path, command, "nightly", "--set", "k=3", "--train", "never")
    lake = Lake(env["RECSYS_LAKE"], ObjectStorage())
    statement = "select max(rank) as k from recommendations"
    assert query_catalog(lake, statement, {}).to_pylist() == [{"k": 3}]
    assert "item_id" in run(env, tmp_path, command, "sql", "item_exposure", "-f", "csv")


@pytest.mark.parametrize("module", ["recsys.cli", "flows.cli"])
def test_the_command_line_is_a_module_too(env: dict[str, str], tmp_path: Path, module: str) -> None:
    assert "Usage" in run(env, tmp_path, "-m", module, "sql", "--help")


def test_python_says_which_flows_are_deployed(installed: Path, env: dict[str, str]) -> None:
    """The entrypoints of prefect.yaml can be imported from the wheel."""
    code = (
        "import flows.entrypoints as e; from flows.deployments import read_deployments as read; "
        "print(e.__file__, *read('UTC', {}), sep='\\n')"
    )
    file, *names = run(env, installed, "-P", "-c", code).splitlines()
    assert {"nightly/daily", "train/weekly", "train/on-demand"} <= set(names)
    assert Path(file) == installed / "flows" / "entrypoints.py"
