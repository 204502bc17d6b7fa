"""One measure, alone in this process, so that the peak of its memory is its own."""

from __future__ import annotations

import importlib
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.common import Setup, Sizes


def main(name: str, folder: Path) -> None:
    """Run ``module:function`` on ``setup.json`` of a folder; leave ``result.json`` there."""
    given = json.loads((folder / "setup.json").read_text())
    setup = Setup(**{**given, "sizes": Sizes(**given["sizes"])})
    module, _, function = name.partition(":")
    measure = getattr(importlib.import_module(f"tests.benchmarks.{module}"), function)
    result = asdict(measure(setup))
    unit = 1 if sys.platform == "darwin" else 1024
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
