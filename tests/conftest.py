from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from xdist.scheduler import LoadScopeScheduling

from flows import children
from recsys.lake.tables import Lake
from recsys.settings import Settings
from tests import templates
from tests.remembered import remember_checks, remember_tables
from tests.servers import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# Tests that a worker takes one at a time, and first, so that all workers end together: they take
# long, and share nothing. Those of another file stay together, for what its fixtures prepare once;
# those that use one Prefect server, too.
_LONG = (
    "tests/flows/test_kill_serve.py",
    "tests/flows/test_stop.py",
    "tests/benchmarks/test_bench.py",
    "tests/flows/test_s3.py",
    "tests/training/test_trainer.py",
    "tests/test_cli.py",
)
_PREFECT = (
    "tests/flows/test_flows.py",
    "tests/flows/test_kill.py",
    "tests/flows/test_deployments.py",
    "tests/test_wheel.py",
)
# Those that use one `recsys serve`, first of all: they wait for most of their time.
_SERVED = ("tests/flows/test_server.py", "tests/flows/test_serve.py")


# In the worlds of the tests, transitions know the rule: no model of a few epochs is above them. Set
# here, it holds in fixtures of a module and in child processes, too.
_BELOW_BASELINE = "RECSYS_GATE__ALLOW_BELOW_BASELINE"
os.environ[_BELOW_BASELINE] = "true"


_COUNTED = "counted "
"""Begins the name of a property that a test records for `pytest_terminal_summary`.

Its value is a kind, or a kind and how many of it there were: `record_property("counted faults",
("reset", 12))`.
"""


class _Groups(LoadScopeScheduling):
    """Tests of one group go to one worker, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        for group in (_SERVED, _PREFECT):
            if file in group:
                return group[0]
        return nodeid if file in _LONG else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {file: rank for rank, file in enumerate((*_SERVED, *_PREFECT, *_LONG))}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted, such as kills that left nothing amiss, by its kind."""
    counts: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, kind in getattr(report, "user_properties", ()):
            if report.when == "call" and name.startswith(_COUNTED):
                of, many = kind if isinstance(kind, tuple | list) else (kind, 1)
                counts[name.removeprefix(_COUNTED), str(of)] += many
    for name in sorted({name for name, _ in counts}):
        kinds = {kind: count for (of, kind), count in counts.items() if of == name}
        listed = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        terminalreporter.write_line(f"{sum(kinds.values()):,} {name}: {listed}")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings come from the test alone: no RECSYS_* variable, no recsys.toml of a checkout."""
    for name in list(os.environ):
        if name.startswith("RECSYS_") and name != _BELOW_BASELINE:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_checks(patch)
        remember_tables(patch, tmp_path_factory.mktemp("tables"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Great Expectations makes a Jinja environment a page; half of a small ingest is compiling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(templates.FOLDER, str(_shared_folder(tmp_path_factory)))
        templates.keep_compiled()
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), memory_limit="1GB", device="cpu")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake.from_settings(settings)


def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of this session see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def _prefect_template(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Path:
    """A Prefect home with an empty database: Prefect takes ten seconds to make one.

    It is made once for a version of Prefect, and kept in build/.
    """
    kept = pytestconfig.rootpath / "build" / f"prefect-{version('prefect')}"
    with (_shared_folder(tmp_path_factory) / "prefect-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            made = tmp_path_factory.mktemp("prefect-template")
            env = {**os.environ, "PREFECT_HOME": str(made)}
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=env, check=True, capture_output=True, timeout=120)
            shutil.copytree(made, kept.with_suffix(".new"), dirs_exist_ok=True)
            kept.with_suffix(".new").rename(kept)
    return kept


@pytest.fixture
def prefect_home(_prefect_template: Path, tmp_path: Path) -> Path:
    """A Prefect home of this test's own, whose database is there already."""
    return shutil.copytree(_prefect_template, tmp_path / "prefect")


@pytest.fixture(scope="session")
def prefect_api(_prefect_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server in a process of its own, with a database of its own; its address.

    It lives until the session ends; flows of this process use it too.
    """
    folder, port = tmp_path_factory.mktemp("prefect"), free_port()
    home = shutil.copytree(_prefect_template, folder / "home")
    command = [sys.executable, "-P", children.__file__, "uvicorn", "--factory"]
    command += ["prefect.server.api.server:create_app", "--port", str(port)]
    command += ["--log-level", "warning"]
    server = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT__SERVER_EPHEMERAL": "1"}
    env = {**os.environ, **server, "PREFECT_HOME": str(home)}
    with running(command, folder / "log", f"http://127.0.0.1:{port}", env, 120) as address:
        api = f"{address}/api"
        with temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: api}):
            yield api
