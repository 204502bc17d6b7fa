"""Which code made a result."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import sql
from recsys import __version__


@cache
def code_version() -> str:
    """Return the release and a digest of the code, such as ``0.1.0+3fa4c2e91b07``.

    Between two releases the code changes, and what it computes may.
    """
    told = hashlib.sha256()
    for package, kind in ((Path(__file__).parent, "*.py"), (Path(sql.__file__).parent, "*.sql")):
        for file in sorted(package.rglob(kind)):
            told.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{__version__}+{told.hexdigest()[:12]}"
