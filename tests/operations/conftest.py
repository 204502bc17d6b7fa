from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.catalog.publish import CATALOG_FILE, publish_catalog
from recsys.lake.tables import Lake
from tests.operations.nights import NIGHTS, night, put_day, settings_of


@pytest.fixture(scope="session")
def _nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights, each of which ingested a file, and made lists."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "cwd").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "cwd")
        for number in range(NIGHTS):
            put_day(folder / "source", number)
            night(settings_of(folder), number)
    return folder


@pytest.fixture
def folder(_nights: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the lake and its source, to be changed; without the catalog, which names paths."""
    copy = tmp_path / "copy"
    shutil.copytree(_nights / "lake", copy / "lake", ignore=shutil.ignore_patterns(CATALOG_FILE))
    os.symlink(_nights / "source", copy / "source")
    return copy


@pytest.fixture
def published(folder: Path) -> Path:
    """The same, with a catalog."""
    publish_catalog(Lake.from_settings(settings_of(folder)))
    return folder
