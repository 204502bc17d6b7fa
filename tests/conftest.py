from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import jinja2
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from recsys.lake.tables import Lake
from recsys.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings come from the test alone: no RECSYS_* variable, no recsys.toml of a checkout."""
    for name in list(os.environ):
        if name.startswith("RECSYS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class _Compiled(jinja2.BytecodeCache):
    """Templates that were compiled before, in this process."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once() -> Iterator[None]:
    """Great Expectations makes a Jinja environment a page; half of a small ingest is compiling."""
    plain, compiled = jinja2.Environment.__init__, _Compiled()

    def cached(environment: jinja2.Environment, *given: Any, **named: Any) -> None:
        plain(environment, *given, **named)
        environment.bytecode_cache = environment.bytecode_cache or compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "__init__", cached)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), memory_limit="1GB", device="cpu")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake.from_settings(settings)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server in a process of its own, with a database of its own; its address.

    It lives until the session ends; flows of this process use it too.
    """
    home = tmp_path_factory.mktemp("prefect")
    quiet = {PREFECT_HOME: home, PREFECT_SERVER_ANALYTICS_ENABLED: False}
    with temporary_settings(quiet), prefect_test_harness(server_startup_timeout=120):
        api = PREFECT_API_URL.value()
        assert api
        yield api
