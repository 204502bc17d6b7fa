"""Imports point one way, and the model runs where there is nothing but torch and numpy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def kept(folder: Path) -> tuple[bool, str]:
    """Whether the contracts in pyproject.toml hold for the packages in a folder; and the report."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
        + ["--no-cache", "--config", str(folder / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("flows", "recsys", "sql"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def test_a_room_imports_only_from_below(copied: Path) -> None:
    holds, report = kept(copied)
    assert holds, report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        (
            "recsys/lake/object_store.py",
            "from recsys.registry.retrain import train",
            "rooms",
        ),
        (
            "recsys/lake/object_store.py",
            "if TYPE_CHECKING:\n    from recsys.ingest.batch import IngestResult",
            "rooms",
        ),
        (
            "recsys/settings.py",
            "def planted() -> None:\n    from recsys.lake.engine import open_duckdb",
            "rooms",
        ),
        ("recsys/ingest/batch.py", "import recsys.catalog.publish", "rooms"),
        ("recsys/evaluation/splits.py", "from recsys.training import trainer", "rooms"),
        ("recsys/operations/runs.py", "from recsys.lists.recommend import recommend", "rooms"),
        ("recsys/model/config.py", "from recsys.settings import Settings", "network"),
        ("recsys/training/trainer.py", "from recsys import columns", "network"),
        (
            "recsys/cli/lists.py",
            "def planted() -> None:\n    import flows.nightly",
            "flows, recsys, sql",
        ),
        ("sql/__init__.py", "from recsys import columns", "flows, recsys, sql"),
        ("recsys/lists/checks.py", "def planted() -> None:\n    import prefect", "Prefect"),
        ("recsys/attic.py", '"""A module that no line of the contract names."""', "rooms"),
    ],
)
def test_a_planted_import_is_found(copied: Path, module: str, planted: str, contract: str) -> None:
    with (copied / module).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{planted}\n")
    holds, report = kept(copied)
    assert not holds
    broken = [line for line in report.splitlines() if line.endswith("BROKEN")]
    assert any(contract in line for line in broken), report


@pytest.fixture(scope="module")
def imported() -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that imports all of recsys, and says which top-level packages that loads.

    First, with every installed package but torch and numpy out of reach, model and training.
    """
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "recsys").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    alone = [module for module in modules if module.split(".")[1] in ("model", "training")]
    assert {"recsys.model.scoring", "recsys.training.trainer"} <= set(alone)
    assert "recsys.cli.lists" in modules
    code = f"""
import importlib.abc, sys
import torch, numpy
allowed = {{m.split('.')[0] for m in sys.modules}} | set(sys.stdlib_module_names)
class OutOfReach(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in allowed | {{'recsys', 'sql', 'torch', 'numpy'}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, OutOfReach())
import {", ".join(alone)}
print("model and training", flush=True)
del sys.meta_path[0]
import {", ".join(modules)}
print(*{{m.split('.')[0] for m in sys.modules}})
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.slow
def test_model_and_training_need_nothing_but_torch_and_numpy(
    imported: subprocess.CompletedProcess[str],
) -> None:
    assert imported.stdout.startswith("model and training\n"), imported.stderr


def test_the_library_never_loads_prefect(imported: subprocess.CompletedProcess[str]) -> None:
    assert imported.returncode == 0, imported.stderr
    loaded = set(imported.stdout.split())
    assert "duckdb" in loaded
    assert "prefect" not in loaded
