"""Imports point one way, and the model runs where there is nothing but torch and numpy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room with what it must never import; `recsys` rooms by their first name.
FORBIDDEN = {
    "sql": {"recsys", "flows", "deployments", "prefect"},
    "recsys": {"flows", "deployments", "prefect"},
    "recsys/model": {"recsys.training", "recsys.lake.tables", "recsys.cli", "recsys.settings"},
    "recsys/training": {"recsys.lake.tables", "recsys.cli", "recsys.settings"},
    "recsys/evaluation": {"recsys.lake.tables", "recsys.cli", "recsys.settings", "recsys.training"},
    "flows": {"deployments"},
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            for forbidden in FORBIDDEN[room]:
                assert name != forbidden, path
                assert not name.startswith(f"{forbidden}."), path


def loaded(*modules: str) -> set[str]:
    """Top-level packages that importing these modules brings in, in a fresh interpreter."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_the_library_never_loads_prefect() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "recsys").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert "recsys.cli" in modules
    assert "prefect" not in loaded(*modules)


def test_model_and_training_need_nothing_but_torch_and_numpy() -> None:
    """Import them with every other installed package out of reach."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("model", "training")
        for path in sorted((ROOT / "recsys" / room).rglob("*.py"))
    ]
    code = f"""
import importlib.abc, sys
import torch, numpy
allowed = {{m.split('.')[0] for m in sys.modules}} | set(sys.stdlib_module_names)
class OutOfReach(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in allowed | {{'recsys', 'sql', 'torch', 'numpy'}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, OutOfReach())
import {", ".join(module.removesuffix(".__init__") for module in modules)}
import recsys.model.scoring, recsys.training.trainer
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
