"""Jinja templates that are compiled once for all processes of a test session."""

from __future__ import annotations

import os
from typing import Any

import jinja2

FOLDER = "TESTS_COMPILED_TEMPLATES"


def keep_compiled() -> None:
    """Make every Jinja environment of this process keep what it compiles in a common folder."""
    plain = jinja2.Environment.__init__
    cache = jinja2.FileSystemBytecodeCache(os.environ[FOLDER])

    def cached(environment: jinja2.Environment, *given: Any, **named: Any) -> None:
        plain(environment, *given, **named)
        environment.bytecode_cache = environment.bytecode_cache or cache

    jinja2.Environment.__init__ = cached  # type: ignore[method-assign]
